//! A request body as it arrived, decoded to tensors and options.

use std::sync::Arc;

use quantd_codec::encoding::Encoding;
use quantd_codec::json::{self, Member};
use quantd_codec::safetensors::AnyTensor;
use quantd_codec::{CodecError, Limits, Within, names, npy, safetensors, sniff};
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::field::{self, Component, Sizes, Table, Types, by_name, fields, named as holds};
use super::fields::{Fields, Origin, Query};
use super::form;
use super::guess::hint;
use super::options::{SCHEME_FIELDS, beside_scheme};
use super::schemas;
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
    /// The query.
    pub query: Query,
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
    pub fn inflate(self, context: &mut Context<'_>) -> Result<(Arc<Buffer>, Format, Query), Error> {
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
        let mut fields = query.into_fields()?;
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
    fields.dtype(name, DTYPE.kind.types)
}

/// The field `shape`.
///
/// # Errors
/// [`Kind::InvalidOption`] for sizes that are no shape, [`Kind::TooLarge`] for one above the limits.
pub fn shape(fields: &mut Fields, limits: &Limits) -> Result<Option<Shape>, Error> {
    let Some(dims) = fields.get(&SHAPE)? else { return Ok(None) };
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

/// The members of a body that are options, read; those called as `parts` are not.
///
/// # Errors
/// [`Error`] of the first one that fails.
pub fn options_beside(
    members: &[Member<'_>],
    parts: &[&str],
    context: &mut Context<'_>,
) -> Result<Fields, Error> {
    let mut fields = Fields::new(serde_json::Map::new(), Origin::Body(String::new()));
    for member in members.iter().filter(|member| !parts.contains(&&*member.key)) {
        let value = context.read_option(member.value, &pointer("", &member.key))?;
        fields.insert(&member.key, value);
    }
    Ok(fields)
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
            return Err(unknown_member(member, base, &field::names(&[TENSOR])));
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

fields! {
    pub DTYPE: "dtype", Types = Types { types: &DType::ALL, component: Component::of::<schemas::Dtype>() },
        "Element type. Default F32; bare elements (`application/octet-stream`) need it.";
    pub SHAPE: "shape", Sizes = Sizes { count: None, most: Some(8) },
        "Dimensions, such as `2,3`; empty for a scalar. Flat data that is not a vector, base64 and bare \
         elements need them.";
    pub DATA: "data", in JSON holds::<schemas::Numbers>,
        "The numbers.";
    pub DATA_B64: "data_b64", in JSON field::text,
        "The elements, little-endian, in base64; instead of `data`, with `shape`.";
}
/// The members of a tensor.
pub const TENSOR: Table = &[&DATA, &DATA_B64, &SHAPE, &DTYPE];
fields! {
    pub TENSORS: "tensors", in JSON by_name::<schemas::TensorBody>,
        "Several tensors by name, instead of one.";
}
/// Type and shape of bare elements.
pub const BARE: Table = &[&DTYPE, &SHAPE];
/// How a tensor is sent that was not.
const NO_DATA: &str = "send numbers as \"data\": [..]";

/// The error about a member that nothing below `base` is called.
#[must_use]
pub fn unknown_member(member: &Member<'_>, base: &str, known: &[&str]) -> Error {
    let error = Error::new(Kind::InvalidOption, "unknown field")
        .at(Place::Pointer(pointer(base, &member.key)))
        .cure(hint(&member.key, known, "known here"));
    if known.contains(&"scheme") { beside_scheme(error) } else { error }
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
