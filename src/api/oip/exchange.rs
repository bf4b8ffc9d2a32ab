//! From the body of an inference request to inputs and options, and from
//! outputs to the body of the answer.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::api::answer::Answer;
use crate::api::context::Context;
use crate::api::error::{Error, Kind, Place};
use crate::api::fields::{Fields, Origin, Query};
use crate::api::payload::Format;
use quantd_codec::encoding::Encoding;
use quantd_codec::json::Text;
use quantd_codec::oip::{self, Head, Input, Output, Wanted};
use quantd_codec::{Reason, Within};
use quantd_core::tensor::Buffer;

use super::models::Spec;
use super::tensor_error;

/// Parameters that clients reserve for servers with queues of priorities and
/// with state; nothing depends on the first two here.
const IGNORED: [&str; 1] = ["priority"];
const SEQUENCES: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];

/// A body that nothing has looked into yet.
#[derive(Clone, Debug)]
pub struct Body {
    /// The bytes.
    pub bytes: Arc<Buffer>,
    /// Bytes before the body, that let its binary part start at an aligned address.
    pub lead: usize,
    /// Bytes of the JSON header, once decompressed: all when `None`; with 0 the
    /// body is the elements of the only input.
    pub header: Option<usize>,
    /// How the body is compressed.
    pub encoding: Encoding,
    /// Options, beside those of the body.
    pub query: Query,
}

/// A request, decoded; by default one that holds nothing.
#[derive(Debug, Default)]
pub struct Call {
    id: Option<String>,
    /// Options, at `/parameters`.
    pub fields: Fields,
    inputs: Vec<Input>,
    outputs: Vec<Wanted>,
    /// Whether outputs are binary where nothing else is said of them.
    binary: bool,
    /// Microseconds that the request may wait before it is computed.
    pub timeout: Option<u64>,
}

/// Decodes a request to a model with those inputs.
///
/// # Errors
/// [`Error`] names the member, the parameter or the input at fault.
pub fn decode(body: Body, inputs: &[Spec], context: &mut Context<'_>) -> Result<Call, Error> {
    let Body { mut bytes, mut lead, header, encoding, query } = body;
    if encoding != Encoding::Identity {
        let coded = bytes.bytes().get(lead..).unwrap_or_default();
        bytes = Arc::new(context.inflate(encoding, coded)?);
        lead = 0;
    }
    if header == Some(0) {
        return decode_raw(&bytes, lead, inputs, context)?.with_options(query);
    }
    let within: Within<'_> = (context.limits, &mut |bytes| context.take(bytes));
    let request = oip::read(&bytes, lead, header, within)?;
    let mut decoded = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        decoded.push(settle(input, context)?);
    }
    let mut texts = request.parameters.values().filter_map(Value::as_str);
    texts.try_for_each(|text| context.reserve_option(text.as_bytes()))?;
    let call = Call {
        id: request.id,
        fields: Fields::of_scalars(request.parameters, Origin::Body("/parameters".to_owned()))?,
        inputs: decoded,
        outputs: request.outputs,
        binary: false,
        timeout: None,
    };
    call.with_options(query)
}

fn decode_raw(
    bytes: &Arc<Buffer>,
    lead: usize,
    inputs: &[Spec],
    context: &mut Context<'_>,
) -> Result<Call, Error> {
    let [spec] = inputs else {
        let place = Place::Header("inference-header-content-length");
        return Err(Error::new(Kind::MalformedBody, "the model has more than one input")
            .at(place)
            .cure("send a JSON header that names the inputs"));
    };
    let tensor = oip::raw(bytes, lead, spec.dtype, &spec.dims, context.limits)?;
    let (name, parameters) = (spec.name.to_owned(), serde_json::Map::new());
    let input = settle(Input { name, tensor, is_view: true, parameters }, context)?;
    Ok(Call {
        id: None,
        fields: Fields::new(serde_json::Map::new(), Origin::Body("/parameters".to_owned())),
        inputs: vec![input],
        outputs: Vec::new(),
        binary: true,
        timeout: None,
    })
}

/// Copies elements that do not lie where their type wants them.
fn settle(input: Input, context: &mut Context<'_>) -> Result<Input, Error> {
    if input.tensor.is_aligned() {
        return Ok(input);
    }
    context.reserve(input.tensor.bytes().len())?;
    Ok(Input { tensor: input.tensor.aligned(), ..input })
}

impl Call {
    /// Adds the options of a query, and takes out what the protocol defines.
    fn with_options(mut self, query: Query) -> Result<Self, Error> {
        let fields = &mut self.fields;
        fields.merge(query.into_fields()?)?;
        self.binary = fields.bool("binary_data_output")?.unwrap_or(self.binary);
        self.timeout = fields.integer("timeout", 0, i64::MAX)?.and_then(|t| u64::try_from(t).ok());
        for name in IGNORED {
            drop(fields.take(name));
        }
        for name in SEQUENCES {
            let value = fields.take(name);
            if value.is_some_and(|value| value != 0 && value != "" && value != Value::Bool(false)) {
                return Err(fields
                    .error(name, "requests are independent of one another here")
                    .cure("leave it out"));
            }
        }
        Ok(self)
    }

    /// Takes the input of that name.
    pub fn take(&mut self, name: &str) -> Option<Input> {
        let at = self.inputs.iter().position(|input| input.name == name)?;
        Some(self.inputs.remove(at))
    }

    /// Takes the input of that name, which the model cannot do without.
    ///
    /// # Errors
    /// [`Kind::MalformedBody`] when it is not there.
    pub fn require(&mut self, name: &str, known: &[&str]) -> Result<Input, Error> {
        self.take(name).ok_or_else(|| {
            tensor_error(format!("input {name:?} is missing"), "/inputs".to_owned(), known)
        })
    }

    /// Refuses inputs that were not taken.
    ///
    /// # Errors
    /// [`Kind::MalformedBody`] names the first.
    pub fn finish_inputs(&self, known: &[&str]) -> Result<(), Error> {
        match self.inputs.first() {
            None => Ok(()),
            Some(input) => {
                let detail = format!("the model has no input {:?}", input.name);
                Err(tensor_error(detail, "/inputs".to_owned(), known))
            }
        }
    }

    /// What answers are reckoned as: text, when any output may be.
    #[must_use]
    pub fn format(&self) -> Format {
        let is_binary = |wanted: &Wanted| wanted.binary.unwrap_or(self.binary);
        let all =
            if self.outputs.is_empty() { self.binary } else { self.outputs.iter().all(is_binary) };
        if all { Format::Raw } else { Format::Json }
    }
}

/// Writes the outputs that were asked for.
///
/// # Errors
/// [`Error`] names an output that the model has not, or one that has no JSON.
pub fn encode(
    call: &Call,
    (model, version): (&str, &str),
    outputs: Vec<Output>,
    context: &mut Context<'_>,
) -> Result<Answer, Error> {
    let outputs = select(call, outputs)?;
    let head = Head { model, version, id: call.id.as_deref() };
    let mut room = |bytes| context.take(bytes);
    let mut text = Text::new(&mut room);
    oip::write(&mut text, head, &outputs).map_err(|error| {
        let kind = match error.reason {
            Reason::Unsupported => Kind::NonFinite,
            Reason::Malformed => Kind::InvalidOption,
            Reason::TooLarge | Reason::NoRoom | Reason::Stopped => return Error::from(error),
        };
        Error { kind, ..Error::from(error) }.at(Place::Pointer("/outputs".to_owned()))
    })?;
    if outputs.iter().all(|output| !output.binary) {
        return Answer::json(text);
    }
    // Without a line end: clients take what the length below says for JSON, and the rest for elements.
    let mut answer = Answer::head(text);
    answer.format = Format::Raw;
    answer.json_len = Some(answer.len());
    let binary = outputs.into_iter().filter(|output| output.binary);
    answer.segments.extend(binary.map(|output| Bytes::from_owner(output.tensor)));
    Ok(answer)
}

fn select(call: &Call, mut outputs: Vec<Output>) -> Result<Vec<Output>, Error> {
    if call.outputs.is_empty() {
        return Ok(outputs
            .into_iter()
            .map(|output| Output { binary: call.binary, ..output })
            .collect());
    }
    let mut selected = Vec::with_capacity(call.outputs.len());
    for (i, wanted) in call.outputs.iter().enumerate() {
        let Some(at) = outputs.iter().position(|output| output.name == wanted.name) else {
            let known: Vec<_> = outputs.iter().map(|output| output.name).collect();
            let detail = format!("the model has no output {:?}", wanted.name);
            return Err(tensor_error(detail, format!("/outputs/{i}/name"), &known));
        };
        let binary = wanted.binary.unwrap_or(call.binary);
        selected.push(Output { binary, ..outputs.remove(at) });
    }
    Ok(selected)
}
