//! OTLP over gRPC: `opentelemetry.proto.collector.logs.v1.LogsService/Export`.
//!
//! The codec hands the request's bytes through: nothing is decoded. gzip and zstd are taken, within the request's limit.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response};
use prost::Message;
use tonic::{
    Code,
    body::Body,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EnabledCompressionEncodings, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
};

use super::{Ingest, headers, status};
use crate::{metrics::Refusal, queue::Headers};

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const GRPC_STATUS: &str = "grpc-status";

/// The logs service, to be added to a gRPC server.
pub fn service(ingest: Arc<Ingest>) -> LogsService {
    LogsService { ingest }
}

/// See [`service`].
#[derive(Clone)]
pub struct LogsService {
    ingest: Arc<Ingest>,
}

impl NamedService for LogsService {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<Request<Body>> for LogsService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ingest = Arc::clone(&self.ingest);
        Box::pin(async move {
            if request.uri().path() != EXPORT {
                return Ok(tonic::Status::unimplemented("the logs service has one method: Export").into_http());
            }
            let mut encodings = EnabledCompressionEncodings::default();
            encodings.enable(CompressionEncoding::Gzip);
            encodings.enable(CompressionEncoding::Zstd);
            // The limit holds before and after decompression.
            let bytes_max = Some(ingest.options.request_bytes_max);
            let mut grpc = Grpc::new(Raw)
                .apply_compression_config(encodings, EnabledCompressionEncodings::default())
                .apply_max_message_size_config(bytes_max, None);
            let is_payload = Arc::new(AtomicBool::new(false));
            let export = Export {
                ingest: Arc::clone(&ingest),
                headers: headers(request.headers()),
                is_payload: Arc::clone(&is_payload),
            };
            let mut response = grpc.unary(export, request).await;
            if is_payload.load(Ordering::Relaxed) {
                return Ok(response);
            }
            // The request did not become a payload: tonic has refused it.
            let code =
                response.headers().get(GRPC_STATUS).map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
            ingest.metrics.ingest_requests.inc();
            ingest.metrics.refused(match code {
                Code::OutOfRange | Code::ResourceExhausted => Refusal::TooLarge,
                Code::Unimplemented => Refusal::Encoding,
                _ => Refusal::Malformed,
            });
            // Its answer to a message over the limit, which OTLP senders take for a reason to try again.
            if code == Code::OutOfRange {
                response.headers_mut().insert(GRPC_STATUS, HeaderValue::from(Code::ResourceExhausted as i32));
            }
            Ok(response)
        })
    }
}

/// One call.
struct Export {
    ingest: Arc<Ingest>,
    headers: Headers,
    /// Set when the request was read and decompressed.
    is_payload: Arc<AtomicBool>,
}

impl UnaryService<Bytes> for Export {
    type Response = ();
    type Future = BoxFuture<tonic::Response<()>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        self.is_payload.store(true, Ordering::Relaxed);
        let ingest = Arc::clone(&self.ingest);
        let headers = std::mem::take(&mut self.headers);
        Box::pin(async move {
            match ingest.accept(request.into_inner(), headers).await {
                Ok(_) => Ok(tonic::Response::new(())),
                Err(error) => {
                    let details = status::Status::of(&error).encode_to_vec();
                    Err(tonic::Status::with_details(status::code(&error), error.to_string(), details.into()))
                }
            }
        })
    }
}

/// Requests as bytes; the answer, an `ExportLogsServiceResponse` without partial success, is empty.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = ();
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = ();
    type Error = tonic::Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}
