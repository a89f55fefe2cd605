//! HTTP routes of the control plane: documents in and out as TOML, everything else as JSON.
//!
//! | | |
//! |---|---|
//! | `GET`, `PUT`, `DELETE /api/v1/rules/global` | the document for all services |
//! | `GET`, `PUT`, `DELETE /api/v1/rules/service/{name}` | a service's |
//! | `GET /api/v1/instances` | which process runs which revision, or why it refused |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use logsink::filter::rules::DOCUMENT_BYTES_MAX;
use serde_json::json;

use super::{Control, ControlError, Scope, instances::Instance};

/// The routes, over this control plane.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/api/v1/rules/global", get(get_global).put(put_global).delete(delete_global))
        .route("/api/v1/rules/service/{name}", get(get_service).put(put_service).delete(delete_service))
        .route("/api/v1/instances", get(instances))
        // A little more than a document, so that one that is too long is refused in our words.
        .layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX + 1024))
        .with_state(control)
}

type Shared = State<Arc<Control>>;

async fn get_global(State(control): Shared) -> Response {
    read(&control, &Scope::Global)
}

async fn get_service(State(control): Shared, Path(name): Path<String>) -> Response {
    read(&control, &Scope::Service(name))
}

async fn put_global(State(control): Shared, text: String) -> Response {
    write(&control, Scope::Global, Some(text)).await
}

async fn put_service(State(control): Shared, Path(name): Path<String>, text: String) -> Response {
    write(&control, Scope::Service(name), Some(text)).await
}

async fn delete_global(State(control): Shared) -> Response {
    write(&control, Scope::Global, None).await
}

async fn delete_service(State(control): Shared, Path(name): Path<String>) -> Response {
    write(&control, Scope::Service(name), None).await
}

async fn instances(State(control): Shared) -> Json<Vec<Instance>> {
    Json(control.instances().list())
}

fn read(control: &Control, scope: &Scope) -> Response {
    match control.get(scope) {
        Ok(Some(stored)) => {
            let toml = HeaderValue::from_static("application/toml; charset=utf-8");
            let mut response = ([(header::CONTENT_TYPE, toml)], stored.text).into_response();
            if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", stored.revision)) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            response
        }
        Ok(None) => {
            let error = format!("there are no rules for {scope}");
            (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn write(control: &Control, scope: Scope, text: Option<String>) -> Response {
    match control.put(&scope, text).await {
        Ok(revision) => Json(json!({ "revision": revision })).into_response(),
        Err(error) => error.into_response(),
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let error = self.to_string();
        match self {
            Self::Rule(rule) => {
                let body = json!({
                    "error": error,
                    "line": rule.line,
                    "column": rule.column,
                    "message": rule.message,
                    "hint": rule.hint,
                });
                (StatusCode::BAD_REQUEST, Json(body)).into_response()
            }
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response(),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error }))).into_response(),
            Self::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response(),
        }
    }
}
