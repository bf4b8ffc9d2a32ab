//! Answers to what is no request: hyper makes them of a status alone, and here they become problem documents.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use uuid::Uuid;

use crate::api::error::{Error, Kind};
use crate::telemetry;

use super::problem::Problem;

fn too_long() -> Error {
    Error::new(Kind::UriTooLong, "the path and query have more than 65534 bytes")
        .cure("send long lists in a JSON body, or in a safetensors file")
}

/// What is sent in place of hyper's answer with that head. `has_line`: the first line of the request has come
/// to its end. `None` for an answer of another form, which is sent as it is.
pub(super) fn instead_of(head: &[u8], has_line: bool) -> Option<Bytes> {
    let (line, fields) = std::str::from_utf8(head).ok()?.split_once("\r\n")?;
    let error = match line.strip_prefix("HTTP/1.1 ")?.get(..3)? {
        "400" => {
            Error::new(Kind::MalformedRequest, "the head of the request is not one of HTTP/1.1")
                .cure("check its first line, the names and values of its fields, and its lengths")
        }
        "414" => too_long(),
        // A line without an end fills the buffer before its length is known.
        "431" if !has_line => too_long(),
        "431" => Error::new(
            Kind::HeadTooLarge,
            "the head of the request has too many or too long fields",
        )
        .cure("send fewer than 128 fields, in less than 64 KiB"),
        _ => return None,
    };
    let (before, after) = fields.split_once("content-length: 0\r\n")?;
    let mut problem = Problem::from(error);
    let id = Uuid::now_v7().to_string();
    problem.instance = Some(id.clone());
    let status = problem.status;
    tracing::info!(id, status, detail = problem.detail, "refused");
    telemetry::request("OTHER", "other", status, Duration::ZERO);
    let mut body = serde_json::to_string(&problem).ok()?;
    body.push('\n');
    let reason = StatusCode::from_u16(status).ok()?.canonical_reason().unwrap_or_default();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{before}content-type: application/problem+json\r\n\
         content-length: {length}\r\nx-request-id: {id}\r\nx-content-type-options: nosniff\r\n{after}{body}"
    );
    Some(answer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_stand_in_for_bare_answers() {
        let bare = |status: &str| {
            format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n"
            )
        };
        for (given, has_line, status, kind) in [
            ("400 Bad Request", true, "400 Bad Request", "malformed-request"),
            ("414 URI Too Long", true, "414 URI Too Long", "uri-too-long"),
            ("431 Request Header Fields Too Large", false, "414 URI Too Long", "uri-too-long"),
            (
                "431 Request Header Fields Too Large",
                true,
                "431 Request Header Fields Too Large",
                "head-too-large",
            ),
        ] {
            let answer = instead_of(bare(given).as_bytes(), has_line).unwrap();
            let text = String::from_utf8(answer.to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\nconnection: close\r\n")),
                "{text}"
            );
            assert!(head.ends_with("\r\ndate: today"), "{text}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{text}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["type"], format!("urn:quantd:error:{kind}"));
            assert!(head.contains(problem["instance"].as_str().unwrap()), "{text}");
        }
        for other in [bare("200 OK"), bare("408 Request Timeout"), "HTTP/1.1 400".to_owned()] {
            assert_eq!(instead_of(other.as_bytes(), true), None);
        }
    }
}
