//! `/v2`: the Open Inference Protocol, as KServe and Triton clients speak it.
//!
//! What the body of an inference request is, its headers say by themselves:
//! content types and `Accept` are not looked at, as clients send none.

mod docs;
mod health;
mod infer;
mod models;
mod repository;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderName, Uri};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::error::{Error, Kind};
use crate::service::models::Target;

use super::{App, documents};

/// The bytes of the JSON header of a body with binary tensors.
pub(super) const HEADER_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Every route of the protocol.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(documents(routes!(health::live)))
        .routes(documents(routes!(health::ready)))
        .routes(documents(routes!(health::server)))
        .routes(documents(routes!(health::server_slash)))
        .routes(documents(routes!(models::list)))
        .routes(documents(routes!(models::all_statistics)))
        .routes(documents(routes!(models::metadata)))
        .routes(documents(routes!(models::version_metadata)))
        .routes(documents(routes!(models::ready)))
        .routes(documents(routes!(models::version_ready)))
        .routes(documents(routes!(models::config)))
        .routes(documents(routes!(models::version_config)))
        .routes(documents(routes!(models::statistics)))
        .routes(documents(routes!(models::version_statistics)))
        .routes(routes!(infer::infer))
        .routes(routes!(infer::version_infer))
        .routes(documents(routes!(repository::index)))
        .routes(documents(routes!(repository::load)))
        .routes(documents(routes!(repository::unload)))
}

/// What is answered where there is no route: extensions of the protocol that
/// are not spoken say so.
pub(super) fn not_found(uri: &Uri) -> Option<Error> {
    const EXTENSIONS: [&str; 4] =
        ["trace/setting", "logging", "systemsharedmemory", "cudasharedmemory"];
    let rest = uri.path().strip_prefix("/v2/")?;
    let of_model = rest.strip_prefix("models/").and_then(|rest| rest.split_once('/'));
    let is_extension = |rest: &str| {
        EXTENSIONS.iter().any(|name| {
            rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let found = is_extension(rest) || of_model.is_some_and(|(_, rest)| is_extension(rest));
    found.then(|| {
        Error::new(Kind::NotImplemented, "the extension is not supported")
            .cure("see GET /v2 for those that are")
    })
}

/// The name and version of a path.
#[derive(Clone, Debug, Default)]
struct Named {
    model: String,
    version: Option<String>,
}

impl Named {
    async fn find(&self, app: &App) -> Result<Target, Error> {
        app.service.model(&self.model, self.version.as_deref()).await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::new(Kind::NotFound, "no such model"))?;
        let mut named = Self::default();
        for (key, value) in &params {
            match key {
                "model" => value.clone_into(&mut named.model),
                "version" => named.version = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(named)
    }
}
