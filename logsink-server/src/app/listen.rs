//! The listeners: opened first, so that a port in use is said before anything else happens, and served last.

use std::{fs, future::IntoFuture, net::SocketAddr, path::Path, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use super::tls::{Certificates, TlsListener};
use crate::{
    config::{Config, Role},
    error::Error,
};

/// Calls under way in one gRPC connection. A client sends a few batches at a time; a proxy in front of many sends more.
const STREAMS_MAX: u32 = 256;
/// How often an idle gRPC connection is asked whether its peer is still there.
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

/// Serves HTTP/1.1 and HTTP/2 until `closing`, then lets requests under way finish.
pub(super) async fn serve_http(
    listener: TcpListener,
    address: SocketAddr,
    certificates: Option<Certificates>,
    router: Router,
    closing: watch::Receiver<bool>,
) -> Result<(), Error> {
    let closing = until(closing);
    let served = match &certificates {
        Some(certificates) => {
            let listener = TlsListener::new(listener, address, certificates);
            axum::serve(listener, router).with_graceful_shutdown(closing).into_future().await
        }
        None => axum::serve(listener, router).with_graceful_shutdown(closing).into_future().await,
    };
    served.map_err(|error| Error::step("http", error))
}

/// Serves gRPC until `closing`, then lets calls under way finish.
pub(super) async fn serve_grpc(
    listener: TcpListener,
    certificates: Option<Certificates>,
    routes: Routes,
    closing: watch::Receiver<bool>,
) -> Result<(), Error> {
    let wrong = |error: tonic::transport::Error| Error::step("grpc", error);
    let mut server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    if let Some(certificates) = certificates {
        server = server.tls_config(certificates.grpc).map_err(wrong)?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.add_routes(routes).serve_with_incoming_shutdown(incoming, until(closing)).await.map_err(wrong)
}

async fn until(mut closing: watch::Receiver<bool>) {
    // An error means that the sender is gone: the server is ending, too.
    let _ = closing.wait_for(|closing| *closing).await;
}
