//! The HTTP doors for people and their tools: searches, health, metrics. Thin: each handler reads a request, asks a step
//! and shows its answer.
//!
//! | route | answer |
//! |---|---|
//! | `GET /api/v1/search` | [`search`]: a page of events, newest first |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | [`health`]: 200 or 503, and what is the matter with which dependency |
//! | `GET /metrics` | every counter, OpenMetrics text |
//!
//! The other doors on the same listener, `/v1/logs`, `/api/v1/rules` and the page, are merged in by [`crate::app`].

pub mod health;
pub mod search;
pub mod time;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};

use self::{health::Health, search::Search};
use crate::{
    error::ApiError,
    metrics::{self, Metrics},
};

/// The routes above. `search` is none for a process that does not answer searches.
pub fn router(search: Option<Search>, health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    let search = match search {
        Some(search) => Router::new().route("/api/v1/search", get(search::answer)).with_state(Arc::new(search)),
        None => Router::new().route("/api/v1/search", get(no_search)),
    };
    search
        .merge(Router::new().route("/livez", get(|| async { "alive\n" })))
        .merge(Router::new().route("/readyz", get(health::answer)).with_state(health))
        .merge(Router::new().route("/metrics", get(show_metrics)).with_state(metrics))
        .layer(map_response(harden))
}

async fn no_search() -> ApiError {
    ApiError::not_found("this server has not the role \"query\": ask one that has")
}

async fn show_metrics(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.encode())
}

/// Answers hold log content: no cache keeps them, and no browser guesses that they are a page.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
