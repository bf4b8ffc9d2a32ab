//! Tensors that come as codes: what is said beside them, and what follows where nothing is.

use quantd_codec::pack;
use quantd_core::codes::Stated;
use quantd_core::scheme::Granularity;
use quantd_core::tensor::{DType, Shape, Tensor};

use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::Origin;
use super::options::Options;

/// One quantized tensor as it came in.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) codes: Tensor,
    /// Products can do without.
    pub(super) scale: Option<Tensor>,
    pub(super) zero_point: Option<Tensor>,
    /// Which elements share parameters, where that is named.
    pub(super) granularity: Option<Granularity>,
    pub(super) stated: Stated,
    pub(super) place: Origin,
}

impl Item {
    /// Shape of the parameters, if there are several.
    pub(super) fn several(&self) -> Option<&[usize]> {
        let shapes = [&self.scale, &self.zero_point].into_iter().flatten().map(Tensor::shape);
        shapes.filter(|shape| shape.len() > 1).map(Shape::dims).next()
    }

    /// The granularity that is named, or that the shape of several parameters says: that of the only axis they fit.
    pub(super) fn granularity(&self) -> Granularity {
        match (self.granularity, self.several()) {
            (Some(granularity), _) => granularity,
            (None, None) => Granularity::Tensor,
            (None, Some(parameters)) => fitting(self.codes.shape().dims(), parameters),
        }
    }
}

fn fitting(codes: &[usize], parameters: &[usize]) -> Granularity {
    if let (&[ref lead @ .., _], &[ref own @ .., 1]) = (codes, parameters)
        && lead == own
    {
        return Granularity::Token;
    }
    let along = |axis: usize| (0..codes.len()).map(move |i| if i == axis { codes[i] } else { 1 });
    let fits = |&axis: &usize| match parameters {
        &[one] => one == codes[axis],
        all => all.iter().copied().eq(along(axis)),
    };
    let mut axes = (0..codes.len()).filter(fits).map(i64::try_from);
    match (axes.next(), axes.next()) {
        (Some(Ok(axis)), None) => Granularity::Channel { axis },
        _ => Granularity::Tensor,
    }
}

/// What of a scheme matters once the codes exist.
pub(super) struct Coding {
    pub(super) granularity: Option<Granularity>,
    pub(super) stated: Stated,
    pub(super) packed: Option<(u32, bool)>,
}

impl Coding {
    /// Type of codes that come without one.
    pub(super) fn dtype(&self) -> DType {
        let Stated { bits, signed } = self.stated;
        match (self.packed, signed.unwrap_or(true), bits > Some(8)) {
            (Some(_), _, _) | (None, false, false) => DType::U8,
            (None, true, false) => DType::I8,
            (None, true, true) => DType::I16,
            (None, false, true) => DType::U16,
        }
    }
}

pub(super) fn coding(options: &Options, origin: &Origin) -> Result<Coding, Error> {
    let bits = options.bits.unwrap_or(8);
    let granularity = options.names_granularity().then(|| options.resolve_granularity(origin));
    Ok(Coding {
        granularity: granularity.transpose()?,
        stated: Stated { bits: options.bits, signed: options.signed },
        packed: options.packing(bits).then(|| (bits, options.signed.unwrap_or(true))),
    })
}

/// Codes one a byte in their shape, whether they came so or packed.
pub(super) fn unpacked(
    codes: Tensor,
    shape: Option<Shape>,
    coding: &Coding,
    place: &Place,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    let bad = |detail: &str, cure: &str| {
        Err(Error::new(Kind::InvalidOption, detail).at(place.clone()).cure(cure))
    };
    match (coding.packed, shape) {
        (None, None) => Ok(codes),
        (None, Some(shape)) => match codes.clone().reshaped(shape) {
            Some(codes) => Ok(codes),
            None => bad("another number of codes than the shape has", ""),
        },
        (Some(_), None) => bad("packed codes without a shape", "add the shape of the tensor"),
        (Some(_), Some(_)) if codes.dtype() != DType::U8 => {
            bad("not packed codes", "packed codes are U8")
        }
        (Some((bits, signed)), Some(shape)) => {
            // A code a byte, and once more to become a tensor.
            context.reserve(shape.len().saturating_mul(2))?;
            let bytes = pack::unpack(codes.bytes(), bits, signed, shape.len())
                .map_err(|error| Error::from(error).at(place.clone()))?;
            let dtype = if signed { DType::I8 } else { DType::U8 };
            Tensor::from_elements(dtype, shape, &bytes)
                .ok_or_else(|| Error::new(Kind::Internal, "unpacked codes do not fit their shape"))
        }
    }
}
