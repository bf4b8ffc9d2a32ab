//! A form with one file: what `curl -F`, `requests` and the page of the document send.

use std::sync::Arc;

use quantd_codec::multipart;
use quantd_core::tensor::Buffer;

use super::context::Context;
use super::error::Error;
use super::fields::Query;

/// Leaves of a form the file in it, and gives the query with the fields of the form.
///
/// # Errors
/// [`Error`] when the form is broken, or there is no room for a copy of the file.
pub(super) fn open(
    body: &mut Arc<Buffer>,
    boundary: &str,
    mut query: Query,
    context: &mut Context<'_>,
) -> Result<Query, Error> {
    let form = multipart::read(body.bytes(), boundary)?;
    for (name, text) in form.fields {
        query.push(name, text);
    }
    // Elements are read where they start at an aligned address. A body that may be read once more is left as it is.
    match Arc::get_mut(body) {
        Some(own) => own.keep(form.content),
        None => {
            context.reserve(form.content.len())?;
            let content = body.bytes().get(form.content).unwrap_or_default();
            *body = Arc::new(Buffer::copy_of(content));
        }
    }
    Ok(query)
}
