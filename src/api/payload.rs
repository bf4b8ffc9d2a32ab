//! A request body as it arrived, decoded to tensors and options.

use std::sync::Arc;

use serde_json::Value;

use crate::codec::encoding::{self, Encoding};
use crate::codec::json::{self, Member};
use crate::codec::safetensors::AnyTensor;
use crate::codec::{CodecError, Limits, Reason, Within, names, npy, safetensors, sniff};
use crate::quant::Cancel;
use crate::quant::cost::Cost;
use crate::tensor::{Buffer, DType, Shape, Tensor};

use super::effort::Effort;
use super::error::{Error, Kind, Place};
use super::fields::{Fields, Origin};
use super::form;
use super::guess::hint;
use super::options::SCHEME_FIELDS;
use super::select::computable;

/// How a body or an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/x-npy`.
    Npy,
    /// `application/x-safetensors`.
    Safetensors,
    /// `application/octet-stream`: elements only.
    Raw,
}

/// A body that nothing has looked into yet; copies share its bytes.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The bytes.
    pub body: Arc<Buffer>,
    /// What they claim to be.
    pub format: Format,
    /// How they are compressed.
    pub encoding: Encoding,
    /// What parts it, once decompressed, where it is a form and the format is that of the file in it.
    pub boundary: Option<String>,
    /// The query string.
    pub query: String,
}

/// What decoding and computing may use.
pub struct Context<'a> {
    /// Bounds on documents.
    pub limits: &'a Limits,
    /// Asks to stop.
    pub cancel: &'a Cancel,
    /// Bytes that the request may use beside its body without asking.
    pub spare: usize,
    /// Asks for room for so many bytes more.
    pub grow: &'a mut dyn FnMut(usize) -> Result<(), CodecError>,
    /// How long the work may be.
    pub effort: Effort,
}

impl Context<'_> {
    /// Takes room for `bytes`, of what is spare first.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when there will never be enough, [`Kind::Overloaded`] when there is not at the moment.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        Ok(self.take(bytes)?)
    }

    /// The same in the terms of a codec.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] and [`Reason::NoRoom`], and [`Reason::Stopped`] once the work is to stop: codecs
    /// look for that by taking nothing.
    pub fn take(&mut self, bytes: usize) -> Result<(), CodecError> {
        if !self.effort.is_committed() {
            go_on(self.cancel)?;
        }
        self.foresee(bytes)?;
        self.spare -= bytes;
        Ok(())
    }

    /// Makes sure that `bytes` are spare, for what will ask for them little by little: before work is done in vain.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn foresee(&mut self, bytes: usize) -> Result<(), CodecError> {
        if let Some(more) = bytes.checked_sub(self.spare).filter(|more| *more > 0) {
            (self.grow)(more)?;
            self.spare = bytes;
        }
        Ok(())
    }

    /// Takes up work of that cost, before it is begun.
    ///
    /// # Errors
    /// Those of [`Effort::take`].
    pub fn afford(&mut self, cost: Cost) -> Result<(), Error> {
        self.effort.take(cost)
    }

    /// The bytes that a body decompresses to.
    ///
    /// # Errors
    /// [`Error`] when the content coding is broken or the limits are exceeded.
    pub fn inflate(&mut self, encoding: Encoding, bytes: &[u8]) -> Result<Buffer, Error> {
        let most = self.limits.max_bytes;
        let allowed = self.effort.inflatable(most);
        let mut grow = |bytes| {
            go_on(self.cancel)?;
            (self.grow)(bytes)
        };
        encoding::decode(encoding, bytes, allowed, &mut grow).map_err(|error| {
            let is_long = error.reason == Reason::TooLarge && allowed < most;
            if is_long { self.effort.outgrow() } else { error.into() }
        })
    }

    /// Gives back room that was reserved.
    pub const fn release(&mut self, bytes: usize) {
        self.spare = self.spare.saturating_add(bytes);
    }

    /// Reads the value of an option, which may be an array with an entry a slice.
    ///
    /// # Errors
    /// Those of [`json::read_value`], and when there is no room for what it holds.
    pub fn read_option(&mut self, text: &[u8], pointer: &str) -> Result<Value, Error> {
        self.reserve_option(text)?;
        Ok(json::read_value(text, pointer)?)
    }

    /// Reads the value of an option that may have a member for each tensor.
    ///
    /// # Errors
    /// As [`read_option`](Self::read_option).
    pub fn read_option_by_name(&mut self, text: &[u8], pointer: &str) -> Result<Value, Error> {
        self.reserve_option(text)?;
        Ok(json::read_value_up_to(text, pointer, self.limits.max_tensors)?)
    }

    /// Takes room for what is read of the text of an option.
    ///
    /// # Errors
    /// Those of [`Self::reserve`].
    pub fn reserve_option(&mut self, text: &[u8]) -> Result<(), Error> {
        /// Covered by what every request is admitted with.
        const SMALL: usize = 4 << 10;
        if text.len() > SMALL { self.reserve(json::bytes_of_value(text)) } else { Ok(()) }
    }
}

/// An error once the work is to stop.
fn go_on(cancel: &Cancel) -> Result<(), CodecError> {
    if cancel.is_cancelled() {
        return Err(CodecError::new(Reason::Stopped, "the work was stopped"));
    }
    Ok(())
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("limits", self.limits).finish_non_exhaustive()
    }
}

/// A decoded request of tensors.
#[derive(Debug)]
pub struct Request<T = Tensor> {
    /// The tensors in their order; the name is empty for a request of one unnamed tensor.
    pub tensors: Vec<(String, T)>,
    /// Options not read yet.
    pub fields: Fields,
}

impl Payload {
    /// The body, decompressed, and of a form the file in it; its fields are added to the query.
    ///
    /// # Errors
    /// [`Error`] when the content coding or the form is broken or the limits are exceeded.
    pub fn inflate(
        self,
        context: &mut Context<'_>,
    ) -> Result<(Arc<Buffer>, Format, String), Error> {
        let Self { body, format, encoding, boundary, query } = self;
        let mut body = match encoding {
            Encoding::Identity => body,
            Encoding::Gzip | Encoding::Deflate | Encoding::Zstd => {
                Arc::new(context.inflate(encoding, body.bytes())?)
            }
        };
        let query = match boundary {
            Some(boundary) => form::open(&mut body, &boundary, query, context)?,
            None => query,
        };
        Ok((body, format, query))
    }

    /// Decodes tensors and options; `known` are the members that a JSON request may have. What it may
    /// have, the query may say for it.
    ///
    /// # Errors
    /// [`Error`] names the field or offset at fault, or a tensor of a type that is not computed with.
    pub fn decode(self, known: &[&str], context: &mut Context<'_>) -> Result<Request, Error> {
        let Request { tensors, fields } = self.decode_any(known, context)?;
        let tensors = tensors.into_iter().map(computable).collect::<Result<_, _>>()?;
        Ok(Request { tensors, fields })
    }

    /// The same with tensors of every type that a file may hold.
    ///
    /// # Errors
    /// [`Error`] names the field or offset at fault.
    pub fn decode_any(
        self,
        known: &[&str],
        context: &mut Context<'_>,
    ) -> Result<Request<AnyTensor>, Error> {
        let (body, format, query) = self.inflate(context)?;
        let limits = context.limits;
        let mut fields = Fields::from_query(&query)?;
        let unnamed = |tensor: Tensor| vec![(String::new(), tensor.into())];
        let tensors = match format {
            Format::Json => {
                if known.contains(&"scheme") {
                    fields.gather("scheme", &SCHEME_FIELDS);
                }
                return decode_json(body.bytes(), fields, known, context);
            }
            Format::Npy => unnamed(npy::read(body, (limits, &mut |bytes| context.take(bytes)))?),
            Format::Safetensors => {
                let document = safetensors::read_any(body, limits)?;
                names::check(document.tensors.iter().map(|(name, _)| name.as_str()))?;
                document.tensors
            }
            Format::Raw => unnamed(raw_tensor(body, &mut fields, limits)?),
        };
        Ok(Request { tensors, fields })
    }
}

/// A tensor whose type and shape stand in the query.
///
/// # Errors
/// [`Error`] when they are missing or do not fit the length of the body.
pub fn raw_tensor(
    body: Arc<Buffer>,
    fields: &mut Fields,
    limits: &Limits,
) -> Result<Tensor, Error> {
    let Some(dtype) = dtype(fields, "dtype")? else {
        return Err(fields.error("dtype", "missing").cure("for instance dtype=F32"));
    };
    let Some(shape) = shape(fields, limits)? else {
        return Err(fields.error("shape", "missing").cure("for instance shape=2,3"));
    };
    raw_view(body, dtype, shape, fields)
}

/// The whole body as a tensor of that type and shape.
///
/// # Errors
/// [`Error`] when its length is not theirs.
pub fn raw_view(
    body: Arc<Buffer>,
    dtype: DType,
    shape: Shape,
    fields: &Fields,
) -> Result<Tensor, Error> {
    let (expected, found) = (shape.len() * dtype.size(), body.bytes().len());
    if expected != found {
        let detail = format!("{shape} of {dtype} is {expected} bytes, the body has {found}");
        let error = Error::new(Kind::MalformedBody, detail).at(fields.origin().place("shape"));
        return Err(match sniff::look(body.bytes()) {
            Some(look) => error.cure(format!("the body is {}: {}", look.what, look.cure)),
            None => error,
        });
    }
    Tensor::view(dtype, shape, body, 0)
        .ok_or_else(|| Error::new(Kind::Internal, "a checked view did not fit"))
}

/// The element type named by a field.
///
/// # Errors
/// [`Kind::InvalidOption`] for a name that is none.
pub fn dtype(fields: &mut Fields, name: &str) -> Result<Option<DType>, Error> {
    fields.dtype(name, &DType::ALL)
}

/// The field `shape`.
///
/// # Errors
/// [`Kind::InvalidOption`] for sizes that are no shape, [`Kind::TooLarge`] for one above the limits.
pub fn shape(fields: &mut Fields, limits: &Limits) -> Result<Option<Shape>, Error> {
    let Some(dims) = fields.sizes("shape")? else { return Ok(None) };
    let shape = Shape::new(dims).map_err(|error| fields.error("shape", error.to_string()))?;
    let checked = limits.check(&shape);
    checked.map_err(|error| Error::from(error).at(fields.origin().place("shape")))?;
    Ok(Some(shape))
}

fn decode_json(
    text: &[u8],
    mut query: Fields,
    known: &[&str],
    context: &mut Context<'_>,
) -> Result<Request<AnyTensor>, Error> {
    let members = json::members(text)?;
    let mut fields = Fields::new(serde_json::Map::new(), Origin::Body(String::new()));
    let mut parts = TensorParts::below("");
    let mut tensors = None;
    for member in &members {
        match member.key.as_ref() {
            "tensors" if member.is_null() => {}
            "tensors" => tensors = Some(member.value),
            key if parts.take(key, member, context)? => {}
            key => fields.insert(key, context.read_option(member.value, &pointer("", key))?),
        }
    }
    let tensors = match tensors {
        None if parts.has_no_data() => {
            let error = fields.missing("data", known);
            let cure = if error.cure.is_empty() { NO_DATA.to_owned() } else { error.cure.clone() };
            return Err(error.cure(cure));
        }
        None => {
            parts.small.merge(query.split(&["dtype", "shape"]))?;
            vec![(String::new(), parts.read(DType::F32, context)?.into())]
        }
        Some(_) if !parts.is_empty() => {
            return Err(fields
                .error("tensors", "given beside a single tensor")
                .cure("use either data or tensors"));
        }
        Some(text) => named(text, context, |members, base, context| {
            tensor_alone(members, DType::F32, base, context).map(AnyTensor::from)
        })?,
    };
    fields.merge(query)?;
    Ok(Request { tensors, fields })
}

/// Reads `{"name": {..}, ..}` with a reader for what each name holds.
///
/// # Errors
/// [`Error`] of the object or of the first entry that fails.
pub fn named<T>(
    text: &[u8],
    context: &mut Context<'_>,
    read: impl Fn(&[Member<'_>], &str, &mut Context<'_>) -> Result<T, Error>,
) -> Result<Vec<(String, T)>, Error> {
    let below = |error: CodecError| Error::from(error).at(Place::Pointer("/tensors".to_owned()));
    let entries = json::members_up_to(text, context.limits.max_tensors).map_err(below)?;
    names::check(entries.iter().map(|entry| &*entry.key)).map_err(below)?;
    entries
        .iter()
        .map(|entry| {
            let base = pointer("/tensors", &entry.key);
            let members = json::members(entry.value)
                .map_err(|error| Error::from(error).at(Place::Pointer(base.clone())))?;
            Ok((entry.key.clone().into_owned(), read(&members, &base, context)?))
        })
        .collect()
}

/// The tensor that members describe, and the members that do not belong to it.
///
/// # Errors
/// [`Error`] names the member or the offset at fault.
pub fn tensor_of_members<'a, 'm>(
    members: &'m [Member<'a>],
    base: &str,
    context: &mut Context<'_>,
) -> Result<(Tensor, Vec<&'m Member<'a>>), Error> {
    let (mut parts, mut rest) = (TensorParts::below(base), Vec::new());
    for member in members {
        if !parts.take(&member.key, member, context)? {
            rest.push(member);
        }
    }
    Ok((parts.read(DType::F32, context)?, rest))
}

/// The tensor that members describe, of type `dtype` unless they say so.
pub(super) fn tensor_alone(
    members: &[Member<'_>],
    dtype: DType,
    base: &str,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    let mut parts = TensorParts::below(base);
    for member in members {
        if !parts.take(&member.key, member, context)? {
            return Err(unknown_member(member, base, &TENSOR));
        }
    }
    parts.read(dtype, context)
}

/// What a field of the body holds: numbers of type `dtype`, or a tensor.
///
/// # Errors
/// [`Error`] names the member or the offset at fault.
pub fn numbers_or_tensor(
    member: &Member<'_>,
    dtype: DType,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    let base = pointer("", &member.key);
    if member.value.first() == Some(&b'{') {
        let members = json::members(member.value)
            .map_err(|error| Error::from(error).at(Place::Pointer(base.clone())))?;
        return tensor_alone(&members, dtype, &base, context);
    }
    let within: Within<'_> = (context.limits, &mut |bytes| context.take(bytes));
    Ok(json::read_tensor(member.value, dtype, None, &base, within)?)
}

/// A JSON pointer one step below `base` (RFC 6901 escapes).
#[must_use]
pub fn pointer(base: &str, key: &str) -> String {
    let key: String = key.chars().take(128).collect();
    format!("{base}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The members of a tensor.
pub const TENSOR: [&str; 4] = ["data", "data_b64", "shape", "dtype"];
/// How a tensor is sent that was not.
const NO_DATA: &str = "send numbers as \"data\": [..]";

/// The error about a member that nothing below `base` is called.
#[must_use]
pub fn unknown_member(member: &Member<'_>, base: &str, known: &[&str]) -> Error {
    Error::new(Kind::InvalidOption, "unknown field")
        .at(Place::Pointer(pointer(base, &member.key)))
        .cure(hint(&member.key, known, "known here"))
}

/// The members that make up one tensor.
#[derive(Debug, Default)]
struct TensorParts<'a> {
    base: String,
    data: Option<&'a [u8]>,
    base64: Option<&'a [u8]>,
    small: Fields,
}

impl<'a> TensorParts<'a> {
    /// None yet, of a tensor at `base`.
    fn below(base: &str) -> Self {
        let small = Fields::new(serde_json::Map::new(), Origin::Body(base.to_owned()));
        Self { small, base: base.to_owned(), ..Self::default() }
    }

    /// Takes a member that belongs to a tensor; whether it was one.
    fn take(
        &mut self,
        key: &str,
        member: &Member<'a>,
        context: &mut Context<'_>,
    ) -> Result<bool, Error> {
        match key {
            "data" | "data_b64" if member.is_null() => {}
            "data" => self.data = Some(member.value),
            "data_b64" => self.base64 = Some(member.value),
            "dtype" | "shape" => {
                let value = context.read_option(member.value, &pointer(&self.base, key))?;
                self.small.insert(key, value);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    const fn has_no_data(&self) -> bool {
        self.data.is_none() && self.base64.is_none()
    }

    fn is_empty(&self) -> bool {
        self.has_no_data() && self.small.is_empty()
    }

    fn read(self, default: DType, context: &mut Context<'_>) -> Result<Tensor, Error> {
        let Self { base, data, base64, small: mut fields } = self;
        let dtype = dtype(&mut fields, "dtype")?.unwrap_or(default);
        let limits = context.limits;
        let shape = shape(&mut fields, limits)?;
        let within: Within<'_> = (limits, &mut |bytes| context.take(bytes));
        match (data, base64) {
            (Some(data), None) => {
                let place = pointer(&base, "data");
                Ok(json::read_tensor(data, dtype, shape.as_ref(), &place, within)?)
            }
            (None, Some(data)) => {
                let Some(shape) = shape else {
                    return Err(fields.error("shape", "missing beside data_b64"));
                };
                let place = pointer(&base, "data_b64");
                Ok(json::read_base64(data, dtype, &shape, &place, within)?)
            }
            (Some(_), Some(_)) => Err(fields.error("data_b64", "given beside data")),
            (None, None) => Err(fields.error("data", "missing").cure(NO_DATA)),
        }
    }
}
