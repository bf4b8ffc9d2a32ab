//! Tensors that are answered as they came.

use std::collections::BTreeSet;

use quantd_codec::safetensors::{self, AnyTensor};
use quantd_core::cost;

use super::answer::{self, ObjectWriter, to_json_text};
use super::context::Context;
use super::error::{Error, Kind};
use super::payload::Format;

/// Times that a name is there in a safetensors answer, its escapes counted: in the header and in the list of
/// the metadata, and both once more, as the header moves as it grows.
const REPEATED: usize = 16;
/// Bytes of the description of a tensor in a header.
const DESCRIPTION: usize = 512;

/// Tensors that pass, with room for what is written of them.
#[derive(Debug)]
pub(super) struct Passed {
    tensors: Vec<(String, AnyTensor)>,
    /// Bytes that were taken for their text.
    text: usize,
}

impl Passed {
    /// Takes room for them in an answer of that format, in which `others` stand beside them.
    ///
    /// # Errors
    /// [`Kind::NotAcceptable`] when the format has no place for one of them.
    pub(super) fn admit(
        tensors: Vec<(String, AnyTensor)>,
        others: impl Iterator<Item = String>,
        format: Format,
        context: &mut Context<'_>,
    ) -> Result<Self, Error> {
        let mut text = 0_usize;
        match format {
            Format::Json => {
                for (name, tensor) in &tensors {
                    text = text.saturating_add(json_bytes(name, tensor)?);
                }
                let numbers = tensors.iter().map(|(_, tensor)| tensor.shape().len()).sum();
                context.afford(cost::text(numbers))?;
            }
            Format::Safetensors => {
                check_names(&tensors, others)?;
                let bytes = |(name, _): &(String, _)| REPEATED * name.len() + DESCRIPTION;
                text = tensors.iter().map(bytes).sum();
            }
            Format::Npy | Format::Raw if tensors.is_empty() => {}
            Format::Npy | Format::Raw => return Err(several()),
        }
        context.reserve(text)?;
        Ok(Self { tensors, text })
    }

    /// Gives back what was taken for the text that is written now.
    pub(super) const fn release(&self, context: &mut Context<'_>) {
        context.release(self.text);
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Their names as JSON, unless there are none.
    ///
    /// # Errors
    /// [`Kind::Internal`] if they cannot be written.
    pub(super) fn names(&self) -> Result<Option<String>, Error> {
        let names: Vec<&str> = self.tensors.iter().map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { Ok(None) } else { to_json_text(&names).map(Some) }
    }

    /// Writes each as a member of its name.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn write_json(&self, writer: &mut ObjectWriter<'_>) -> Result<(), Error> {
        self.tensors.iter().try_for_each(|(name, tensor)| match tensor {
            AnyTensor::Known(tensor) => writer.object(name, |writer| writer.numbers(tensor)),
            AnyTensor::Opaque(_) => Err(no_numbers(name, tensor)),
        })
    }

    /// The tensors by name.
    pub(super) fn into_tensors(self) -> Vec<(String, AnyTensor)> {
        self.tensors
    }
}

/// Most bytes of a tensor in JSON, and of its elements where they are moved to be read.
fn json_bytes(name: &str, tensor: &AnyTensor) -> Result<usize, Error> {
    let AnyTensor::Known(known) = tensor else { return Err(no_numbers(name, tensor)) };
    let moved = if known.is_aligned() { 0 } else { known.bytes().len() };
    Ok(answer::text_bytes(known).saturating_add(moved))
}

fn no_numbers(name: &str, tensor: &AnyTensor) -> Error {
    let detail = format!("JSON has no numbers for elements of {}", tensor.dtype_name());
    Error::new(Kind::NotAcceptable, detail)
        .about(name)
        .cure("accept application/x-safetensors: there it stands as it came")
}

/// Refuses what a file cannot hold beside `others`.
fn check_names(
    tensors: &[(String, AnyTensor)],
    others: impl Iterator<Item = String>,
) -> Result<(), Error> {
    if tensors.is_empty() {
        return Ok(());
    }
    let others: BTreeSet<String> = others.collect();
    for (name, _) in tensors {
        check_name(name)?;
        if others.contains(name) {
            let detail = "it passes as it is, and a part of a quantized tensor has that name too";
            return Err(Error::new(Kind::NotAcceptable, detail)
                .about(name)
                .cure("accept application/json, include it, or name it otherwise"));
        }
    }
    Ok(())
}

/// Refuses the name of what is no tensor in a safetensors file.
///
/// # Errors
/// [`Kind::NotAcceptable`] for it.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    if name != safetensors::METADATA {
        return Ok(());
    }
    let detail = "a safetensors file has no place for a tensor of that name";
    Err(Error::new(Kind::NotAcceptable, detail)
        .about(name)
        .cure("accept application/json, or name the tensor otherwise"))
}

/// The error for an answer of one tensor to a request of several.
#[must_use]
pub(super) fn several() -> Error {
    Error::new(Kind::NotAcceptable, "several tensors do not fit an answer of one")
        .cure("accept application/x-safetensors or application/json")
}
