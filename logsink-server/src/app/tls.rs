//! TLS of the listeners: certificates read once at start, so that a bad file is said then, by its setting.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use logsink::ConfigError;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::{config::Tls, error::Error};

/// A client that has not finished its TLS handshake by then is not going to.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Finished handshakes that wait to be taken: enough that handshakes go on while a connection is being set up.
const HANDSHAKEN_MAX: usize = 64;
/// After an error of `accept` such as "too many open files": time for some to be closed.
const ACCEPT_DELAY: Duration = Duration::from_millis(200);

/// What both listeners need, read from the files.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) grpc: ServerTlsConfig,
    http: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads and checks the files.
    pub(super) fn read(tls: &Tls) -> Result<Self, Error> {
        let mut http = server_config(tls)?;
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let grpc = ServerTlsConfig::new()
            .identity(Identity::from_pem(read("tls.cert", &tls.cert)?, read("tls.key", &tls.key)?))
            .timeout(HANDSHAKE_TIMEOUT);
        let grpc = match &tls.client_ca {
            Some(path) => grpc.client_ca_root(Certificate::from_pem(read("tls.client_ca", path)?)),
            None => grpc,
        };
        Ok(Self { grpc, http: Arc::new(http) })
    }
}

fn read(field: &str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(field, path, &error))
}

fn unusable(field: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    ConfigError { field: field.into(), message: format!("{}: {error}", path.display()) }.into()
}

fn server_config(tls: &Tls) -> Result<ServerConfig, Error> {
    let chain = certificates("tls.cert", &tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable("tls.key", &tls.key, &"there is no private key in it"),
        error => unusable("tls.key", &tls.key, &error),
    })?;
    let builder = ServerConfig::builder();
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| unusable("tls.client_ca", path, error);
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.client_ca", path)? {
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|error| wrong(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| unusable("tls.key", &tls.key, &error))
}

fn certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error: &dyn std::fmt::Display| unusable(field, path, error);
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    if certificates.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(certificates) }
}

/// A listener for `axum::serve` whose connections speak TLS. Handshakes run beside each other: a slow client holds up
/// nobody.
pub(super) struct TlsListener {
    handshaken: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: AbortHandle,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, address: SocketAddr, certificates: &Certificates) -> Self {
        let (sender, handshaken) = mpsc::channel(HANDSHAKEN_MAX);
        let acceptor = TlsAcceptor::from(certificates.http.clone());
        let accepting = tokio::spawn(accept(listener, acceptor, sender)).abort_handle();
        Self { handshaken, address, accepting }
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshaken: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_DELAY).await;
                continue;
            }
        };
        let (acceptor, handshaken) = (acceptor.clone(), handshaken.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // Fails only when the listener is gone: the server is stopping.
                Ok(Ok(stream)) => drop(handshaken.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.handshaken.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only with the listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
