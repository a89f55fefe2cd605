//! OTLP over gRPC: one `LogsService/Export` call per batch.
//!
//! The payload goes out as the bytes it is, and of the answer only the partial success is read. Answers are told apart
//! exactly as the OTLP specification wants it, plus one case that it leaves open: a message that is too large for the
//! server, which halves may fix. The connection is made with the first batch and made again by itself after a failure.

use std::{
    error::Error as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    Accepted, Batch, SendError, Sending, Transport, accepted, chain,
    connect::{CONNECT_TIMEOUT, Connector},
    tls::{self, CERTIFICATE, PRIVATE_KEY},
    token::Token,
    wire,
};
use crate::{
    ConfigError,
    config::{Compression, Config, Tls},
};

const EXPORT: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");

/// A connection that died without a word (a firewall, a vanished host) is noticed after these two: the next batch then
/// goes over a new one instead of into the void.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// An OTLP/gRPC sink.
#[derive(Debug)]
pub struct GrpcTransport {
    channel: Channel,
    metadata: MetadataMap,
    token: Option<Token>,
    timeout: Duration,
    compression: Option<CompressionEncoding>,
    /// The server does not know our compression: it said so once, and gets plain bytes since.
    plain: AtomicBool,
}

/// Makes a channel to `url` that connects when it is first used, and again when it must. To be called within a runtime.
///
/// # Errors
/// When the URL, the host's certificate name, a file of `tls` or the proxy cannot be used.
pub fn channel(url: &str, config: &Config) -> Result<Channel, ConfigError> {
    let invalid = |error: tonic::transport::Error| ConfigError { field: "endpoint".to_owned(), message: chain(&error) };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(invalid)?
        .user_agent(super::USER_AGENT)
        .map_err(invalid)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    if url.starts_with("https:") {
        endpoint = endpoint.tls_config(tls_config(&config.tls)?).map_err(invalid)?;
    }
    let connector = Connector::new(endpoint.uri(), &config.send)?;
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn tls_config(settings: &Tls) -> Result<ClientTlsConfig, ConfigError> {
    let mut config = ClientTlsConfig::new();
    config = match &settings.ca {
        Some(file) => config.ca_certificate(Certificate::from_pem(tls::read("tls.ca", file, CERTIFICATE)?)),
        None => config.with_webpki_roots(),
    };
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        let certificate = tls::read("tls.certificate", certificate, CERTIFICATE)?;
        config = config.identity(Identity::from_pem(certificate, tls::read("tls.key", key, PRIVATE_KEY)?));
    }
    if let Some(name) = &settings.server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

impl GrpcTransport {
    /// Sends over this channel, with the headers, token, timeout and compression of the settings.
    ///
    /// # Errors
    /// When a header cannot be sent as gRPC metadata, the compression is none of gRPC's, or the token cannot be read.
    pub fn new(channel: Channel, config: &Config, compression: Compression) -> Result<Self, ConfigError> {
        let mut metadata = MetadataMap::new();
        for (key, value) in &config.headers {
            // The value may be a credential: the error does not show it.
            let refuse = |what: &str| ConfigError { field: format!("headers.{key}"), message: what.to_owned() };
            let name = tonic::metadata::AsciiMetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes())
                .map_err(|_| refuse("is not a name of gRPC metadata: letters, digits, `.`, `_` and `-`"))?;
            let mut value =
                MetadataValue::try_from(value.0.as_str()).map_err(|_| refuse("its value is not visible ASCII"))?;
            value.set_sensitive(true);
            metadata.insert(name, value);
        }
        let compression = match compression {
            Compression::None => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
            Compression::Zstd => Some(CompressionEncoding::Zstd),
            Compression::Lz4 => {
                let message = "gRPC has no lz4: write none, gzip or zstd".to_owned();
                return Err(ConfigError { field: "send.compression".to_owned(), message });
            }
        };
        let token = config.send.token_file.as_deref().map(Token::new).transpose()?;
        Ok(Self { channel, metadata, token, timeout: config.timeout(), compression, plain: AtomicBool::new(false) })
    }

    async fn export(&self, batch: Batch) -> Result<Accepted, SendError> {
        let mut request = Request::new(batch.payload);
        *request.metadata_mut() = self.metadata.clone();
        for (name, value) in batch.headers {
            if let Ok(value) = value.parse() {
                request.metadata_mut().insert(name, value);
            }
        }
        let authorization = match &self.token {
            Some(token) => Some(token.header().await),
            None => None,
        };
        if let Some(mut value) = authorization.as_ref().and_then(|value| MetadataValue::try_from(value.as_bytes()).ok())
        {
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        request.set_timeout(self.timeout);

        let compression = self.compression.filter(|_| !self.plain.load(Relaxed));
        let mut client = Grpc::new(self.channel.clone());
        if let Some(encoding) = compression {
            client = client.send_compressed(encoding);
        }
        // Compressed or not, the server may answer compressed.
        client = client.accept_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Zstd);

        client.ready().await.map_err(|error| SendError::Retryable { message: chain(&error), after: None })?;
        // The timeout in the request is the server's as well as the channel's; this one also covers a channel that hangs.
        let unary = client.unary(request, EXPORT, RawCodec);
        match tokio::time::timeout(self.timeout + CONNECT_TIMEOUT, unary).await {
            Ok(Ok(response)) => Ok(accepted(&response.into_inner())),
            Ok(Err(status)) if status.code() == Code::Unimplemented && compression.is_some() => {
                self.plain.store(true, Relaxed);
                Err(SendError::Retryable { message: words(&status), after: Some(Duration::ZERO) })
            }
            Ok(Err(status)) if status.code() == Code::Unauthenticated => match (&self.token, &authorization) {
                (Some(token), Some(refused)) if token.is_replaced(refused).await => {
                    Err(SendError::Retryable { message: words(&status), after: Some(Duration::ZERO) })
                }
                _ => Err(judge(&status)),
            },
            Ok(Err(status)) => Err(judge(&status)),
            Err(_) => Err(SendError::Retryable { message: "no answer in time".to_owned(), after: None }),
        }
    }
}

impl Transport for GrpcTransport {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(self.export(batch))
    }
}

/// The OTLP specification's table of retryable codes ("OTLP/gRPC Response", "Failures").
fn judge(status: &Status) -> SendError {
    let message = words(status);
    // Made on this side: the request may never have reached the server, which in any case has not judged it.
    if status.source().is_some() {
        return SendError::Retryable { message, after: None };
    }
    let after = retry_delay(status.details());
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted if after.is_none() && says_too_large(status.message()) => {
            SendError::TooLarge { message }
        }
        // A proxy's 413 comes without a gRPC status; clients make this code of it.
        Code::Unknown if status.message().contains("413") => SendError::TooLarge { message },
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => SendError::Retryable { message, after },
        // Exhausted for a while when the server says when to come back, else for good (a quota).
        Code::ResourceExhausted if after.is_some() => SendError::Retryable { message, after },
        _ => SendError::Permanent { message },
    }
}

/// Servers have no code of their own for a message above their limit: grpc-go and grpc-core say "received message larger
/// than max", grpc-java "exceeds maximum size", tonic "message length too large".
fn says_too_large(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "exceeds maximum size", "too large", "too big"].iter().any(|words| message.contains(words))
}

/// The delay in a `google.rpc.Status { details = 3 Any { type_url = 1, value = 2 } }` that holds a
/// `google.rpc.RetryInfo { retry_delay = 1 Duration { seconds = 1, nanos = 2 } }`.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    wire::fields(details).filter(|(number, _)| *number == 3).find_map(|(_, any)| {
        let url = wire::field(any.bytes(), 1)?.bytes();
        if !url.ends_with(b"google.rpc.RetryInfo") {
            return None;
        }
        let info = wire::field(any.bytes(), 2).map_or(&[][..], wire::Value::bytes);
        let delay = wire::field(info, 1).map_or(&[][..], wire::Value::bytes);
        let number = |field| wire::field(delay, field).map_or(0, |value| value.number() as i64);
        let nanos = u32::try_from(number(2)).ok().filter(|nanos| *nanos < 1_000_000_000).unwrap_or_default();
        // A negative delay is none.
        Some(u64::try_from(number(1)).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos)))
    })
}

fn words(status: &Status) -> String {
    let cause = status.source().map(|source| format!(" ({})", chain(source))).unwrap_or_default();
    format!("{}: {}{cause}", status.code(), status.message())
}

/// Bytes in, bytes out.
#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
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

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, payload: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(payload.len());
        buffer.put(payload);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        // An answer is a few bytes.
        BufferSettings::new(256, 32 << 10)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code::*;

    use super::*;

    fn retry_info(seconds: i64, nanos: i32) -> Bytes {
        let delay = [&[0x08, seconds as u8][..], &[0x10, nanos as u8]].concat();
        let info = [&[0x0a, delay.len() as u8][..], &delay].concat();
        let url = b"type.googleapis.com/google.rpc.RetryInfo";
        let any = [&[0x0a, url.len() as u8][..], url, &[0x12, info.len() as u8], &info].concat();
        [&[0x08, 14, 0x12, 1, b'm', 0x1a, any.len() as u8][..], &any].concat().into()
    }

    #[test]
    fn codes_are_judged_as_the_specification_wants() {
        for code in (0..=16).map(Code::from_i32).filter(|code| *code != Ok) {
            let retryable = matches!(judge(&Status::new(code, "m")), SendError::Retryable { .. });
            let expected = matches!(code, Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable | DataLoss);
            assert_eq!(retryable, expected, "{code:?}");
        }
    }

    #[test]
    fn the_server_s_delay_is_read_from_the_details() {
        let after = |code, seconds, nanos| {
            let SendError::Retryable { after, .. } =
                judge(&Status::with_details(code, "m", retry_info(seconds, nanos)))
            else {
                panic!("not retryable")
            };
            after
        };
        assert_eq!(after(Unavailable, 7, 5), Some(Duration::new(7, 5)));
        assert_eq!(after(ResourceExhausted, 0, 0), Some(Duration::ZERO));
        assert_eq!(retry_delay(b"\x1a\x03\x0a\x01x"), None);
    }

    #[test]
    fn a_message_above_the_server_s_limit_is_told_from_a_quota() {
        for (code, message) in [
            (OutOfRange, "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes"),
            (ResourceExhausted, "grpc: received message larger than max (9 vs. 4)"),
            (Unknown, "grpc-status header missing, mapped from HTTP status code 413"),
        ] {
            assert!(matches!(judge(&Status::new(code, message)), SendError::TooLarge { .. }), "{message}");
        }
        assert!(matches!(judge(&Status::new(ResourceExhausted, "monthly quota")), SendError::Permanent { .. }));
    }
}
