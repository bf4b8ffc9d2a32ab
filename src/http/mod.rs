//! The HTTP face. Start here: [`router`] shows the whole surface.

mod bare;
mod body;
mod calibrators;
mod connection;
mod docs;
mod document;
mod exchange;
mod guard;
mod layers;
mod middleware;
mod negotiate;
mod oip;
mod openapi;
mod ops;
mod problem;
mod samples;
mod server;
mod tensors;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::MatchedPath;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, map_response};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::api::error::{Error, Kind};
use crate::service::Service;

pub use guard::Access;
pub use openapi::document;
pub use problem::{FieldProblem, Problem, ProtocolError};
pub use server::{Server, Timeouts};

/// What every handler may use. Cheap to clone: it is, for every request.
#[derive(Clone, Debug)]
pub struct App {
    service: Arc<Service>,
    body_timeout: Duration,
    key_hash: Option<[u8; 32]>,
    stage: Arc<AtomicU8>,
}

/// What a server that is told to stop goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Stage {
    /// It takes new work.
    Serving,
    /// It still does, and asks load balancers to send it elsewhere.
    Leaving,
    /// It takes none any more.
    Draining,
}

impl App {
    /// Over that service. With a key, callers must present it.
    #[must_use]
    pub fn new(service: Service, body_timeout: Duration, key: Option<&str>) -> Self {
        Self {
            service: Arc::new(service),
            body_timeout,
            // Hashes are compared, so that the comparison takes the same time for any key.
            key_hash: key.map(|key| Sha256::digest(key).into()),
            stage: Arc::new(AtomicU8::new(Stage::Serving as u8)),
        }
    }

    /// Says that it is not ready any more, and goes on taking work.
    pub fn leave(&self) {
        self.stage.fetch_max(Stage::Leaving as u8, Ordering::Relaxed);
    }

    /// Refuses new work from now on.
    pub fn drain(&self) {
        self.stage.fetch_max(Stage::Draining as u8, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == Stage::Serving as u8
    }

    fn is_draining(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == Stage::Draining as u8
    }
}

/// A route of documents: they are laid out where the query asks for it. Answers of tensors are on
/// the compute pool instead.
fn documents(route: UtoipaMethodRouter<App>) -> UtoipaMethodRouter<App> {
    route.layer(from_fn(document::lay_out))
}

/// The same of answers that are compressed where that pays: those of `/v2` are only for clients that
/// can undo it.
fn compressed(route: UtoipaMethodRouter<App>) -> UtoipaMethodRouter<App> {
    documents(route).layer(middleware::compression())
}

/// Every documented route: one exists if and only if it is documented.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(tensors::quantize))
        .routes(routes!(tensors::dequantize))
        .routes(routes!(tensors::compare))
        .routes(routes!(tensors::inspect))
        .routes(routes!(tensors::matmul))
        .routes(routes!(samples::sample))
        .routes(compressed(routes!(calibrators::create, calibrators::list)))
        .routes(compressed(routes!(calibrators::describe, calibrators::delete)))
        .routes(compressed(routes!(calibrators::feed)))
        .routes(compressed(routes!(calibrators::merge)))
        .routes(compressed(routes!(calibrators::export)))
        .routes(compressed(routes!(layers::create, layers::list)))
        .routes(compressed(routes!(layers::replace, layers::describe, layers::delete)))
        .routes(routes!(layers::forward))
        .routes(compressed(routes!(layers::evaluate)))
        .routes(compressed(routes!(ops::index)))
        .routes(compressed(routes!(ops::info)))
        .routes(compressed(routes!(ops::livez)))
        .routes(compressed(routes!(ops::readyz)))
        .routes(compressed(routes!(ops::health)))
        .routes(compressed(routes!(ops::metrics)))
        .routes(compressed(routes!(ops::openapi_json)))
        .merge(oip::routes())
}

fn not_found(path: &str) -> Error {
    let guess = match openapi::meant(path) {
        None => String::new(),
        Some(meant) if path.strip_suffix('/') == Some(&meant) => {
            "leave out the slash at the end; ".to_owned()
        }
        Some(meant) => format!("did you mean {meant}? "),
    };
    Error::new(Kind::NotFound, "no such resource")
        .cure(format!("{guess}see GET / for what there is"))
}

/// The answer to a method that a path has not.
async fn not_allowed(method: Method, path: Option<MatchedPath>) -> Error {
    let methods = path.and_then(|path| openapi::methods(path.as_str()));
    let Some(methods) = methods else {
        return Error::new(Kind::MethodNotAllowed, "the resource has no such method")
            .cure("see the Allow header");
    };
    let method = middleware::method_name(&method);
    let detail = format!("{method} is not allowed here, allowed are {methods}");
    Error::new(Kind::MethodNotAllowed, detail).cure(format!("use {methods}"))
}

/// The whole surface: the routes above, Swagger UI, and an answer for
/// everything else, to those who have `access`.
pub fn router(app: App, access: &Access) -> Router {
    let (router, _) = routes().split_for_parts();
    let pages = openapi::swagger_ui().layer(map_response(async |response: Response| {
        // The pages know of no problem documents.
        if response.status() == StatusCode::NOT_FOUND {
            not_found("").into_response()
        } else {
            openapi::entitle(response).await
        }
    }));
    let router = router
        .merge(pages.layer(middleware::compression()))
        .fallback(async |uri: Uri| oip::not_found(&uri).unwrap_or_else(|| not_found(uri.path())))
        .method_not_allowed_fallback(not_allowed);
    middleware::wrap(router, &app, access).with_state(app)
}
