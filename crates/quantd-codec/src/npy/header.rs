//! The header dict of an npy file: a Python literal, read strictly.

use std::str;

use super::super::CodecError;
use quantd_core::tensor::{DType, MAX_RANK, Shape};

/// The three fields, not yet judged.
#[derive(Debug)]
pub(super) struct Header {
    descr: String,
    pub(super) fortran_order: bool,
    dims: Vec<usize>,
}

/// Type of the elements, when it is one of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) dtype: DType,
    pub(super) big_endian: bool,
}

/// Parses the text of a header.
pub(super) fn parse(text: &[u8]) -> Result<Header, CodecError> {
    let Ok(text) = str::from_utf8(text) else {
        return Err(CodecError::malformed("the npy header is not text").at("header"));
    };
    let mut parser = Parser { rest: text };
    let (mut descr, mut fortran_order, mut dims) = (None, None, None);
    parser.skip();
    parser.expect('{', "the npy header is not a dict")?;
    while !parser.take('}') {
        let key = parser.string("header")?;
        parser.expect(':', "a colon is expected in the npy header")?;
        let repeated = match key {
            "descr" => descr.replace(parser.descr()?).is_some(),
            "fortran_order" => fortran_order.replace(parser.boolean()?).is_some(),
            "shape" => dims.replace(parser.tuple()?).is_some(),
            _ => {
                return Err(CodecError::malformed("the npy header has an unknown key").at("header"));
            }
        };
        if repeated {
            return Err(CodecError::malformed("the key occurs twice in the npy header").at(key));
        }
        if !parser.take(',') {
            parser.expect('}', "a comma or a closing brace is expected in the npy header")?;
            break;
        }
    }
    if !parser.rest.is_empty() {
        return Err(CodecError::malformed("the npy header holds more than one dict").at("header"));
    }
    let missing = |key: &str| CodecError::malformed("the key is missing in the npy header").at(key);
    Ok(Header {
        descr: descr.ok_or_else(|| missing("descr"))?,
        fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
        dims: dims.ok_or_else(|| missing("shape"))?,
    })
}

impl Header {
    /// The dtype, or what to do instead.
    pub(super) fn element(&self) -> Result<Element, CodecError> {
        let (order, kind) = match self.descr.split_at_checked(1) {
            Some((order @ ("<" | ">" | "=" | "|"), kind)) => (order, kind),
            _ => ("=", self.descr.as_str()),
        };
        let dtype = match kind {
            "f8" => DType::F64,
            "f4" => DType::F32,
            "f2" => DType::F16,
            "i8" => DType::I64,
            "i4" => DType::I32,
            "i2" => DType::I16,
            "i1" => DType::I8,
            "u8" => DType::U64,
            "u4" => DType::U32,
            "u2" => DType::U16,
            "u1" => DType::U8,
            _ => return Err(refused_kind(kind)),
        };
        // "|" says that the order does not matter, which is so for one byte only.
        if order == "|" && dtype.size() > 1 {
            return Err(CodecError::malformed("the descr lacks its byte order").at("descr"));
        }
        Ok(Element { dtype, big_endian: order == ">" })
    }

    pub(super) fn shape(&self) -> Result<Shape, CodecError> {
        Shape::new(self.dims.clone())
            .map_err(|error| CodecError::too_large(error.to_string()).at("shape"))
    }
}

fn refused(detail: &'static str, cure: &'static str) -> CodecError {
    CodecError::unsupported(detail).at("descr").cure(cure)
}

/// Why elements of that descr, byte order left out, are not read.
fn refused_kind(kind: &str) -> CodecError {
    let numbers = "convert with astype to a float or integer type";
    match kind.as_bytes() {
        [b'O', ..] => {
            refused("object arrays are pickles and never read", "convert with astype to numbers")
        }
        b"b1" | b"?" => refused("boolean arrays are not read", "convert with astype('u1')"),
        b"V2" | b"bfloat16" => refused(
            "npy does not say whether two opaque bytes are bfloat16",
            "send safetensors, or convert with astype('float32')",
        ),
        [b'c', ..] => refused("complex arrays are not read", "send real and imaginary part apart"),
        [b'M' | b'm', ..] => refused("arrays of dates and times are not read", numbers),
        [b'S' | b'U' | b'a', ..] => refused("arrays of text are not read", numbers),
        [b'f', ..] => refused(
            "floats of this width are not read",
            "convert with astype('float64') or a narrower float",
        ),
        _ => refused("elements of this type are not read", numbers),
    }
}

/// Reader of the few Python literals that a header holds.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, c: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(c) else { return false };
        self.rest = rest;
        self.skip();
        true
    }

    fn expect(&mut self, c: char, otherwise: &'static str) -> Result<(), CodecError> {
        if self.take(c) { Ok(()) } else { Err(CodecError::malformed(otherwise).at("header")) }
    }

    fn string(&mut self, at: &str) -> Result<&'a str, CodecError> {
        let quote = ['\'', '"'].into_iter().find(|&quote| self.rest.starts_with(quote));
        let text = quote.and_then(|quote| {
            let (text, rest) = self.rest.get(1..)?.split_once(quote)?;
            self.rest = rest;
            Some(text)
        });
        self.skip();
        // An escape could spell a name in another way; none of ours needs one.
        text.filter(|text| !text.contains('\\')).ok_or_else(|| {
            CodecError::malformed("a quoted name is expected in the npy header").at(at)
        })
    }

    /// A name; the list of fields of a structured array is not read further.
    fn descr(&mut self) -> Result<String, CodecError> {
        if self.rest.starts_with(['[', '(']) {
            return Err(refused("structured arrays are not read", "send one array a field"));
        }
        self.string("descr").map(str::to_owned)
    }

    fn boolean(&mut self) -> Result<bool, CodecError> {
        for (name, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(name) {
                self.rest = rest;
                self.skip();
                return Ok(value);
            }
        }
        Err(CodecError::malformed("fortran_order is neither True nor False").at("fortran_order"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, CodecError> {
        let malformed = |detail: &'static str| {
            CodecError::malformed(detail).at("shape").cure("write a tuple such as (2, 3)")
        };
        if !self.take('(') {
            return Err(malformed("the shape is not a tuple"));
        }
        let mut dims = Vec::new();
        while !self.take(')') {
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at_checked(end).unwrap_or(("", self.rest));
            if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
                return Err(malformed("a dimension is not a plain non-negative integer"));
            }
            let Ok(dim) = digits.parse() else {
                return Err(CodecError::too_large("a dimension is above 2^31").at("shape"));
            };
            if dims.len() >= MAX_RANK {
                let detail = format!("the array has more than {MAX_RANK} dimensions");
                return Err(CodecError::too_large(detail).at("shape"));
            }
            dims.push(dim);
            self.rest = rest.strip_prefix('L').unwrap_or(rest); // Python 2 wrote (3L, 4L)
            self.skip();
            if !self.take(',') {
                if !self.take(')') {
                    return Err(malformed("the tuple of the shape is not closed"));
                }
                // "(3)" is a number to Python, not a tuple.
                if dims.len() == 1 {
                    return Err(malformed("the shape is not a tuple"));
                }
                break;
            }
        }
        Ok(dims)
    }
}
