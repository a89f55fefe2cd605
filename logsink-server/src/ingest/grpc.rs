//! OTLP over gRPC: `opentelemetry.proto.collector.logs.v1.LogsService/Export`.
//!
//! A call is one message in and one, empty, out, so the frames are read here instead of through a codec: room for a message
//! is reserved before it is read, one that comes in one piece is not copied, and any other is copied once. gzip and zstd are
//! taken, within the request's limit.

use std::future::ready;

use axum::body::HttpBody;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};

use super::{
    Ack, Ingest, IngestError, headers,
    receive::{Compression, Format, Frames, Room, decode},
    status,
};

/// The path of the one method of the logs service.
pub const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const ENCODING: &str = "grpc-encoding";
const ENCODINGS_TAKEN: (&str, HeaderValue) = ("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));

/// An `ExportLogsServiceResponse` without partial success, framed: not compressed, no bytes.
const DONE: Bytes = Bytes::from_static(&[0; 5]);

/// Answers a call of [`EXPORT`].
pub async fn export<B: HttpBody<Data = Bytes> + Unpin>(ingest: &Ingest, request: Request<B>) -> Response<Body> {
    let (head, body) = request.into_parts();
    match accept(ingest, &head.headers, body).await {
        Ok(_) => done(),
        Err(error) => refusal(&error),
    }
}

async fn accept<B>(ingest: &Ingest, map: &HeaderMap, body: B) -> Result<Ack, IngestError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut room = ingest.room();
    match payload(ingest, map, body, &mut room).await {
        Ok(payload) => ingest.accept_received(payload, headers(map), room).await,
        Err(error) => Err(ingest.refuse(error)),
    }
}

/// The request in protobuf.
async fn payload<B>(ingest: &Ingest, map: &HeaderMap, body: B, room: &mut Room) -> Result<Bytes, IngestError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let encoding = encoding(map)?;
    let mut frames = Frames(body);
    let message = timeout(ingest.options.body_timeout, frames.grpc_message(ingest, room)).await;
    let (compressed, message) = message.map_err(|_| IngestError::TooSlow)??;
    let compression = match (compressed, encoding) {
        (0, _) => None,
        (1, Some(compression)) => Some(compression),
        (1, None) => {
            return Err(IngestError::Malformed("the message is compressed and grpc-encoding does not say how".into()));
        }
        _ => return Err(IngestError::Malformed("the message's flag is neither 0 nor 1".into())),
    };
    decode(ingest, message, compression, Format::Protobuf, room).await
}

fn encoding(map: &HeaderMap) -> Result<Option<Compression>, IngestError> {
    match map.get(ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(Compression::Gzip)),
        Some(b"zstd") => Ok(Some(Compression::Zstd)),
        Some(_) => Err(IngestError::UnknownEncoding("grpc-encoding is not identity, gzip or zstd")),
    }
}

fn done() -> Response<Body> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(Body::new(Full::new(DONE).with_trailers(ready(Some(Ok(trailers))))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn refusal(error: &IngestError) -> Response<Body> {
    let details = status::Status::of(error).encode_to_vec();
    let code = status::code(error);
    let mut response = Status::with_details(code, error.to_string(), details.into()).into_http();
    if code == Code::Unimplemented {
        // A sender that reads this sends the same again in a way that is taken.
        let (name, encodings) = ENCODINGS_TAKEN;
        response.headers_mut().insert(name, encodings);
    }
    response
}
