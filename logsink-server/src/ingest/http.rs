//! OTLP over HTTP: `POST /v1/logs`, protobuf and JSON; identity, gzip and zstd.

use std::{io::Read, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;

use super::{Ack, Ingest, IngestError, headers, json, status};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The largest window of a zstd body, as a power of two: 8 MiB, what RFC 9659 lets a sender use over HTTP. A body can ask for
/// 2 GiB otherwise, whatever it decompresses to.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The route of the OTLP door.
pub fn router(ingest: Arc<Ingest>) -> Router {
    Router::new().route("/v1/logs", post(export)).with_state(ingest)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

async fn export(State(ingest): State<Arc<Ingest>>, map: HeaderMap, body: Body) -> Response {
    // The answer speaks the request's language; JSON when there is none that we know.
    let format = format(&map);
    let answer = match payload(&ingest, format.clone(), &map, body).await {
        Ok(payload) => ingest.accept(payload, headers(&map)).await,
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
) -> Result<Bytes, IngestError> {
    let format = format?;
    let compression = compression(headers)?;
    let bytes_max = ingest.options.request_bytes_max;
    let body =
        timeout(ingest.options.body_timeout, to_bytes(body, bytes_max)).await.map_err(|_| IngestError::TooSlow)?;
    let body = body.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return IngestError::TooLarge { bytes_max };
            }
            cause = error.source();
        }
        IngestError::Malformed("the body ended early".into())
    })?;
    if compression == Compression::None && format == Format::Protobuf {
        return Ok(body);
    }
    let decode = move || {
        let body = decompress(body, compression, bytes_max)?;
        match format {
            Format::Protobuf => Ok(body),
            Format::Json => json::to_protobuf(&body).map(Bytes::from).map_err(IngestError::Malformed),
        }
    };
    // Off the threads that other requests wait for. The semaphore is never closed.
    let _turn = ingest.decoding.acquire().await;
    tokio::task::spawn_blocking(decode).await.unwrap_or_else(|error| Err(IngestError::QueueFailed(error.to_string())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

fn compression(headers: &HeaderMap) -> Result<Compression, IngestError> {
    let value = headers.get(header::CONTENT_ENCODING).map_or(Ok(""), HeaderValue::to_str).unwrap_or("?");
    match value.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => Err(IngestError::Encoding("the content encoding is not identity, gzip or zstd".into())),
    }
}

fn decompress(body: Bytes, compression: Compression, bytes_max: usize) -> Result<Bytes, IngestError> {
    let broken = |name| IngestError::Encoding(format!("the body is not {name}"));
    let mut out = Vec::new();
    match compression {
        Compression::None => return Ok(body),
        Compression::Gzip => {
            let decoder = flate2::read::MultiGzDecoder::new(&*body);
            decoder.take(bytes_max as u64 + 1).read_to_end(&mut out).map_err(|_| broken("gzip"))?;
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(&*body).map_err(|_| broken("zstd"))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| broken("zstd"))?;
            let read = decoder.take(bytes_max as u64 + 1).read_to_end(&mut out);
            read.map_err(|_| broken("zstd with a window of 8 MiB at most"))?;
        }
    }
    if out.len() > bytes_max { Err(IngestError::TooLarge { bytes_max }) } else { Ok(out.into()) }
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
    if answer.is_err_and(|error| error.is_retryable()) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(status::RETRY_AFTER_SECONDS));
    }
    response
}

/// 429 and 503 are the two that tell an OTLP sender to try again.
fn http_status(error: &IngestError) -> StatusCode {
    match error {
        IngestError::Malformed(_) | IngestError::Limit(_) => StatusCode::BAD_REQUEST,
        IngestError::Encoding(_) | IngestError::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        IngestError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        IngestError::Overload => StatusCode::TOO_MANY_REQUESTS,
        IngestError::QueueUnavailable(_) | IngestError::QueueFailed(_) | IngestError::TooSlow => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
