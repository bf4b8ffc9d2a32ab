//! The failures of routes: what each status means, and which a route may answer with.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::http::problem::{Problem, ProtocolError};

/// What the statuses of failures mean.
const MEANINGS: [(u16, &str); 15] = [
    (400, "The body, an input or an option is wrong."),
    (401, "No key, or not a known one."),
    (403, "Asked for by a page of another origin, or under the name of another host."),
    (404, "Nothing of that name."),
    (405, "The method is not one of the route's."),
    (406, "No acceptable type of answer."),
    (408, "The body did not arrive in time."),
    (409, "What there is contradicts the request."),
    (413, "Above a limit."),
    (415, "The body is of a type or coding that is not read."),
    (
        422,
        "A tensor holds NaN or is of a kind that is not read, JSON has no way to write an output, or the work cannot \
         end in time.",
    ),
    (500, "A defect of the server."),
    (501, "A part of the protocol that is not spoken here."),
    (503, "No room at the moment, or stopping; try again after `Retry-After`."),
    (504, "The work did not end in time, and was stopped."),
];
/// No room for what is to be kept, in memory or on disk.
const STORAGE: (u16, &str) =
    (507, "No room for what is to be kept, in memory or on disk, or its file cannot be read.");

/// What a failure is written as.
trait Written: ToSchema + PartialSchema {
    const MEDIA_TYPE: &'static str;
}

impl Written for Problem {
    const MEDIA_TYPE: &'static str = "application/problem+json";
}

impl Written for ProtocolError {
    const MEDIA_TYPE: &'static str = "application/json";
}

fn responses<W: Written>(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let all = MEANINGS.iter().chain([&STORAGE]);
    let own = all.filter(|(status, _)| statuses.contains(status));
    own.map(|(status, meaning)| {
        let schema: RefOr<Schema> = Ref::from_schema_name(W::name()).into();
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new().description(*meaning).content(W::MEDIA_TYPE, content);
        (status.to_string(), response.build().into())
    })
    .collect()
}

/// Failures of routes: `Name: "which", written as, statuses`.
macro_rules! failures {
    ($($name:ident: $description:literal, $written:ty, $statuses:expr;)+) => {$(
        #[doc = $description]
        pub(in crate::http) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses::<$written>(&$statuses)
            }
        }
    )+};
}

failures! {
    Problems: "Those of the routes that take a body.", Problem,
        [400, 401, 403, 405, 406, 408, 413, 415, 422, 500, 503, 504];
    NamedProblems: "Further ones of the routes that keep things under names.", Problem, [404, 409];
    StorageProblems: "A further one of the routes that keep something of a size.", Problem, [507];
    ReadProblems: "Those of the routes that take nothing.", Problem, [401, 403, 405, 500];
    Failures: "Those of the routes of the protocol that take a body.", ProtocolError,
        [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 501, 503, 504, 507];
    ReadFailures: "Those of the routes of the protocol that take nothing.", ProtocolError,
        [401, 403, 405, 500];
    ModelFailures: "Those of the routes that read a model.", ProtocolError,
        [401, 403, 404, 405, 413, 500, 503, 507];
    ReadinessFailures: "Those of the routes that say whether a model is ready.", ProtocolError,
        [401, 403, 404, 405, 500];
}
