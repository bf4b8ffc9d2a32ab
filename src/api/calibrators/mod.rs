//! Calibrators: how they are asked for, and what is said of them.

mod document;
mod ranges;
mod request;
pub mod schemas;

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use quantd_core::QuantError;
use quantd_core::calibrate::{Calibration, Method, Parts, Plan};
use quantd_core::params::{Numerics, Range};
use quantd_core::scheme::Granularity;
use quantd_core::tensor::{DType, Shape, Tensor};
use quantd_core::word::Word;
use quantd_kernels::real::Real;
use quantd_kernels::scalar::QuantParams;

use super::answer::{Answer, ObjectWriter};
use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::Origin;
use super::name::Name;
use super::payload::pointer;
use super::schemas::{LearntGranularity, LearntNan, LearntRange, ProfileName};

pub use document::export;
pub use ranges::Ranges;
pub use request::{
    BATCH, CREATION, MERGER, Merger, NanLearnt, QUERY, read_batch, read_creation, read_merger,
    read_query,
};

/// What a calibrator was created with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// How it learns.
    pub plan: Plan,
    /// The codes that scales and zero points are for, unless others are asked for.
    pub numerics: Numerics,
}

/// A calibrator from a document, not checked yet.
#[derive(Debug)]
pub struct Import {
    /// What it was created with.
    pub setup: Setup,
    parts: Parts,
}

impl Import {
    /// Number of its slices, which decides how much memory it takes.
    #[must_use]
    pub const fn slices(&self) -> usize {
        self.parts.finite.len()
    }

    /// What it has learnt.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names the member that no calibrator could have.
    pub fn calibration(&self) -> Result<Calibration, Error> {
        let place = |field: &str| Place::Pointer(pointer(document::BASE, field));
        Calibration::from_parts(self.setup.plan, &self.parts)
            .map_err(|error| Error::of_quant(error, place))
    }
}

/// A calibrator to be.
#[derive(Debug)]
pub struct Creation {
    /// Its name.
    pub name: Name,
    /// Whether one of that name goes.
    pub replace: bool,
    /// What it starts with.
    pub import: Import,
}

/// One batch.
#[derive(Debug)]
pub struct Batch {
    /// Its elements.
    pub tensor: Tensor,
    /// What is to be said of the calibrator then.
    pub wanted: Wanted,
    origin: Origin,
}

impl Batch {
    /// An error of the core about the batch, in the caller's terms.
    #[must_use]
    pub fn error(&self, mut error: QuantError) -> Error {
        if error.field == "axis" {
            error.field = "shape";
            error.detail = format!("axis of the calibrator: {}", error.detail).into();
            error.cure = "feed tensors that have the axis".into();
        }
        Error::of_quant(error, |field| self.origin.place(field))
    }
}

/// What is to be said of a calibrator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The codes that scales and zero points are for; those of its creation otherwise.
    pub numerics: Option<Numerics>,
    /// Whether scales are in f64; where nothing is said, whether f32 does not hold the range.
    pub wide: Option<bool>,
    /// Whether ranges are made, which may take a search; where nothing is said,
    /// whether it does.
    pub resolve: Option<bool>,
}

impl Wanted {
    /// Whether ranges are made of so many slices.
    #[must_use]
    pub fn resolves(&self, plan: &Plan, slices: usize) -> bool {
        self.resolve.unwrap_or(!plan.method().searches() || slices <= 1)
    }
}

/// How a calibrator learns; `null` where a field does not apply.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LearntSetup)]
pub struct SetupDoc {
    /// How ranges are found.
    #[schema(value_type = LearntRange)]
    range: &'static str,
    /// Percentile of the range.
    #[schema(required)]
    percentile: Option<f64>,
    /// Share of the past in a moving average.
    #[schema(required)]
    decay: Option<f64>,
    /// Which elements share a range.
    #[schema(value_type = LearntGranularity)]
    granularity: &'static str,
    /// Axis of the channels or of the softmax.
    #[schema(required)]
    axis: Option<i64>,
    /// Bins on each side of 0.
    #[schema(required)]
    bins: Option<u64>,
    /// What happens to NaN.
    #[schema(value_type = LearntNan)]
    nan: &'static str,
    /// The codes that scales and zero points are for.
    scheme: NumericsDoc,
}

/// The codes as resolved.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ResolvedCodes)]
struct NumericsDoc {
    /// Bits of a code.
    bits: u32,
    /// Two's complement codes.
    signed: bool,
    /// Zero point fixed in the middle.
    symmetric: bool,
    /// Without the most negative code.
    restricted: bool,
    /// Whose numerics.
    #[schema(value_type = ProfileName)]
    profile: &'static str,
}

impl From<&Numerics> for NumericsDoc {
    fn from(numerics: &Numerics) -> Self {
        Self {
            bits: numerics.bits,
            signed: numerics.signed,
            symmetric: numerics.symmetric,
            restricted: numerics.restricted,
            profile: numerics.profile.name(),
        }
    }
}

impl From<&Setup> for SetupDoc {
    fn from(Setup { plan, numerics }: &Setup) -> Self {
        let method = plan.method();
        let softmax = if let Method::CrossEntropy { axis } = method { Some(axis) } else { None };
        let axis = if let Granularity::Channel { axis } = plan.granularity() {
            Some(axis)
        } else {
            softmax
        };
        Self {
            range: method.word().name(),
            percentile: if let Method::Percentile(p) = method { Some(p) } else { None },
            decay: if let Method::MovingAverage { decay } = method { Some(decay) } else { None },
            granularity: plan.granularity().word().name(),
            axis,
            bins: method.takes_bins().then_some(plan.bins() as u64),
            nan: if plan.ignores_nan() { NanLearnt::Ignore } else { NanLearnt::Refuse }.name(),
            scheme: numerics.into(),
        }
    }
}

/// One calibrator in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CalibratorSummary)]
pub struct Summary {
    /// Its name.
    name: String,
    #[serde(flatten)]
    setup: SetupDoc,
    /// Batches.
    batches: u64,
    /// Elements.
    elements: u64,
    /// Slices.
    slices: u64,
    /// Bytes that are set aside for what it has learnt.
    bytes: u64,
}

impl Summary {
    /// Of a calibrator that takes so many bytes.
    #[must_use]
    pub fn new(name: &Name, setup: &Setup, calibration: &Calibration, bytes: usize) -> Self {
        Self {
            name: name.as_str().to_owned(),
            setup: setup.into(),
            batches: calibration.seen().batches,
            elements: calibration.seen().elements,
            slices: calibration.slices() as u64,
            bytes: bytes as u64,
        }
    }
}

/// All calibrators.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CalibratorList)]
pub struct List {
    /// In the order of their names.
    pub calibrators: Vec<Summary>,
}

/// Gives the ranges for codes of a kind, in f64 or not.
pub type Find<'a> = &'a dyn Fn(&Numerics, bool, &mut Context<'_>) -> Result<Arc<Ranges>, Error>;

/// What there is to say of a calibrator: how it learns, what it has seen, and
/// the ranges, scales and zero points that follow.
///
/// # Errors
/// [`Kind::Conflict`] when codes were named and nothing was seen yet, those of `find`, and when there
/// is no room.
pub fn describe(
    name: &Name,
    setup: &Setup,
    calibration: &Calibration,
    wanted: &Wanted,
    (find, context): (Find<'_>, &mut Context<'_>),
) -> Result<Answer, Error> {
    if calibration.seen().batches == 0 && wanted.numerics.is_some() {
        return Err(Error::new(Kind::Conflict, "no batch was fed to the calibrator yet")
            .at(Place::Parameter("name".to_owned()))
            .cure("feed batches first, or leave the scheme out"));
    }
    let numerics = wanted.numerics.unwrap_or(setup.numerics);
    let overflows = |end: f64| end.abs() > f64::from(f32::MAX);
    let is_wide = calibration.observed().is_some_and(|ends| ends.into_iter().any(overflows));
    let wide = wanted.wide.unwrap_or(is_wide);
    let resolve = wanted.resolves(&setup.plan, calibration.slices());
    let resolve = resolve && calibration.seen().batches > 0;
    let ranges = resolve.then(|| find(&numerics, wide, context)).transpose()?;
    Answer::object(&mut |bytes| context.take(bytes), |writer| {
        writer.value("name", &name.as_str())?;
        write_setup(writer, &Setup { plan: setup.plan, numerics })?;
        write_seen(writer, calibration)?;
        let is_tensor = setup.plan.granularity() == Granularity::Tensor;
        match ranges.as_deref() {
            Some(Ranges::F32(ranges)) => columns(writer, ranges, &numerics, is_tensor)?,
            Some(Ranges::F64(ranges)) => columns(writer, ranges, &numerics, is_tensor)?,
            None => ["min", "max", "scale", "zero_point"]
                .into_iter()
                .try_for_each(|key| writer.value(key, &None::<f64>))?,
        }
        let dtype = if wide { DType::F64 } else { DType::F32 };
        writer.value("scale_dtype", &dtype.name())
    })
}

fn write_seen(writer: &mut ObjectWriter<'_>, calibration: &Calibration) -> Result<(), Error> {
    let seen = calibration.seen();
    writer.value("batches", &seen.batches)?;
    writer.value("elements", &seen.elements)?;
    writer.value("nan_elements", &seen.nan)?;
    writer.value("inf_elements", &seen.inf)?;
    writer.value("slices", &calibration.slices())?;
    let observed = calibration.observed();
    writer.value("observed_min", &observed.map(|ends| ends[0]))?;
    writer.value("observed_max", &observed.map(|ends| ends[1]))
}

fn write_setup(writer: &mut ObjectWriter<'_>, setup: &Setup) -> Result<(), Error> {
    let doc = SetupDoc::from(setup);
    writer.value("range", &doc.range)?;
    writer.value("percentile", &doc.percentile)?;
    writer.value("decay", &doc.decay)?;
    writer.value("granularity", &doc.granularity)?;
    writer.value("axis", &doc.axis)?;
    writer.value("bins", &doc.bins)?;
    writer.value("nan", &doc.nan)?;
    writer.value("scheme", &doc.scheme)
}

fn columns<T: Real>(
    writer: &mut ObjectWriter<'_>,
    ranges: &[Range<T>],
    numerics: &Numerics,
    is_tensor: bool,
) -> Result<(), Error> {
    let affines: Vec<QuantParams<T>> = ranges.iter().map(|range| numerics.affine(*range)).collect();
    let dtype = if T::BITS == 64 { DType::F64 } else { DType::F32 };
    let mut column = |key: &str, values: &[T]| -> Result<(), Error> {
        let shape = if is_tensor { Ok(Shape::scalar()) } else { Shape::vector(values.len()) };
        let tensor = shape.ok().and_then(|shape| Tensor::from_elements(dtype, shape, values));
        let missing = || Error::new(Kind::Internal, "a column without a shape");
        writer.tensor(key, &tensor.ok_or_else(missing)?)
    };
    column("min", &ranges.iter().map(|range| range.min).collect::<Vec<_>>())?;
    column("max", &ranges.iter().map(|range| range.max).collect::<Vec<_>>())?;
    column("scale", &affines.iter().map(|affine| affine.scale).collect::<Vec<_>>())?;
    let zero_points: Vec<i32> = affines.iter().map(|affine| affine.zero_point).collect();
    match zero_points[..] {
        [zero_point] if is_tensor => writer.value("zero_point", &zero_point),
        _ => writer.value("zero_point", &zero_points),
    }
}
