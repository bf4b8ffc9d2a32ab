//! An answer: its header, to which binary outputs are appended as they are.

use super::{datatype, has_json};
use crate::json::{Text, write_reals_f32, write_reals_f64, write_string, write_tensor};
use crate::{CodecError, Reason};
use quantd_core::tensor::{Reals, Shape, Tensor};

/// What an answer says before its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The id of the request.
    pub id: Option<&'a str>,
}

/// A tensor of an answer.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its elements.
    pub tensor: Tensor,
    /// What else there is to say, by name.
    pub parameters: Vec<(&'static str, String)>,
    /// Whether the elements follow the header.
    pub binary: bool,
}

/// The header, with the elements of all outputs that are not binary.
///
/// # Errors
/// An output that has to be binary is not: its elements are half-precision
/// ([malformed](crate::Reason::Malformed)), or some are infinite
/// ([unsupported](crate::Reason::Unsupported)). Or there is no room.
pub fn write(text: &mut Text<'_>, head: Head<'_>, outputs: &[Output]) -> Result<(), CodecError> {
    let mut out = Vec::with_capacity(256);
    out.extend(b"{\"model_name\":");
    write_string(&mut out, head.model);
    out.extend(b",\"model_version\":");
    write_string(&mut out, head.version);
    if let Some(id) = head.id {
        out.extend(b",\"id\":");
        write_string(&mut out, id);
    }
    out.extend(b",\"outputs\":[");
    text.push(&out)?;
    for (i, output) in outputs.iter().enumerate() {
        if i > 0 {
            text.push(b",")?;
        }
        write_output(text, output)?;
    }
    text.push(b"]}")
}

fn write_output(text: &mut Text<'_>, output: &Output) -> Result<(), CodecError> {
    let tensor = &output.tensor;
    let out = &mut Vec::with_capacity(256);
    out.extend(b"{\"name\":");
    write_string(out, output.name);
    out.extend(b",\"datatype\":");
    write_string(out, datatype(tensor.dtype()));
    out.extend(b",\"shape\":[");
    let dims: Vec<_> = tensor.shape().dims().iter().map(usize::to_string).collect();
    out.extend(dims.join(",").bytes());
    out.push(b']');
    if output.binary || !output.parameters.is_empty() {
        out.extend(b",\"parameters\":{");
        if output.binary {
            out.extend(format!("\"binary_data_size\":{}", tensor.bytes().len()).bytes());
        }
        for (i, (name, value)) in output.parameters.iter().enumerate() {
            if i > 0 || output.binary {
                out.push(b',');
            }
            write_string(out, name);
            out.push(b':');
            write_string(out, value);
        }
        out.push(b'}');
    }
    if !output.binary {
        out.extend(b",\"data\":");
        text.push(out)?;
        out.clear();
        write_data(text, tensor).map_err(|error| {
            if matches!(error.reason, Reason::NoRoom | Reason::TooLarge) {
                return error;
            }
            let detail = format!("output {:?}: {}", output.name, error.detail);
            CodecError { detail: detail.into(), ..error }
                .cure("ask for it as binary data: \"parameters\": {\"binary_data_output\": true}")
        })?;
    }
    out.push(b'}');
    text.push(out)
}

/// The elements as one flat array; NaN is `null`, which NumPy reads as NaN.
fn write_data(out: &mut Text<'_>, tensor: &Tensor) -> Result<(), CodecError> {
    if !has_json(tensor.dtype()) {
        let detail = format!("{} data via JSON is not supported", datatype(tensor.dtype()));
        return Err(CodecError::malformed(detail));
    }
    let flat = Shape::vector(tensor.shape().len());
    let flat = flat.ok().and_then(|shape| tensor.clone().reshaped(shape));
    let Some(flat) = flat else {
        return Err(CodecError::too_large("too many elements for JSON"));
    };
    let (mut nan, mut infinite) = (false, false);
    if flat.dtype().is_float() {
        (nan, infinite) = match flat.reals() {
            Reals::F32(x) => (x.iter().any(|x| x.is_nan()), x.iter().any(|x| x.is_infinite())),
            Reals::F64(x) => (x.iter().any(|x| x.is_nan()), x.iter().any(|x| x.is_infinite())),
        };
    }
    if infinite {
        return Err(CodecError::unsupported("infinities cannot be written as JSON"));
    }
    if nan { write_with_nulls(out, &flat) } else { write_tensor(out, &flat) }
}

fn write_with_nulls(out: &mut Text<'_>, tensor: &Tensor) -> Result<(), CodecError> {
    fn numbers<T: Copy>(
        out: &mut Text<'_>,
        values: &[T],
        is_nan: impl Fn(T) -> bool,
        write: impl Fn(&mut Text<'_>, T) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        out.push(b"[")?;
        for (i, &value) in values.iter().enumerate() {
            if i > 0 {
                out.push(b",")?;
            }
            if is_nan(value) { out.push(b"null") } else { write(out, value) }?;
        }
        out.push(b"]")
    }
    let scalar = Shape::scalar();
    match tensor.reals() {
        Reals::F64(x) => {
            numbers(out, &x, f64::is_nan, |out, x| write_reals_f64(out, &[x], &scalar))
        }
        Reals::F32(x) => {
            numbers(out, &x, f32::is_nan, |out, x| write_reals_f32(out, &[x], &scalar))
        }
    }
}
