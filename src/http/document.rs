//! Small documents as answers.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use crate::api::answer::Answer;
use crate::api::error::Error;
use crate::api::fields::Query;
use quantd_codec::json::{self, Text as Lines};

use super::negotiate;

/// A document of JSON.
pub(super) struct Document<T>(pub(super) T);

/// The text of a document, beside the response that carries it.
#[derive(Clone)]
struct Text(Bytes);

impl<T: Serialize> IntoResponse for Document<T> {
    fn into_response(self) -> Response {
        let text = match text(&self.0, false) {
            Ok(text) => Bytes::from(text),
            Err(error) => return error.into_response(),
        };
        let mut response = Response::new(Body::from(text.clone()));
        let json = HeaderValue::from_static(negotiate::JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.extensions_mut().insert(Text(text));
        response
    }
}

/// Whether a query asks for an answer that is laid out for people. What it says otherwise is refused
/// where there are options; documents and failures have none.
pub(super) fn is_pretty(query: Option<&str>) -> bool {
    // Few ask for it: no other query is split for that.
    let named = query.filter(|query| query.contains(negotiate::PRETTY));
    let flag = |query| Query::new(query)?.take_flag(negotiate::PRETTY);
    named.is_some_and(|query| flag(query).unwrap_or(false))
}

/// A document in bytes, laid out for people or not.
pub(super) fn text(document: &impl Serialize, pretty: bool) -> Result<Vec<u8>, Error> {
    let mut room = |_| Ok(());
    let answer = Answer::document(document, &mut room)?;
    let answer = if pretty { answer.laid_out(&mut room)? } else { answer };
    Ok(answer.segments.concat())
}

/// Lays the documents of a route out where the query asks for it.
pub(super) async fn lay_out(request: Request, next: Next) -> Response {
    let pretty = is_pretty(request.uri().query());
    let mut response = next.run(request).await;
    if let Some(Text(text)) = response.extensions_mut().remove()
        && pretty
    {
        let mut room = |_| Ok(());
        let mut lines = Lines::new(&mut room);
        if json::write_pretty(&mut lines, &text).is_ok() {
            *response.body_mut() = Body::from(lines.finish().concat());
        }
    }
    response
}
