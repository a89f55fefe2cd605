//! The listeners: opened first, so that a port in use is said before anything else happens, and served last.

use std::{convert::Infallible, fs, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use axum::{BoxError, body::HttpBody};
use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    connections::{Connection, Connections, Door},
    tls::Certificates,
};
use crate::{
    config::{Config, Role},
    error::Error,
};

/// Connections of one listener at a time where the settings do not say: a client has one or two, and a fleet of thousands has
/// several servers.
const CONNECTIONS_MAX: usize = 4_096;
/// The part of the files that the process may have open that is for the connections of one listener; as much again is for the
/// other one, and the rest for stores and clients.
const CONNECTIONS_PART: usize = 3;
/// How long a client may take to send the head of a request over HTTP/1, and how long a connection is kept for its next one: a
/// head is one packet or two, but senders and scrapers come every 15 s or more often, and one whose connection is closed just
/// as it sends has to send again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A frame of HTTP/2, which is 16 KiB unless told: most requests come in one, and are passed on as they lie in the buffer that it
/// was read into. A connection's window, 1 MiB, lets its client fill as much in any case.
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// Calls under way in one connection of HTTP/2. A client sends a few batches at a time; a proxy in front of many sends more.
const STREAMS_MAX: u32 = 256;
/// How often an idle connection of HTTP/2 is asked whether its peer is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the peer may take to answer that.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Open, and not served yet.
pub(super) struct Listeners {
    /// None without the role ingest.
    pub(super) grpc: Option<TcpListener>,
    pub(super) http: TcpListener,
    pub(super) addresses: Addresses,
    /// None: without TLS.
    pub(super) certificates: Option<Certificates>,
}

/// Where the server listens, with the ports that the system chose for port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// OTLP over gRPC; none without the role ingest.
    pub grpc: Option<SocketAddr>,
    /// Everything over HTTP.
    pub http: SocketAddr,
}

impl Listeners {
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        let certificates = config.tls.as_ref().map(Certificates::read).transpose()?;
        let (http, http_address) = bind(config.listen_http(), "listen.http").await?;
        let grpc = match config.has(Role::Ingest) {
            true => Some(bind(config.listen_grpc(), "listen.grpc").await?),
            false => None,
        };
        let addresses = Addresses { grpc: grpc.as_ref().map(|(_, address)| *address), http: http_address };
        Ok(Self { grpc: grpc.map(|(listener, _)| listener), http, addresses, certificates })
    }
}

impl Addresses {
    /// Writes `grpc=ADDRESS` and `http=ADDRESS` lines for programs that started the server with port 0. The file appears
    /// whole.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let grpc = self.grpc.map(|grpc| format!("grpc={grpc}\n")).unwrap_or_default();
        let text = format!("{grpc}http={}\n", self.http);
        let new = path.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
        written.map_err(|source| Error::File { action: "write to", path: path.into(), source })
    }
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let wrong = |source| Error::Listen { address, setting, source };
    let listener = TcpListener::bind(address).await.map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    Ok((listener, address))
}

/// How many connections a listener has at a time.
pub(super) fn connections_max(config: &Config) -> usize {
    let by_files = || files_max().map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min(files / CONNECTIONS_PART));
    config.listen.connections_max.unwrap_or_else(by_files).max(1)
}

/// How many files this process may have open; none where the system sets no bound or does not say.
fn files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    files.split_whitespace().next()?.parse().ok()
}

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// gRPC: HTTP/2 alone.
    Grpc,
}

/// Serves a listener until `closing`, then lets requests under way finish.
pub(super) async fn serve<S, B>(
    listener: TcpListener,
    speaks: Speaks,
    tls: Option<Arc<ServerConfig>>,
    door: Door,
    service: S,
    closing: watch::Receiver<bool>,
) -> Result<(), Error>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES_MAX);
    let builder = if speaks == Speaks::Grpc { builder.http2_only() } else { builder };
    let served = Arc::new(Served { builder, service: Arc::new(service), door: door.clone() });
    let mut connections = Connections::new(listener, tls, door);
    // Those that are still open when this is dropped are cut off.
    let mut open = JoinSet::new();
    let mut stop = pin!(until(closing.clone()));
    loop {
        tokio::select! {
            connection = connections.next() => drop(open.spawn(Arc::clone(&served).serve(connection, closing.clone()))),
            // A handler that panics has said so.
            Some(_) = open.join_next() => {}
            () = &mut stop => break,
        }
    }
    drop(connections);
    while open.join_next().await.is_some() {}
    Ok(())
}

/// What is served, and how.
struct Served<S> {
    builder: auto::Builder<TokioExecutor>,
    service: Arc<S>,
    door: Door,
}

impl<S, B> Served<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn serve(self: Arc<Self>, connection: Connection, closing: watch::Receiver<bool>) {
        let mut served = pin!(self.builder.serve_connection(TokioIo::new(connection), Arc::clone(&self.service)));
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = until(closing) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            // The time-outs of the connection itself have been counted.
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
                self.door.late.inc();
            }
            tracing::debug!(error, "a connection has failed");
        }
    }
}

async fn until(mut closing: watch::Receiver<bool>) {
    // An error means that the sender is gone: the server is ending, too.
    let _ = closing.wait_for(|closing| *closing).await;
}
