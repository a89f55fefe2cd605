//! OTLP over HTTP: one `POST /v1/logs` in protobuf per batch, for networks that let nothing else through.
//!
//! Answers are judged exactly as the OTLP specification wants it ("OTLP/HTTP Response"): 429, 502, 503 and 504 are worth
//! trying again, when the sink says so not before its `Retry-After`; of what it took, the records that it refused are counted;
//! every other status is for good. Beside it stand 413, which halves may pass, and 415, after which batches go uncompressed.
//! Connections are kept for the next batch, and made again when they have ended.

mod retry_after;
mod wire;

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    Accepted, Batch, SendError, Sending, Transport, accepted, chain,
    connect::Connector,
    token::Token,
    wire::{Value, field},
};
use crate::{
    ConfigError,
    config::{Compression, Config},
};
use wire::TlsOrNot;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// An answer is a few words; one that is longer is not from an OTLP sink.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of a refusal is worth repeating.
const REASON_CHARS_MAX: usize = 200;
/// Load balancers end connections that idle for a minute: this one is first, so that no batch meets a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Compressing what is smaller takes less time than handing it to another thread and back.
const COMPRESS_HERE_BYTES_MAX: usize = 16 << 10;

/// An OTLP/HTTP sink.
#[derive(Debug)]
pub struct HttpTransport {
    client: Client<TlsOrNot, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    token: Option<Token>,
    timeout: Duration,
    compression: Compression,
    /// The sink does not know our compression: it said so once, and gets plain bytes since.
    plain: AtomicBool,
}

impl HttpTransport {
    /// Posts to this URL, with the headers, timeout, token, proxy, TLS and compression of the settings. Connects when it is
    /// first used.
    ///
    /// # Errors
    /// When the URL, a header, the compression or a file that the settings name cannot be used.
    pub fn new(url: &str, config: &Config, compression: Compression) -> Result<Self, ConfigError> {
        let refuse = |field: &str, message: String| ConfigError { field: field.to_owned(), message };
        let url: Uri = url.parse().map_err(|error| refuse("endpoint", format!("`{url}` is not a URL: {error}")))?;
        if compression == Compression::Lz4 {
            return Err(refuse("send.compression", "OTLP/HTTP has no lz4: write none, gzip or zstd".to_owned()));
        }
        let mut headers = HeaderMap::new();
        for (key, value) in &config.headers {
            // The value may be a credential: neither the error nor the debug form shows it.
            let field = format!("headers.{key}");
            let name = HeaderName::try_from(key.as_str())
                .map_err(|_| refuse(&field, "is not a name of an HTTP header".to_owned()))?;
            let mut value = HeaderValue::try_from(value.0.as_str())
                .map_err(|_| refuse(&field, "its value cannot be sent in an HTTP header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(super::USER_AGENT));

        let connector = TlsOrNot::new(Connector::new(&url, &config.send)?, &url, &config.tls)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(config.send.in_flight_max)
            .build(connector);
        let token = config.send.token_file.as_deref().map(Token::new).transpose()?;
        let timeout = config.timeout();
        Ok(Self { client, url, headers, token, timeout, compression, plain: AtomicBool::new(false) })
    }

    async fn post(&self, batch: Batch) -> Result<Accepted, SendError> {
        let mut headers = self.headers.clone();
        for (name, value) in &batch.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(*name, value);
            }
        }
        let authorization = match &self.token {
            Some(token) => Some(token.header().await),
            None => None,
        };
        if let Some(value) = &authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let compression = if self.plain.load(Relaxed) { Compression::None } else { self.compression };
        let body = compressed(batch.payload, compression).await?;
        if let Some(encoding) = encoding(compression) {
            headers.insert(header::CONTENT_ENCODING, encoding);
        }
        let mut request = Request::post(self.url.clone())
            .body(Full::new(body))
            .map_err(|error| SendError::Permanent { message: error.to_string() })?;
        *request.headers_mut() = headers;

        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| SendError::Retryable { message: chain(&error), after: None })?;
            Ok(Answer::read(response).await)
        };
        let answer = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(SendError::Retryable { message: "no answer in time".to_owned(), after: None }),
        };
        match answer.status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE if compression != Compression::None => {
                self.plain.store(true, Relaxed);
                Err(SendError::Retryable { message: answer.reason(), after: Some(Duration::ZERO) })
            }
            StatusCode::UNAUTHORIZED => match (&self.token, &authorization) {
                (Some(token), Some(refused)) if token.is_replaced(refused).await => {
                    Err(SendError::Retryable { message: answer.reason(), after: Some(Duration::ZERO) })
                }
                _ => answer.judge(),
            },
            _ => answer.judge(),
        }
    }
}

impl Transport for HttpTransport {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(self.post(batch))
    }
}

/// What the sink said.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Empty when it could not be read: the status alone decides.
    body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Self { status: head.status, headers: head.headers, body }
    }

    fn judge(&self) -> Result<Accepted, SendError> {
        let message = self.reason();
        match self.status {
            status if status.is_success() => {
                Ok(if self.is_protobuf() { accepted(&self.body) } else { Accepted::default() })
            }
            StatusCode::PAYLOAD_TOO_LARGE => Err(SendError::TooLarge { message }),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let now = std::time::SystemTime::now();
                Err(SendError::Retryable { message, after: after.and_then(|text| retry_after::delay(text, now)) })
            }
            _ => Err(SendError::Permanent { message }),
        }
    }

    fn is_protobuf(&self) -> bool {
        let name = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        name.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("application/x-protobuf"))
    }

    /// The status and what the body says of it: `google.rpc.Status { message = 2 }` in protobuf, else text.
    fn reason(&self) -> String {
        let words = if self.is_protobuf() {
            field(&self.body, 2).map(Value::text).unwrap_or_default()
        } else {
            String::from_utf8_lossy(&self.body).into_owned()
        };
        let mut reason = format!("HTTP status {}", self.status);
        if let Some(place) = self.headers.get(header::LOCATION).filter(|_| self.status.is_redirection()) {
            reason.push_str(&format!(": write the endpoint that it has moved to, {place:?}"));
        }
        // Others' words go to stderr as one line.
        let words: String = words.trim().chars().take(REASON_CHARS_MAX).flat_map(char::escape_debug).collect();
        if !words.is_empty() {
            reason.push_str(": ");
            reason.push_str(&words);
        }
        reason
    }
}

fn encoding(compression: Compression) -> Option<HeaderValue> {
    match compression {
        Compression::Gzip => Some(HeaderValue::from_static("gzip")),
        Compression::Zstd => Some(HeaderValue::from_static("zstd")),
        Compression::None | Compression::Lz4 => None,
    }
}

async fn compressed(payload: Bytes, compression: Compression) -> Result<Bytes, SendError> {
    if compression == Compression::None {
        return Ok(payload);
    }
    let failed = |error: &dyn std::fmt::Display| SendError::Permanent { message: format!("cannot compress: {error}") };
    let bytes = if payload.len() <= COMPRESS_HERE_BYTES_MAX {
        compress(&payload, compression)
    } else {
        let compressing = tokio::task::spawn_blocking(move || compress(&payload, compression));
        compressing.await.map_err(|error| failed(&error))?
    };
    bytes.map(Bytes::from).map_err(|error| failed(&error))
}

fn compress(payload: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(payload)?;
            encoder.finish()
        }
        Compression::Zstd => zstd::encode_all(payload, zstd::DEFAULT_COMPRESSION_LEVEL),
        Compression::None | Compression::Lz4 => Ok(payload.to_vec()),
    }
}

#[cfg(test)]
mod tests;
