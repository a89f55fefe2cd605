//! OTLP over HTTP: `POST /v1/logs`, protobuf and JSON; identity, gzip and zstd.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;

use super::{
    Ack, Ingest, IngestError, headers,
    receive::{Compression, Format, Frames, Room, decode},
    status,
};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The route of the OTLP door.
pub fn router(ingest: Arc<Ingest>) -> Router {
    Router::new().route("/v1/logs", post(export)).with_state(ingest)
}

async fn export(State(ingest): State<Arc<Ingest>>, map: HeaderMap, body: Body) -> Response {
    // The answer speaks the request's language; JSON when there is none that we know.
    let format = format(&map);
    let mut room = ingest.room();
    let answer = match payload(&ingest, format.clone(), &map, body, &mut room).await {
        Ok(payload) => ingest.accept_received(payload, headers(&map), room).await,
        Err(error) => Err(ingest.refuse(error)),
    };
    respond(format.unwrap_or(Format::Json), answer)
}

fn format(headers: &HeaderMap) -> Result<Format, IngestError> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Ok(Format::Protobuf),
        "application/json" => Ok(Format::Json),
        _ => Err(IngestError::MediaType(
            "the content type is neither application/x-protobuf nor application/json".into(),
        )),
    }
}

/// The request in protobuf.
async fn payload(
    ingest: &Ingest,
    format: Result<Format, IngestError>,
    headers: &HeaderMap,
    body: Body,
    room: &mut Room,
) -> Result<Bytes, IngestError> {
    let format = format?;
    let compression = compression(headers)?;
    let len = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    let body = timeout(ingest.options.body_timeout, Frames(body).body(len, ingest, room)).await;
    decode(ingest, body.map_err(|_| IngestError::TooSlow)??, compression, format, room).await
}

fn compression(headers: &HeaderMap) -> Result<Option<Compression>, IngestError> {
    let value = headers.get(header::CONTENT_ENCODING).map_or(Ok(""), HeaderValue::to_str).unwrap_or("?");
    match value.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(None),
        "gzip" => Ok(Some(Compression::Gzip)),
        "zstd" => Ok(Some(Compression::Zstd)),
        _ => Err(IngestError::Encoding("the content encoding is not identity, gzip or zstd".into())),
    }
}

fn respond(format: Format, answer: Result<Ack, IngestError>) -> Response {
    let (code, body) = match (&answer, format) {
        // An ExportLogsServiceResponse without partial success.
        (Ok(_), Format::Protobuf) => (StatusCode::OK, Vec::new()),
        (Ok(_), Format::Json) => (StatusCode::OK, b"{}".to_vec()),
        (Err(error), Format::Protobuf) => (http_status(error), status::Status::of(error).encode_to_vec()),
        (Err(error), Format::Json) => {
            let body = serde_json::json!({ "code": status::code(error) as i32, "message": error.to_string() });
            (http_status(error), body.to_string().into_bytes())
        }
    };
    let content_type = if format == Format::Protobuf { PROTOBUF } else { JSON };
    let mut response = (code, [(header::CONTENT_TYPE, content_type)], body).into_response();
    if let Some(wait) = answer.err().and_then(|error| error.retry_after()) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(status::seconds_up(wait)));
    }
    response
}

/// 429 and 503 are the two that tell an OTLP sender to try again.
fn http_status(error: &IngestError) -> StatusCode {
    match error {
        IngestError::Malformed(_) | IngestError::Limit(_) => StatusCode::BAD_REQUEST,
        IngestError::Encoding(_) | IngestError::UnknownEncoding(_) | IngestError::MediaType(_) => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        IngestError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        IngestError::Overload | IngestError::Rate { .. } | IngestError::Share { .. } => StatusCode::TOO_MANY_REQUESTS,
        IngestError::QueueUnavailable(_)
        | IngestError::QueueFailed(_)
        | IngestError::RulesUnread
        | IngestError::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
    }
}
