//! Media types and content codings, of requests and of answers.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::api::error::{Error, Kind, Place};
use crate::api::fields::Query;
use crate::api::payload::Format;
use quantd_codec::encoding::Encoding;
use quantd_codec::multipart;
use quantd_codec::sniff::{self, Known};

/// Media types read and written.
pub(super) const JSON: &str = "application/json";
pub(super) const NPY: &str = "application/x-npy";
pub(super) const SAFETENSORS: &str = "application/x-safetensors";
pub(super) const RAW: &str = "application/octet-stream";
pub(super) const MULTIPART: &str = "multipart/form-data";
/// Longest header that is looked into.
const MAX_HEADER: usize = 4096;

/// The media type of a format.
pub(super) const fn media_type(format: Format) -> &'static str {
    match format {
        Format::Json => JSON,
        Format::Npy => NPY,
        Format::Safetensors => SAFETENSORS,
        Format::Raw => RAW,
    }
}

/// The option that says how the text of an answer is laid out.
pub(super) const PRETTY: &str = "pretty";

/// What a request says that its body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyType {
    /// That format.
    Known(Format),
    /// Nothing: the first bytes decide.
    Unnamed,
    /// A form, as `curl -d` says of anything: what it holds is told as if nothing were said.
    Form,
    /// A form of parts behind that boundary, one of which is a file.
    Multipart(String),
}

fn text(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Error> {
    let mut all = String::new();
    for value in headers.get_all(name) {
        let value = value.to_str().ok().filter(|value| value.len() + all.len() < MAX_HEADER);
        let value = value.ok_or_else(|| {
            Error::new(Kind::InvalidOption, "the header is not readable")
                .at(Place::Header(name))
                .cure(format!("send ASCII of less than {MAX_HEADER} bytes"))
        })?;
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(value);
    }
    Ok((!all.is_empty()).then_some(all))
}

fn essence(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported() -> Error {
    Error::new(Kind::UnsupportedMediaType, "the body is of a type that is not read")
        .at(Place::Header("content-type"))
        .cure(format!(
            "send -H 'content-type: {JSON}', or {NPY}, {SAFETENSORS} or {RAW}, or one file as {MULTIPART}"
        ))
}

/// What the body is, by `Content-Type`. Elements without a type and shape in
/// the query can only be a file that says its own.
pub(super) fn body_type(headers: &HeaderMap, query: &Query) -> Result<BodyType, Error> {
    let Some(value) = text(headers, "content-type")? else { return Ok(BodyType::Unnamed) };
    let has = |name: &str| query.texts(name).next().is_some();
    match essence(&value).as_str() {
        RAW if has("dtype") || has("shape") => Ok(BodyType::Known(Format::Raw)),
        RAW => Ok(BodyType::Unnamed),
        "application/x-www-form-urlencoded" => Ok(BodyType::Form),
        MULTIPART => match multipart::parameter(&value, "boundary") {
            Some(boundary) => Ok(BodyType::Multipart(boundary)),
            None => Err(unsupported().cure("say the boundary of the parts, as clients do")),
        },
        name => format_named(name).map(BodyType::Known).ok_or_else(unsupported),
    }
}

/// The format of that media type.
fn format_named(essence: &str) -> Option<Format> {
    match essence {
        JSON | "text/json" => Some(Format::Json),
        NPY => Some(Format::Npy),
        SAFETENSORS | "application/vnd.docker.ai.safetensors" => Some(Format::Safetensors),
        _ => None,
    }
}

/// The format of a body by its first bytes.
pub(super) fn sniff(body_type: &BodyType, start: &[u8]) -> Result<Format, Error> {
    match body_type {
        BodyType::Known(format) => Ok(*format),
        BodyType::Unnamed | BodyType::Form => {
            by_magic(start).ok_or_else(|| unread(body_type, start))
        }
        BodyType::Multipart(boundary) => {
            let file = multipart::file_in(start, boundary)?;
            let named = file.content_type.as_deref().and_then(|name| format_named(&essence(name)));
            let file_name = file.file_name.as_deref().unwrap_or_default();
            let extension =
                |format: &Format| file_name.ends_with(&format!(".{}", extension(*format)));
            let known = [Format::Json, Format::Npy, Format::Safetensors];
            let content = start.get(file.content).unwrap_or_default();
            // What is none of these can only be elements, whose type and shape the query says.
            Ok(named
                .or_else(|| by_magic(content))
                .or_else(|| known.into_iter().find(extension))
                .unwrap_or(Format::Raw))
        }
    }
}

/// The format of what begins with those bytes.
fn by_magic(start: &[u8]) -> Option<Format> {
    sniff::look(start)?.known.map(|known| match known {
        Known::Json => Format::Json,
        Known::Npy => Format::Npy,
        Known::Safetensors => Format::Safetensors,
    })
}

/// The error for a body of no known kind: what it looks like, where that can be told.
fn unread(body_type: &BodyType, start: &[u8]) -> Error {
    // Of a form the text is what `curl -d` sends.
    let is_form = |look: &sniff::Look| *body_type == BodyType::Form && look.what == sniff::TEXT;
    match sniff::look(start).filter(|look| !is_form(look)) {
        Some(look) => Error {
            detail: format!("the body is {}, which is not read", look.what),
            ..unsupported().cure(look.cure)
        },
        None if *body_type == BodyType::Form => unsupported().cure(format!(
            "curl -d sends a form: add -H 'content-type: {JSON}', or {RAW} with dtype= and shape= in the query"
        )),
        None => unsupported(),
    }
}

/// How the names of files of that format end.
pub(super) const fn extension(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Npy => "npy",
        Format::Safetensors => "safetensors",
        Format::Raw => "bin",
    }
}

/// The content coding of the body.
pub(super) fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Error> {
    let Some(value) = text(headers, "content-encoding")? else {
        return Ok(Encoding::Identity);
    };
    Encoding::from_name(value.trim().to_ascii_lowercase().as_str()).ok_or_else(|| {
        Error::new(Kind::UnsupportedMediaType, "the body is in a coding that is not read")
            .at(Place::Header("content-encoding"))
            .cure("use one of gzip, deflate or zstd, once, or none")
    })
}

/// The parts of a list between separators; those in a quoted string separate nothing.
fn parts(list: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |c| {
        let is_escaped = escaped;
        escaped = quoted && !is_escaped && c == '\\';
        quoted ^= c == '"' && !is_escaped;
        c == separator && !quoted
    })
}

/// Names and weights of an `Accept` or `Accept-Encoding` header.
fn weighted(value: &str) -> Vec<(String, f32)> {
    parts(value, ',')
        .map(|item| {
            let quality = parts(item, ';').skip(1).find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
            });
            (essence(item), quality.unwrap_or(1.0))
        })
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// The weight that the header gives to a name; the most specific range counts.
fn weight(accepted: &[(String, f32)], name: &str) -> f32 {
    let family = name.split('/').next().unwrap_or_default();
    let ranges = [name.to_owned(), format!("{family}/*"), "*/*".to_owned(), "*".to_owned()];
    let find = |range: &String| accepted.iter().find(|(name, _)| name == range);
    ranges.iter().find_map(find).map_or(0.0, |(_, quality)| *quality)
}

/// What `Accept` says, or nothing.
pub(super) struct Accept(Option<Vec<(String, f32)>>);

impl Accept {
    /// Reads the header.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self(text(headers, "accept")?.as_deref().map(weighted)))
    }

    /// The format of the answer, of those that can be made: what is preferred, or the family of the
    /// request. The first of `formats` is for a JSON request, the second for a binary one.
    pub(super) fn format(&self, formats: &[Format], request: Format) -> Result<Format, Error> {
        let own = match request {
            Format::Json => formats.first(),
            Format::Npy | Format::Safetensors | Format::Raw => formats.get(1).or(formats.first()),
        };
        let own = own.copied().unwrap_or(Format::Json);
        let Some(accepted) = &self.0 else { return Ok(own) };
        let mut best = (own, weight(accepted, media_type(own)));
        for &format in formats {
            let weight = weight(accepted, media_type(format));
            if weight > best.1 {
                best = (format, weight);
            }
        }
        if best.1 > 0.0 {
            return Ok(best.0);
        }
        let types: Vec<_> = formats.iter().map(|&format| media_type(format)).collect();
        Err(Error::new(Kind::NotAcceptable, "no acceptable type of answer")
            .at(Place::Header("accept"))
            .cure(format!("accept one of: {}", types.join(", "))))
    }
}

/// The content coding of the answer that the client prefers.
pub(super) fn reply_encoding(headers: &HeaderMap) -> Encoding {
    preferred(headers, &[Encoding::Zstd, Encoding::Gzip])
}

/// Leaves of `Accept-Encoding` what the compression of documents decides by. As with tensors, what
/// can be answered in no coding that is accepted is answered without one.
pub(super) fn settle_encoding(mut request: Request) -> Request {
    let headers = request.headers_mut();
    let encoding = preferred(headers, &[Encoding::Gzip]);
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding.name()));
    request
}

/// The one of those codings that the client prefers, if it accepts any.
fn preferred(headers: &HeaderMap, codings: &[Encoding]) -> Encoding {
    let Ok(Some(value)) = text(headers, "accept-encoding") else {
        return Encoding::Identity;
    };
    let mut accepted = weighted(&value);
    for (name, _) in &mut accepted {
        if let Some(encoding) = Encoding::from_name(name) {
            encoding.name().clone_into(name);
        }
    }
    codings
        .iter()
        .copied()
        .map(|encoding| (encoding, weight(&accepted, encoding.name())))
        .filter(|(_, weight)| *weight > 0.0)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map_or(Encoding::Identity, |(encoding, _)| encoding)
}

/// The content coding that the client asks for by naming it alone: a list is what libraries send by
/// themselves, and some of them do not decompress.
pub(super) fn asked_encoding(headers: &HeaderMap) -> Encoding {
    match text(headers, "accept-encoding") {
        Ok(Some(value)) => match weighted(&value).as_slice() {
            [(name, weight)] if *weight > 0.0 => {
                Encoding::from_name(name).unwrap_or(Encoding::Identity)
            }
            _ => Encoding::Identity,
        },
        Ok(None) | Err(_) => Encoding::Identity,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;
    use crate::service::Operation;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn answers_follow_accept_and_else_the_request() {
        let check = |accept: &str, request, expect| {
            let headers = headers(header::ACCEPT, accept);
            let found =
                Accept::of(&headers).unwrap().format(Operation::Quantize.formats(), request);
            assert_eq!(found.map_err(|error| error.kind), expect, "{accept}");
        };
        check("*/*", Format::Json, Ok(Format::Json));
        check("*/*", Format::Npy, Ok(Format::Safetensors));
        check("application/*", Format::Raw, Ok(Format::Safetensors));
        check("application/x-npy", Format::Json, Ok(Format::Npy));
        check("application/x-npy;q=0.5, application/json;q=0.9", Format::Npy, Ok(Format::Json));
        check("application/json;q=0, */*;q=0.1", Format::Json, Ok(Format::Safetensors));
        check("text/html", Format::Json, Err(Kind::NotAcceptable));
        check("application/json;q=nonsense", Format::Json, Err(Kind::NotAcceptable));
        check("text/html;x=\",application/json\"", Format::Json, Err(Kind::NotAcceptable));
        check("application/json;x=\"a;q=0, b\"", Format::Json, Ok(Format::Json));
        check("text/html;x=\"\\\",\", application/x-npy", Format::Json, Ok(Format::Npy));
        let none = Accept::of(&HeaderMap::new()).unwrap();
        let none = none.format(Operation::Compare.formats(), Format::Npy);
        assert_eq!(none, Ok(Format::Json));
    }

    #[test]
    fn codings_follow_accept_encoding() {
        let check = |value: &str, expect| {
            assert_eq!(reply_encoding(&headers(header::ACCEPT_ENCODING, value)), expect, "{value}");
        };
        check("gzip", Encoding::Gzip);
        check("gzip, zstd;q=0.5", Encoding::Gzip);
        check("zstd;q=0", Encoding::Identity);
        check("br", Encoding::Identity);
        check("x-gzip", Encoding::Gzip);
        check("gzip;q=0, x-zip, *", Encoding::Zstd);
        check("identity;q=0", Encoding::Identity);
    }

    #[test]
    fn bodies_are_what_they_say_or_look_like() {
        let named = |value: &str, query: &str| {
            let query = Query::new(query).unwrap();
            body_type(&headers(header::CONTENT_TYPE, value), &query).map_err(|error| error.kind)
        };
        assert_eq!(named("Application/JSON; charset=utf-8", ""), Ok(BodyType::Known(Format::Json)));
        assert_eq!(named(RAW, "dtype=F32&shape=1"), Ok(BodyType::Known(Format::Raw)));
        assert_eq!(named(RAW, "x=dtype"), Ok(BodyType::Unnamed));
        assert_eq!(named("text/html", ""), Err(Kind::UnsupportedMediaType));
        let sniffed =
            |body_type: BodyType, body: &[u8]| sniff(&body_type, body).map_err(|error| error.kind);
        assert_eq!(sniffed(BodyType::Form, b" {\"data\": 1}"), Ok(Format::Json));
        assert_eq!(sniffed(BodyType::Form, b"data=1"), Err(Kind::UnsupportedMediaType));
        assert_eq!(sniffed(BodyType::Form, b"\x93NUMPY\x01\x00"), Ok(Format::Npy));
        assert_eq!(sniffed(BodyType::Unnamed, b"\x93NUMPY\x01\x00"), Ok(Format::Npy));
        assert_eq!(
            sniffed(BodyType::Unnamed, b"\x08\0\0\0\0\0\0\0{}      "),
            Ok(Format::Safetensors)
        );
        assert_eq!(sniffed(BodyType::Unnamed, b""), Err(Kind::UnsupportedMediaType));
        let form = |head: &str, content: &str| {
            let body = format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}");
            sniffed(BodyType::Multipart("b".to_owned()), body.as_bytes())
        };
        assert_eq!(named("multipart/form-data; boundary=\"b\"", ""), {
            Ok(BodyType::Multipart("b".to_owned()))
        });
        assert_eq!(named("multipart/form-data", ""), Err(Kind::UnsupportedMediaType));
        assert_eq!(form("name=f; filename=w.npy", "x"), Ok(Format::Npy));
        assert_eq!(form("name=f; filename=w", "{}"), Ok(Format::Json));
        assert_eq!(form("name=f; filename=w", "xyz"), Ok(Format::Raw));
        let typed = "name=f; filename=w\r\ncontent-type: application/x-safetensors";
        assert_eq!(form(typed, "x"), Ok(Format::Safetensors));
        assert_eq!(form("name=bits", "4"), Err(Kind::MalformedBody));
    }
}
