//! A request: header, then binary elements in the order of the inputs.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Input, MAX_NAME, Request, Wanted, datatype, datatypes, has_json};
use crate::json::{self, Member, Room, below, elements_up_to, members, read_value};
use crate::{CodecError, Limits, Within, names};
use quantd_core::tensor::{Buffer, DType, Shape, Tensor};

/// Bytes of the text of the parameters of one tensor, of a shape, of the id, or of a number.
const MAX_SMALL_TEXT: usize = 16 << 10;
/// Parameters of a request, and bytes of their text: lists with an entry for each of many slices are among them.
const MAX_OPTIONS: usize = 1024;
const MAX_OPTIONS_TEXT: usize = 16 << 20;
/// Most outputs that one request asks for.
const MAX_OUTPUTS: usize = 64;

/// Reads the request that `body` holds from `start` on, whose header has
/// `header` bytes; without it all is header.
///
/// Members that the protocol does not know are left alone: clients add some.
///
/// # Errors
/// [`CodecError`] names the member or the input at fault.
pub fn read(
    body: &Arc<Buffer>,
    start: usize,
    header: Option<usize>,
    (limits, room): Within<'_>,
) -> Result<Request, CodecError> {
    let all = body.bytes().get(start..).unwrap_or_default();
    let len = header.unwrap_or(all.len());
    let Some((text, _)) = all.split_at_checked(len) else {
        let detail = format!("the JSON is said to have {len} bytes, the body has {}", all.len());
        return Err(CodecError::malformed(detail));
    };
    let mut source = Source { body, next: start.saturating_add(len), limits, room };
    let mut request = Request::default();
    let mut has_inputs = false;
    for member in members(text)? {
        let value = member.value;
        match member.key.as_ref() {
            _ if value == b"null" => {}
            "id" => request.id = Some(string(value, format_args!("/id"))?),
            "parameters" => request.parameters = options(value)?,
            "outputs" => request.outputs = outputs(value)?,
            "inputs" => {
                request.inputs = source.inputs(value)?;
                has_inputs = true;
            }
            _ => {}
        }
    }
    if !has_inputs {
        return Err(CodecError::malformed("missing").at("/inputs").cure(
            "send [{\"name\": \"x\", \"shape\": [2], \"datatype\": \"FP32\", \"data\": [1, 2]}]",
        ));
    }
    source.finish()?;
    Ok(request)
}

/// The one input of a request without a header: the whole body from `start` on
/// is its elements. `dims` are those of the model; a negative one takes what is
/// there.
///
/// # Errors
/// The model has more than one variable dimension, or the body is no whole
/// number of elements.
pub fn raw(
    body: &Arc<Buffer>,
    start: usize,
    dtype: DType,
    dims: &[i64],
    limits: &Limits,
) -> Result<Tensor, CodecError> {
    let found = body.bytes().len().saturating_sub(start);
    let fixed = dims.iter().filter_map(|&dim| usize::try_from(dim).ok());
    let row = fixed.fold(dtype.size(), usize::saturating_mul);
    if dims.iter().filter(|dim| **dim < 0).count() > 1 {
        let detail = "the model's input has more than one variable dimension";
        return Err(CodecError::malformed(detail).cure("send a JSON header with the shape"));
    }
    let rows = found.checked_div(row).unwrap_or(0);
    if rows.checked_mul(row) != Some(found) {
        let detail = format!("the body has {found} bytes, not a multiple of {row}");
        return Err(CodecError::malformed(detail));
    }
    let dims = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(rows)).collect();
    let shape = Shape::new(dims).map_err(|error| CodecError::malformed(error.to_string()))?;
    limits.check(&shape)?;
    let wrong =
        || CodecError::malformed(format!("the body has {found} bytes, not those of {shape}"));
    if shape.len().checked_mul(dtype.size()) != Some(found) {
        return Err(wrong());
    }
    Tensor::view(dtype, shape.clone(), Arc::clone(body), start).ok_or_else(wrong)
}

/// Where binary elements are taken from.
struct Source<'a> {
    body: &'a Arc<Buffer>,
    next: usize,
    limits: &'a Limits,
    room: Room<'a>,
}

impl Source<'_> {
    fn inputs(&mut self, text: &[u8]) -> Result<Vec<Input>, CodecError> {
        let items = elements_up_to(text, self.limits.max_tensors);
        let items = items.map_err(|error| below(error, "/inputs"))?;
        let mut names = HashSet::new();
        let mut inputs = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let input = self.input(item, format_args!("/inputs/{i}"))?;
            if !names.insert(input.name.clone()) {
                let detail = format!("input {:?} is given twice", input.name);
                return Err(CodecError::malformed(detail).at(format!("/inputs/{i}/name")));
            }
            inputs.push(input);
        }
        Ok(inputs)
    }

    fn input(&mut self, text: &[u8], place: fmt::Arguments<'_>) -> Result<Input, CodecError> {
        let members = members(text).map_err(|error| below(error, &place.to_string()))?;
        let find = |key: &str| json::find(&members, key).map(|member| member.value);
        let name = name(find("name"), place)?;
        let about = |error: CodecError| {
            let detail = format!("input {name:?}: {}", error.detail);
            CodecError { detail: detail.into(), ..error }
        };
        let dtype = dtype(find("datatype"), format_args!("{place}/datatype")).map_err(about)?;
        let shape = shape(find("shape"), format_args!("{place}/shape")).map_err(about)?;
        self.limits.check(&shape).map_err(|error| about(error.at(place.to_string())))?;
        let mut parameters = match find("parameters") {
            Some(text) => parameters(text, format_args!("{place}/parameters")).map_err(about)?,
            None => Map::new(),
        };
        if parameters.keys().any(|key| key.starts_with("shared_memory_")) {
            let detail = "shared memory is not supported";
            let at = format!("{place}/parameters");
            return Err(about(CodecError::malformed(detail).at(at).cure("send the bytes")));
        }
        let size = parameters.remove("binary_data_size");
        let is_view = size.is_some();
        let tensor = match (find("data"), size) {
            (Some(_), Some(_)) => {
                Err(CodecError::malformed("has both data and binary_data_size")
                    .at(place.to_string()))
            }
            (None, Some(size)) => self.binary(&size, dtype, shape, place),
            (data, None) => self.numbers(data, dtype, &shape, &format!("{place}/data")),
        };
        Ok(Input { tensor: tensor.map_err(about)?, name, is_view, parameters })
    }

    /// The next elements of the body.
    fn binary(
        &mut self,
        size: &Value,
        dtype: DType,
        shape: Shape,
        place: fmt::Arguments<'_>,
    ) -> Result<Tensor, CodecError> {
        let bad = |detail: String| {
            let at = format!("{place}/parameters/binary_data_size");
            Err(CodecError::malformed(detail).at(at))
        };
        let Some(size) = size.as_u64().and_then(|size| usize::try_from(size).ok()) else {
            return bad("binary_data_size is not a number of bytes".to_owned());
        };
        let expected = shape.len().saturating_mul(dtype.size());
        if size != expected {
            return bad(format!(
                "binary_data_size is {size}, shape {shape} of {} takes {expected} bytes",
                datatype(dtype)
            ));
        }
        let left = self.body.bytes().len().saturating_sub(self.next);
        let view = Tensor::view(dtype, shape, Arc::clone(self.body), self.next);
        let Some(view) = view.filter(|_| size <= left) else {
            return bad(format!("binary_data_size is {size}, the body has {left} bytes left"));
        };
        self.next = self.next.saturating_add(size);
        Ok(view)
    }

    fn numbers(
        &mut self,
        data: Option<&[u8]>,
        dtype: DType,
        shape: &Shape,
        pointer: &str,
    ) -> Result<Tensor, CodecError> {
        // Clients write null for an empty tensor.
        let Some(data) = data.or(shape.is_empty().then_some(b"[]")) else {
            return Err(CodecError::malformed("has neither data nor binary_data_size").at(pointer));
        };
        if !has_json(dtype) {
            let detail = format!("{} data via JSON is not supported", datatype(dtype));
            return Err(CodecError::malformed(detail)
                .at(pointer)
                .cure("send it as binary data, with parameters.binary_data_size"));
        }
        json::read_tensor(data, dtype, Some(shape), pointer, (self.limits, &mut *self.room))
    }

    /// All of the body must have been used.
    fn finish(&self) -> Result<(), CodecError> {
        match self.body.bytes().len().saturating_sub(self.next) {
            0 => Ok(()),
            left => Err(CodecError::malformed(format!(
                "unexpected additional input data: {left} bytes of the body belong to no input"
            ))),
        }
    }
}

fn outputs(text: &[u8]) -> Result<Vec<Wanted>, CodecError> {
    let items = elements_up_to(text, MAX_OUTPUTS).map_err(|error| below(error, "/outputs"))?;
    let mut outputs: Vec<Wanted> = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let pointer = format!("/outputs/{i}");
        let members = members(item).map_err(|error| below(error, &pointer))?;
        let find = |key: &str| json::find(&members, key).map(|member| member.value);
        let name = name(find("name"), format_args!("{pointer}"))?;
        if outputs.iter().any(|output| output.name == name) {
            let detail = format!("output {name:?} is given twice");
            return Err(CodecError::malformed(detail).at(format!("{pointer}/name")));
        }
        let at = format!("{pointer}/parameters");
        let parameters = match find("parameters") {
            Some(text) => parameters(text, format_args!("{at}"))?,
            None => Map::new(),
        };
        let unsupported =
            |key: &&String| *key == "classification" || key.starts_with("shared_memory_");
        if let Some(key) = parameters.keys().find(unsupported) {
            let detail = format!("output {name:?}: {key} is not supported");
            return Err(CodecError::malformed(detail).at(at));
        }
        let binary = match parameters.get("binary_data") {
            None => None,
            Some(Value::Bool(binary)) => Some(*binary),
            Some(_) => {
                let detail = format!("output {name:?}: binary_data is not a boolean");
                return Err(CodecError::malformed(detail).at(format!("{at}/binary_data")));
            }
        };
        outputs.push(Wanted { name, binary });
    }
    Ok(outputs)
}

/// A small value. Here and below, where it stands is written only where it is at fault.
fn small(text: &[u8], pointer: fmt::Arguments<'_>) -> Result<Value, CodecError> {
    if text.len() > MAX_SMALL_TEXT {
        let detail = format!("the value is longer than {MAX_SMALL_TEXT} bytes");
        return Err(CodecError::too_large(detail).at(pointer.to_string()));
    }
    read_value(text, "").map_err(|error| below(error, &pointer.to_string()))
}

fn string(text: &[u8], pointer: fmt::Arguments<'_>) -> Result<String, CodecError> {
    match small(text, pointer)? {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(CodecError::malformed("not a string").at(pointer.to_string()))
        }
    }
}

fn name(text: Option<&[u8]>, parent: fmt::Arguments<'_>) -> Result<String, CodecError> {
    let bad = |detail: String| CodecError::malformed(detail).at(format!("{parent}/name"));
    let Some(text) = text else { return Err(bad("missing".to_owned())) };
    let name = string(text, format_args!("{parent}/name"))?;
    if name.len() > MAX_NAME || !names::is_printable(&name) {
        return Err(bad(format!("not a name of at most {MAX_NAME} bytes")));
    }
    Ok(name)
}

fn dtype(text: Option<&[u8]>, pointer: fmt::Arguments<'_>) -> Result<DType, CodecError> {
    let text = text.map(|text| string(text, pointer)).transpose()?.unwrap_or_default();
    // Of those of one name the first, which is that of integers.
    DType::ALL.into_iter().find(|dtype| datatype(*dtype) == text).ok_or_else(|| {
        let known: Vec<_> = datatypes().collect();
        CodecError::malformed("not a datatype that is taken")
            .at(pointer.to_string())
            .cure(format!("use one of: {}", known.join(", ")))
    })
}

fn shape(text: Option<&[u8]>, pointer: fmt::Arguments<'_>) -> Result<Shape, CodecError> {
    let bad = |detail: String| CodecError::malformed(detail).at(pointer.to_string());
    let Some(text) = text else { return Err(bad("shape is missing".to_owned())) };
    let Value::Array(dims) = small(text, pointer)? else {
        return Err(bad("shape is not an array of sizes".to_owned()));
    };
    let size = |dim: &Value| dim.as_u64().and_then(|dim| usize::try_from(dim).ok());
    let dims: Option<Vec<usize>> = dims.iter().map(size).collect();
    let dims = dims.ok_or_else(|| bad("shape is not an array of sizes".to_owned()))?;
    Shape::new(dims).map_err(|error| bad(error.to_string()))
}

/// The parameters of a request: as of a tensor, and strings as long as the lists that they hold.
fn options(text: &[u8]) -> Result<Map<String, Value>, CodecError> {
    const PLACE: &str = "/parameters";
    if text.len() > MAX_OPTIONS_TEXT {
        let detail = format!("the parameters are longer than {MAX_OPTIONS_TEXT} bytes");
        return Err(CodecError::too_large(detail).at(PLACE));
    }
    let members = json::members_up_to(text, MAX_OPTIONS).map_err(|error| below(error, PLACE))?;
    let mut map = Map::with_capacity(members.len());
    for Member { key, value, .. } in members {
        let value = match value {
            b"null" => continue,
            [b'"', ..] => json::unescape(value).map(|text| Value::String(text.into_owned())),
            [b'[' | b'{', ..] => return Err(not_scalar(&key, format_args!("{PLACE}"))),
            value => Some(small(value, format_args!("{PLACE}/{}", plain(&key)))?),
        };
        let value = value.ok_or_else(|| {
            CodecError::malformed("not a string").at(format!("{PLACE}/{}", plain(&key)))
        })?;
        map.insert(key.into_owned(), value);
    }
    Ok(map)
}

/// A name of the caller's as a message may carry it.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

fn not_scalar(key: &str, parent: fmt::Arguments<'_>) -> CodecError {
    CodecError::malformed("a parameter is a string, a number or a boolean")
        .at(format!("{parent}/{}", plain(key)))
        .cure("write a list as a string, such as \"128,128\"")
}

/// Strings, numbers and booleans by name.
fn parameters(text: &[u8], pointer: fmt::Arguments<'_>) -> Result<Map<String, Value>, CodecError> {
    let Value::Object(mut map) = small(text, pointer)? else {
        return Err(CodecError::malformed("parameters are not an object").at(pointer.to_string()));
    };
    map.retain(|_, value| !value.is_null());
    match map.iter().find(|(_, value)| value.is_array() || value.is_object()) {
        Some((key, _)) => Err(not_scalar(key, pointer)),
        None => Ok(map),
    }
}
