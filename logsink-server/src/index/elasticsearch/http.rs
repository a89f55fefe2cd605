//! Requests through the official client's transport, one for each node: login, TLS, a path in front. Which node is asked
//! is decided in [`super::nodes`].

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use elasticsearch::http::{
    Method,
    headers::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
    transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
};
use reqwest::Url;
use tokio::sync::OnceCell;

use super::{
    ElasticsearchOptions, Failed, IndexError, address, bulk,
    compress::{self, Compression, Compressor, Encoding},
    limit::Took,
    nodes::{Asked, Nodes, Sign},
    pool::Pool,
};
use crate::{compute::compute, metrics::Metrics};

/// The longest pause that a `Retry-After` can ask for: a proxy's typing error should not stop the line for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why a request is tried again that was never sent: no connection came about.
pub(super) const UNREACHED: &str = "unreached";

/// Why a request is tried again of which nobody knows what became: the connection broke.
const BROKEN: &str = "connection";

pub(super) struct Client {
    pub(super) nodes: Arc<Nodes>,
    transports: Vec<Node>,
    compression: Compression,
    compressor: Compressor,
    /// Memory for compressed bodies.
    compressed: Pool<Vec<u8>>,
}

struct Node {
    transport: Transport,
    url: Url,
    /// How its bodies are compressed; known once its address is.
    encoding: OnceCell<Option<Encoding>>,
    /// It does not decode: it gets plain bodies.
    is_plain: AtomicBool,
}

/// Status and body, whatever the status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
}

impl Client {
    pub(super) fn new(options: &ElasticsearchOptions, metrics: Arc<Metrics>) -> Result<Self, IndexError> {
        let (urls, auth) = address::nodes(options)?;
        let credentials = address::credentials(auth)?;
        let transport = |url: &Url| {
            let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url.clone()))
                // The cluster is a neighbour: a proxy meant for the outside must not see the logs.
                .disable_proxy()
                .timeout(options.timeout);
            if let Some(credentials) = &credentials {
                builder = builder.auth(credentials.clone());
            }
            if let Some(path) = &options.ca {
                builder = builder.cert_validation(address::authorities(path)?);
            }
            builder.build().map_err(|error| IndexError::Failed(format!("elasticsearch: {error}")))
        };
        let nodes = Nodes::new(
            urls.iter().map(address::name),
            options.requests_max,
            options.request_bytes_max,
            metrics.clone(),
        );
        let node = |url: Url| {
            Ok(Node { transport: transport(&url)?, url, encoding: OnceCell::new(), is_plain: AtomicBool::new(false) })
        };
        let transports = urls.into_iter().map(node).collect::<Result<_, IndexError>>()?;
        // What is compressed is half of the body at most.
        let compressed = Pool::new(options.body_bytes_max / 2, metrics);
        Ok(Self { nodes, transports, compression: options.compression, compressor: Compressor::default(), compressed })
    }

    /// One request to one node; to the next when a node cannot be connected to. What only reads is asked once more when the
    /// connection breaks: a node may close an idle one at the moment it is used again.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        content_type: &'static str,
        timeout: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let (mut others, mut may_repeat) = (self.transports.len() - 1, only_reads(method, path));
        loop {
            let (node, sent_at) = (self.nodes.any(), Instant::now());
            let headers = headers(content_type);
            let answer = self.transports[node].send(method, path, headers, query, body.clone(), timeout).await;
            let is_well = answer.as_ref().is_ok_and(|answer| !matches!(answer.status, 502..=504));
            self.nodes.sign(node, Asked::Question, if is_well { Sign::Well } else { Sign::Failed }, sent_at);
            match answer {
                Err(Failed::Retry { reason: UNREACHED, .. }) if others > 0 => others -= 1,
                Err(Failed::Retry { reason: BROKEN, .. }) if may_repeat => may_repeat = false,
                answer => return answer,
            }
        }
    }

    /// One `_bulk`, once, when a node has room for it; `judge` says what the answer means. Counts for the node.
    pub(super) async fn bulk<T>(
        &self,
        path: &str,
        body: Bytes,
        judge: impl FnOnce(Result<Answer, Failed>) -> (T, Option<Took>, Sign),
    ) -> T {
        let place = self.nodes.place(body.len()).await;
        let node = &self.transports[place.node()];
        let query = [("filter_path", bulk::FILTER_PATH)];
        let encoding = node.encoding(self.compression).await.filter(|_| !node.is_plain.load(Relaxed));
        let compressed = match encoding {
            Some(encoding) => self.compressed(node, path, &query, encoding, &body).await,
            None => Compressed::NotWorth,
        };
        let plain = || node.send(Method::Post, path, headers("application/x-ndjson"), &query, Some(body), None);
        let answer = match compressed {
            Compressed::Answered(answer) => answer,
            Compressed::NotWorth => plain().await,
            Compressed::Refused => {
                let answer = plain().await;
                // What is refused compressed and taken plain was not read.
                if answer.as_ref().is_ok_and(|answer| answer.status == 200) && !node.is_plain.swap(true, Relaxed) {
                    let (node, encoding) = (address::name(&node.url), encoding.map_or("", Encoding::name));
                    tracing::warn!(node, encoding, "the node does not decode bodies: it gets them plain from now on");
                }
                answer
            }
        };
        let (judged, took, sign) = judge(answer);
        place.answered(took, sign);
        judged
    }
}

impl Client {
    async fn compressed(
        &self,
        node: &Node,
        path: &str,
        query: &[(&str, &str)],
        encoding: Encoding,
        body: &Bytes,
    ) -> Compressed {
        let (lease, mut out) = self.compressed.take(compress::bound(body.len())).await;
        out.clear();
        if !compute(|| self.compressor.compress(encoding, body, &mut out)).await {
            self.compressed.give(lease, out);
            return Compressed::NotWorth;
        }
        let out = Bytes::from(out);
        let mut headers = headers("application/x-ndjson");
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        let answer = node.send(Method::Post, path, headers, query, Some(out.clone()), None).await;
        // Nobody else has it any more, unless the request was given up half way.
        self.compressed.give(lease, out.try_into_mut().map(Vec::from).unwrap_or_default());
        // The one status means that the encoding is unknown, the other that the body was read as it came.
        match answer {
            Ok(Answer { status: 400 | 415, .. }) => Compressed::Refused,
            answer => Compressed::Answered(answer),
        }
    }
}

/// What became of a body that should be compressed.
enum Compressed {
    /// It does not compress.
    NotWorth,
    /// Perhaps because it is compressed.
    Refused,
    Answered(Result<Answer, Failed>),
}

/// Searches do, too, though they are posted.
fn only_reads(method: Method, path: &str) -> bool {
    matches!(method, Method::Get | Method::Head) || path.ends_with("/_search")
}

fn headers(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers
}

impl Node {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let answer = self.transport.send(method, path, headers, Some(query), body, timeout).await;
        let answer = answer.map_err(|error| disconnected(&error))?;
        let status = answer.status_code().as_u16();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        // A reset in the middle of the answer, too, leaves unknown what the server did.
        let body = answer.bytes().await.map_err(|error| disconnected(&error))?;
        Ok(Answer { status, body, retry_after })
    }

    /// How to compress what goes to this node. Asks once where that is; while its name has no address, requests fail anyway.
    async fn encoding(&self, compression: Compression) -> Option<Encoding> {
        let ask = || async {
            let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let port = self.url.port_or_known_default().unwrap_or_default();
            let addresses: Vec<IpAddr> = match compression {
                Compression::Auto => tokio::net::lookup_host((host, port)).await?.map(|address| address.ip()).collect(),
                _ => Vec::new(),
            };
            Ok::<_, std::io::Error>(compression.encoding(&addresses))
        };
        match self.encoding.get_or_try_init(ask).await {
            Ok(encoding) => *encoding,
            Err(error) => {
                tracing::debug!(node = address::name(&self.url), %error, "cannot look up a node");
                None
            }
        }
    }
}

impl Answer {
    /// The body of a good answer.
    pub(super) fn ok(self) -> Result<Bytes, Failed> {
        let message = || format!("{}: {}", self.status, bulk::excerpt(&self.body));
        match self.status {
            200..=299 => Ok(self.body),
            400 => Err(Failed::BadRequest { message: message() }),
            408 | 429 | 500..=599 => {
                Err(Failed::Retry { reason: "unavailable", message: message(), after: self.retry_after })
            }
            _ => Err(Failed::Stop { message: message() }),
        }
    }
}

fn disconnected(error: &elasticsearch::Error) -> Failed {
    let http = std::error::Error::source(error).and_then(|source| source.downcast_ref::<reqwest::Error>());
    let reason = match http {
        Some(http) if http.is_connect() => UNREACHED,
        _ if error.is_timeout() => "timeout",
        _ => BROKEN,
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    Failed::retry(reason, message)
}
