//! The HTTP face. Start here: [`router`] shows the whole surface.

mod body;
mod calibrators;
mod connection;
mod docs;
mod exchange;
mod layers;
mod middleware;
mod negotiate;
mod oip;
mod openapi;
mod ops;
mod problem;
mod server;
mod tensors;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::error::{Error, Kind};
use crate::service::Service;

pub use openapi::document;
pub use problem::{FieldProblem, Problem, ProtocolError};
pub use server::{Server, Timeouts};

/// What every handler may use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    service: Service,
    body_timeout: Duration,
    key_hash: Option<[u8; 32]>,
    draining: Arc<AtomicBool>,
}

impl App {
    /// Over that service. With a key, callers must present it.
    #[must_use]
    pub fn new(service: Service, body_timeout: Duration, key: Option<&str>) -> Self {
        Self {
            service,
            body_timeout,
            // Hashes are compared, so that the comparison takes the same time for any key.
            key_hash: key.map(|key| Sha256::digest(key).into()),
            draining: Arc::default(),
        }
    }

    /// Refuses new work from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Every documented route: one exists if and only if it is documented.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(tensors::quantize))
        .routes(routes!(tensors::dequantize))
        .routes(routes!(tensors::compare))
        .routes(routes!(tensors::inspect))
        .routes(routes!(tensors::matmul))
        .routes(routes!(calibrators::create, calibrators::list))
        .routes(routes!(calibrators::describe, calibrators::delete))
        .routes(routes!(calibrators::feed))
        .routes(routes!(calibrators::merge))
        .routes(routes!(calibrators::export))
        .routes(routes!(layers::create, layers::list))
        .routes(routes!(layers::replace, layers::describe, layers::delete))
        .routes(routes!(layers::forward))
        .routes(routes!(layers::evaluate))
        .routes(routes!(ops::index))
        .routes(routes!(ops::info))
        .routes(routes!(ops::livez))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::health))
        .routes(routes!(ops::metrics))
        .routes(routes!(ops::openapi_json))
        .merge(oip::routes())
}

fn not_found() -> Response {
    Error::new(Kind::NotFound, "no such resource")
        .cure("see GET / for what there is")
        .into_response()
}

/// The whole surface: the routes above, Swagger UI, and an answer for
/// everything else; `cors` lists the origins whose pages may call.
pub fn router(app: App, cors: &[String]) -> Router {
    let (router, _) = routes().split_for_parts();
    let router = router
        .merge(openapi::swagger_ui().layer(map_response(async |response: Response| {
            // The pages know of no problem documents.
            if response.status() == StatusCode::NOT_FOUND { not_found() } else { response }
        })))
        .fallback(async |uri: Uri| match oip::not_found(&uri) {
            Some(error) => error.into_response(),
            None => not_found(),
        })
        .method_not_allowed_fallback(async || {
            Error::new(Kind::MethodNotAllowed, "the resource has no such method")
                .cure("see the Allow header")
        });
    middleware::wrap(router, &app, cors).with_state(app)
}
