//! Which elements share parameters, where codes come back.

use crate::QuantError;
use crate::format::Coded;
use crate::scheme::{Granularity, Options};
use crate::tensor::{Shape, Tensor};

/// The granularity that is named, or that the shape of several parameters says: that of the only axis they fit.
pub(in crate::format) fn granularity(
    coded: &Coded,
    parameters: &[&str],
    shape: &Shape,
) -> Result<Granularity, QuantError> {
    let implied = || {
        let several = several(parameters.iter().filter_map(|name| coded.parts.get(name)));
        several.map_or(Granularity::Tensor, |dims| fitting(shape.dims(), dims))
    };
    Ok(named(&coded.options)?.unwrap_or_else(implied))
}

pub(in crate::format) fn named(options: &Options) -> Result<Option<Granularity>, QuantError> {
    options.names_granularity().then(|| options.resolve_granularity()).transpose()
}

/// Shape of the parameters, if there are several.
pub(in crate::format) fn several<'a>(
    parameters: impl Iterator<Item = &'a Tensor>,
) -> Option<&'a [usize]> {
    let shapes = parameters.map(Tensor::shape);
    shapes.filter(|shape| shape.len() > 1).map(Shape::dims).next()
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
