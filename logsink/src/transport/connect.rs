//! TCP connections to an OTLP sink: straight, or through an HTTP proxy by its method `CONNECT`.
//!
//! gRPC and OTLP/HTTP both speak through what `CONNECT` opens, with or without TLS of their own, so the proxy sees neither
//! events nor credentials of a sink with TLS.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri};
use hyper_util::{
    client::{legacy::connect::HttpConnector, proxy::matcher::Matcher},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower_service::Service;

use crate::{ConfigError, config::Send, voice::say};

/// A host that does not answer a connection attempt for this long is taken for down.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The operating system finds out about a connection that died without a word.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A proxy's answer to `CONNECT` is a status line and some fields.
const ANSWER_BYTES_MAX: usize = 8 << 10;

pub(super) type BoxError = Box<dyn std::error::Error + std::marker::Send + Sync>;

/// Connects to one sink.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    proxy: Option<Proxy>,
}

#[derive(Clone)]
struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the authorization.
        f.debug_struct("Proxy").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Connector {
    /// Connects to `sink`, through the proxy that the settings or the environment name for it.
    ///
    /// # Errors
    /// When `send.proxy` is no URL of an HTTP proxy.
    pub(super) fn new(sink: &Uri, send: &Send) -> Result<Self, ConfigError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(TCP_KEEP_ALIVE));
        Ok(Self { tcp, proxy: Proxy::choose(sink, send)? })
    }
}

impl Proxy {
    fn choose(sink: &Uri, send: &Send) -> Result<Option<Self>, ConfigError> {
        if let Some(setting) = &send.proxy {
            if setting.0 == "none" {
                return Ok(None);
            }
            // The URL may hold a password: the error does not show it.
            let message = "is not the URL of an HTTP proxy: write `http://host:3128` or `none`".to_owned();
            let refuse = || ConfigError { field: "send.proxy".to_owned(), message };
            return Self::for_sink(Matcher::builder().all(setting.0.clone()).build(), sink)
                .ok_or_else(refuse)
                .map(Some);
        }
        // As in most programs, the proxy is for the outside: this machine is reached without.
        let host = sink.host().unwrap_or_default();
        if host == "localhost" || host == "[::1]" || host.starts_with("127.") {
            return Ok(None);
        }
        let env = &send.proxy_env;
        let matcher = Matcher::builder().http(env.http.clone()).https(env.https.clone()).all(env.all.clone());
        let matcher = matcher.no(env.no.clone()).build();
        let meant = matcher.intercept(sink).is_some();
        let proxy = Self::for_sink(matcher, sink);
        if meant && proxy.is_none() {
            // The variable is for all programs of the machine: no reason not to start.
            say("the proxy that the environment names is no HTTP proxy (`http://host:3128`): connecting without");
        }
        Ok(proxy)
    }

    fn for_sink(matcher: Matcher, sink: &Uri) -> Option<Self> {
        let proxy = matcher.intercept(sink)?;
        if proxy.uri().scheme_str() != Some("http") {
            return None;
        }
        Some(Self { uri: proxy.uri().clone(), authorization: proxy.basic_auth().cloned() })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + std::marker::Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, sink: Uri) -> Self::Future {
        let Some(proxy) = self.proxy.clone() else {
            let connecting = self.tcp.call(sink);
            return Box::pin(async { Ok(connecting.await?) });
        };
        let connecting = self.tcp.call(proxy.uri.clone());
        Box::pin(async move {
            let failed = |error: BoxError| -> BoxError {
                io::Error::other(format!("through the proxy {}: {}", authority(&proxy.uri), super::chain(&*error)))
                    .into()
            };
            let mut stream = connecting.await.map_err(|error| failed(error.into()))?.into_inner();
            let tunnel =
                tokio::time::timeout(CONNECT_TIMEOUT, tunnel(&mut stream, &sink, proxy.authorization.as_ref()));
            match tunnel.await {
                Ok(Ok(())) => Ok(TokioIo::new(stream)),
                Ok(Err(error)) => Err(failed(error.into())),
                Err(_) => Err(failed("it does not answer".into())),
            }
        })
    }
}

fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// Asks the proxy for a connection to the sink's host and port.
async fn tunnel(stream: &mut TcpStream, sink: &Uri, authorization: Option<&HeaderValue>) -> io::Result<()> {
    let host = sink.host().unwrap_or_default();
    let port = sink.port_u16().unwrap_or(if sink.scheme_str() == Some("https") { 443 } else { 80 });
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(value) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;

    // Byte by byte, because what follows the answer is the sink's: an HTTP/2 server speaks first.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(io::Error::other("it gave no answer to CONNECT that makes sense"));
        }
        answer.push(stream.read_u8().await?);
    }
    let status = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or_default();
    if code.starts_with('2') {
        return Ok(());
    }
    let status = status.escape_debug();
    Err(io::Error::other(match code {
        "407" => format!("it wants a user and a password, as in `http://user:password@host:3128`: {status}"),
        _ => format!("it does not connect to {host}:{port}: {status}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ProxyEnv, Secret};

    fn chosen(sink: &'static str, proxy: Option<&str>, env: ProxyEnv) -> Option<String> {
        let send = Send { proxy: proxy.map(|url| Secret(url.to_owned())), proxy_env: env, ..Send::default() };
        Proxy::choose(&Uri::from_static(sink), &send).unwrap().map(|proxy| authority(&proxy.uri).to_owned())
    }

    #[test]
    fn the_environment_s_proxies_are_chosen_as_other_programs_do() {
        let env = |http: &str, https: &str, all: &str, no: &str| {
            let [http, https, all, no] = [http, https, all, no].map(str::to_owned);
            ProxyEnv { http, https, all, no }
        };
        for (sink, env, expected) in [
            ("http://sink:4317", env("", "", "", ""), None),
            ("http://sink:4317", env("http://a:1", "http://b:2", "http://c:3", ""), Some("a:1")),
            ("https://sink:4317", env("http://a:1", "http://b:2", "http://c:3", ""), Some("b:2")),
            ("https://sink:4317", env("http://a:1", "", "c:3", ""), Some("c:3")),
            ("https://logs.corp.example/", env("", "http://b:2", "", "other,.corp.example"), None),
            ("https://10.1.2.3:4317/", env("", "http://b:2", "", "10.0.0.0/8"), None),
            ("https://sink:4317", env("", "http://b:2", "", "*"), None),
            ("http://127.0.0.1:4317", env("http://a:1", "", "", ""), None),
            ("http://localhost:4317", env("http://a:1", "", "", ""), None),
            ("http://sink:4317", env("socks5://a:1", "", "", ""), None),
        ] {
            assert_eq!(chosen(sink, None, env.clone()).as_deref(), expected, "{sink} {env:?}");
        }
        let all = env("http://a:1", "http://a:1", "http://a:1", "");
        assert_eq!(chosen("http://sink:4317", Some("none"), all.clone()), None);
        assert_eq!(chosen("http://127.0.0.1:4317", Some("http://own:9"), all).as_deref(), Some("own:9"));
    }

    #[test]
    fn a_proxy_s_password_is_shown_nowhere() {
        let url = "http://user:hunter2@proxy:3128";
        let send = Send { proxy: Some(Secret(url.to_owned())), ..Send::default() };
        let connector = Connector::new(&Uri::from_static("http://sink:4317"), &send).unwrap();
        // `user:hunter2` in base64.
        assert_eq!(connector.proxy.as_ref().unwrap().authorization.as_ref().unwrap(), "Basic dXNlcjpodW50ZXIy");
        let env = Send { proxy_env: ProxyEnv { all: url.to_owned(), ..ProxyEnv::default() }, ..Send::default() };
        for shown in [format!("{connector:?}"), format!("{send:?}"), format!("{env:?}")] {
            assert!(!shown.contains("hunter2") && !shown.contains("dXNlcjp"), "{shown}");
        }
        let send = Send { proxy: Some(Secret("socks5://user:hunter2@proxy".to_owned())), ..Send::default() };
        let error = Connector::new(&Uri::from_static("http://sink:4317"), &send).unwrap_err();
        assert_eq!(
            error.to_string(),
            "send.proxy: is not the URL of an HTTP proxy: write `http://host:3128` or `none`"
        );
    }
}
