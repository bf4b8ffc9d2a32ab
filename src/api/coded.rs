//! Tensors that come quantized: their parts by name, and what is said beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use quantd_codec::json::{self, Member};
use quantd_codec::{Within, npy};
use quantd_core::QuantError;
use quantd_core::format::integer::{Unpacked, ZERO_POINT, unpacked, unpacking_bytes};
use quantd_core::format::{CODES, Coded, PartType, Parts, SCALE};
use quantd_core::scheme::Options;
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};
use quantd_kernels::real::Real;

use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::field::{Component, Types, fields};
use super::fields::{Fields, Origin};
use super::options::{self, beside_scheme, options_of_value};
use super::payload::{self, Format, pointer};
use super::schemas;

/// One quantized tensor as it came in.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) coded: Coded,
    pub(super) place: Origin,
}

impl Item {
    /// Where what the core calls `field` stands.
    pub(super) fn place(&self, field: &str) -> Place {
        self.place.place(field)
    }

    /// The error of the core, about this tensor.
    pub(super) fn located(&self, error: QuantError) -> Error {
        let error = Error::of_quant(error, |field| self.place(field));
        if self.name.is_empty() { error } else { error.about(&self.name) }
    }

    /// Refuses it without a part that it needs.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names the first.
    pub(super) fn check_parts(&self) -> Result<(), Error> {
        let Coded { parts, options, .. } = &self.coded;
        let types = options.format().types(options).into_iter();
        match types.filter(|part| part.required).find(|part| parts.get(part.name).is_none()) {
            None => Ok(()),
            Some(part) => Err(missing(self.place(part.name))),
        }
    }

    /// The codes that products take.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for other formats than integers, and codes that do not fit what is said of them.
    pub(super) fn integers(&self, context: &mut Context<'_>) -> Result<Unpacked, Error> {
        let checked = self.coded.options.format().check_integer("products");
        checked.map_err(|error| Error::of_quant(error, |_| self.place("scheme")))?;
        context.reserve(unpacking_bytes(&self.coded))?;
        unpacked(&self.coded).map_err(|error| self.located(error))
    }
}

/// The error for a part that is not there.
pub(super) fn missing(place: Place) -> Error {
    Error::new(Kind::InvalidOption, "missing").at(place).cure("send an answer of quantize")
}

/// A part that stands as an option rather than as a tensor.
pub(super) fn stated(options: &Options, part: &PartType, dtype: DType) -> Option<Tensor> {
    match part.name {
        SCALE => {
            let scale = options.scale.as_deref()?;
            let shape = Shape::vector(scale.len()).ok()?;
            if dtype.size() == 1 {
                // Bit patterns, as answers have them.
                let pattern = |&scale: &f64| {
                    (0..=u8::MAX).find(|&bits| f64::from(bits).total_cmp(&scale).is_eq())
                };
                let patterns: Vec<u8> = scale.iter().map(pattern).collect::<Option<_>>()?;
                return Tensor::from_elements(dtype, shape, &patterns);
            }
            if dtype == DType::F64 {
                return Tensor::from_elements(dtype, shape, scale);
            }
            let scale: Vec<f32> = scale.iter().map(|&scale| Real::from_f64(scale)).collect();
            Tensor::from_elements(DType::F32, shape, &scale)
        }
        ZERO_POINT => {
            let zero_point = options.zero_point.as_deref()?;
            let shape = Shape::vector(zero_point.len()).ok()?;
            Tensor::from_elements(DType::I64, shape, zero_point)
        }
        _ => None,
    }
}

fields! {
    pub(super) SCALE_DTYPE: "scale_dtype", Types = Types {
        types: &[DType::F32, DType::F64],
        component: Component::of::<schemas::ScaleDtype>(),
    },
        "Type of the scale, and of the arithmetic. Default F32, of a calibrator F64 where F32 does not hold its \
         range.";
}

/// The option that names the type of a part.
fn type_option(part: &PartType) -> String {
    if part.name == CODES { "dtype".to_owned() } else { format!("{}_dtype", part.name) }
}

/// Members of one quantized tensor; of the report nothing is needed.
fn members_of(types: &[PartType]) -> Vec<String> {
    let others = types.iter().filter(|part| part.name != CODES);
    let typed = others.clone().filter(|part| !part.types.is_empty()).map(type_option);
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut members = own(&[CODES, "dtype", "shape"]);
    members.extend(others.map(|part| part.name.to_owned()));
    members.extend(typed);
    members.extend(own(&["scheme", "report", "output_dtype"]));
    members
}

/// The type of a part, as it is named or by default.
fn type_of(part: &PartType, fields: &mut Fields) -> Result<DType, Error> {
    let named = match part.types {
        [] => None,
        types => fields.dtype(&type_option(part), types)?,
    };
    Ok(named.unwrap_or(part.dtype))
}

/// Refuses a granularity whose fields contradict one another.
fn check_granularity(options: &Options, origin: &Origin) -> Result<(), Error> {
    if options.names_granularity() {
        let at = |error| Error::of_quant(error, |field| origin.place(field));
        options.resolve_granularity().map_err(at)?;
    }
    Ok(())
}

/// Reads one quantized tensor as `quantize` answers it; what it does not say, `query` may.
pub(super) fn json_item(
    members: &[Member<'_>],
    base: &str,
    query: &Fields,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let origin = Origin::Body(base.to_owned());
    let mut fields = Fields::new(Map::new(), origin.clone());
    let is_option = |key: &str| {
        ["dtype", "shape", "scheme"].contains(&key)
            || (key.ends_with("_dtype") && key != "output_dtype")
    };
    for member in members.iter().filter(|member| is_option(&member.key)) {
        let at = pointer(base, &member.key);
        fields.insert(&member.key, context.read_option(member.value, &at)?);
    }
    fields.merge(query.clone())?;
    let scheme_pointer = pointer(base, "scheme");
    let options = match fields.take("scheme") {
        Some(scheme) => options_of_value(scheme, &scheme_pointer)?,
        None => Options::default(),
    };
    check_granularity(&options, &Origin::Body(scheme_pointer))?;
    let types = options.format().types(&options);
    let known = members_of(&types);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(other) = members.iter().find(|member| !known.contains(&&*member.key)) {
        return Err(payload::unknown_member(other, base, &known));
    }
    let limits = context.limits;
    let shape = payload::shape(&mut fields, limits)?;
    let mut parts = Parts::default();
    for part in &types {
        let dtype = type_of(part, &mut fields)?;
        let tensor = match json::find(members, part.name) {
            None => stated(&options, part, dtype),
            Some(member) => {
                // Others, such as packed codes, are nested as they are.
                let shape = shape.as_ref().filter(|_| part.elementwise);
                let within: Within<'_> = (limits, &mut |bytes| context.take(bytes));
                let at = pointer(base, part.name);
                // Codes are their bit patterns, whatever they stand for.
                let codes = part.name == CODES && dtype.is_float();
                let written = if codes { dtype.patterns() } else { dtype };
                json::read_tensor(member.value, written, shape, &at, within)?.viewed(dtype)
            }
        };
        match tensor {
            Some(tensor) => parts.push(part.name, tensor),
            None if part.name == CODES => return Err(missing(origin.place(CODES))),
            None => {}
        }
    }
    fields.finish(&known).map_err(beside_scheme)?;
    let coded = Coded { parts, shape, options };
    Ok(Item { name: String::new(), coded, place: origin })
}

/// Codes alone in the body; everything else stands in the query.
pub(super) fn bare_item(
    body: &Arc<Buffer>,
    format: Format,
    fields: &mut Fields,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let limits = context.limits;
    let options = options::take(fields)?;
    let types = options.format().types(&options);
    let shape = payload::shape(fields, limits)?;
    check_granularity(&options, &Origin::Query)?;
    let is_stated = |part: &&PartType| [CODES, SCALE, ZERO_POINT].contains(&part.name);
    if let Some(part) = types.iter().find(|part| part.required && !is_stated(part)) {
        let detail = format!("codes alone do not say the {}", part.name);
        let error = Error::new(Kind::InvalidOption, detail).at(fields.place("format"));
        return Err(error.cure("send an answer of quantize in safetensors or JSON"));
    }
    let mut parts = Parts::default();
    for part in &types {
        let dtype = type_of(part, fields)?;
        if part.name == CODES {
            let body = (Arc::clone(body), format);
            parts.push(CODES, bare_codes(body, (part, dtype), shape.as_ref(), fields, context)?);
        } else if let Some(tensor) = stated(&options, part, dtype) {
            parts.push(part.name, tensor);
        } else if part.required {
            let example = if dtype.size() == 1 { "127, a bit pattern" } else { "0.1" };
            let cure = format!("for instance {}={example}", part.name);
            return Err(fields.error(part.name, "missing").cure(cure));
        }
    }
    let coded = Coded { parts, shape, options };
    Ok(Item { name: String::new(), coded, place: Origin::Query })
}

/// The codes that are all of a body.
fn bare_codes(
    (body, format): (Arc<Buffer>, Format),
    (part, dtype): (&PartType, DType),
    shape: Option<&Shape>,
    fields: &Fields,
    context: &mut Context<'_>,
) -> Result<Tensor, Error> {
    match (format, shape) {
        (Format::Npy, _) => {
            Ok(npy::read(body, (context.limits, &mut |bytes| context.take(bytes)))?)
        }
        (_, Some(shape)) if part.elementwise => {
            payload::raw_view(body, dtype, shape.clone(), fields)
        }
        (_, Some(_)) => {
            let bytes = Shape::vector(body.bytes().len()).ok();
            bytes
                .and_then(|shape| Tensor::view(DType::U8, shape, body, 0))
                .ok_or_else(|| Error::new(Kind::TooLarge, "too many codes"))
        }
        (_, None) => Err(fields.error("shape", "missing").cure("for instance shape=2,3")),
    }
}

/// What a metadata entry says about the tensor `name`: all of it for the only tensor.
fn own_entry(value: Option<&Value>, name: &str) -> Option<Value> {
    match value {
        Some(Value::Object(map)) if !name.is_empty() => map.get(name).cloned(),
        other => other.cloned(),
    }
}

/// What the metadata of a file says about its tensors.
pub(super) struct Metadata {
    scheme: Option<Value>,
    shape: Option<Value>,
}

impl Metadata {
    /// Reads the entries that matter.
    pub(super) fn read(
        metadata: &BTreeMap<String, String>,
        context: &mut Context<'_>,
    ) -> Result<Self, Error> {
        let scheme = metadata_json(metadata, "scheme", context)?;
        Ok(Self { scheme, shape: metadata_json(metadata, "shape", context)? })
    }

    /// The scheme of the tensor of that name.
    pub(super) fn scheme(&self, name: &str) -> Option<Value> {
        own_entry(self.scheme.as_ref(), name)
    }
}

/// Takes the parts of `name` out of `parts`; `query` serves where the metadata has no scheme.
pub(super) fn safetensors_item(
    name: String,
    parts: &mut BTreeMap<String, Tensor>,
    metadata: &Metadata,
    query: &Options,
    context: &mut Context<'_>,
) -> Result<Item, Error> {
    let (scheme, shape) = (metadata.scheme(&name), own_entry(metadata.shape.as_ref(), &name));
    let pointer = "/__metadata__/scheme";
    let options = match scheme {
        Some(scheme) => options_of_value(scheme, pointer)?,
        None => query.clone(),
    };
    check_granularity(&options, &Origin::Body(pointer.to_owned()))?;
    let mut own = Parts::default();
    for part in options.format().types(&options) {
        let key =
            if name.is_empty() { part.name.to_owned() } else { format!("{name}.{}", part.name) };
        match parts.remove(&key) {
            Some(tensor) => own.push(part.name, tensor),
            None if part.name == CODES => {
                let detail = format!("no tensor {key:?} beside the others");
                return Err(Error::new(Kind::MalformedBody, detail));
            }
            None => {}
        }
    }
    let mut fields = Fields::new(Map::new(), Origin::Body("/__metadata__".to_owned()));
    if let Some(shape) = shape {
        fields.insert("shape", shape);
    }
    let shape = payload::shape(&mut fields, context.limits)?;
    let coded = Coded { parts: own, shape, options };
    Ok(Item { name, coded, place: Origin::Body(String::new()) })
}

pub(super) fn metadata_json(
    metadata: &BTreeMap<String, String>,
    key: &str,
    context: &mut Context<'_>,
) -> Result<Option<Value>, Error> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    context.read_option_by_name(text.as_bytes(), &pointer("/__metadata__", key)).map(Some)
}
