//! The connection below HTTP: TCP, with TLS where the URL says `https`.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tower_service::Service;

use crate::{
    ConfigError,
    config::Tls,
    transport::{
        connect::{BoxError, CONNECT_TIMEOUT, Connector},
        tls,
    },
};

/// Connects to the one sink that it is for.
#[derive(Clone)]
pub(super) struct TlsOrNot {
    connector: Connector,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for TlsOrNot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsOrNot").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl TlsOrNot {
    pub(super) fn new(connector: Connector, sink: &Uri, settings: &Tls) -> Result<Self, ConfigError> {
        if sink.scheme_str() != Some("https") {
            return Ok(Self { connector, tls: None });
        }
        let host = sink.host().unwrap_or_default().trim_matches(['[', ']']);
        let (field, name) =
            settings.server_name.as_deref().map_or(("endpoint", host), |name| ("tls.server_name", name));
        let server = ServerName::try_from(name.to_owned()).map_err(|_| ConfigError {
            field: field.to_owned(),
            message: format!("`{name}` is not a name that a certificate can have"),
        })?;
        Ok(Self { connector, tls: Some((tls::connector(settings)?, server)) })
    }
}

impl Service<Uri> for TlsOrNot {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, sink: Uri) -> Self::Future {
        let connecting = self.connector.call(sink);
        let tls = self.tls.clone();
        Box::pin(async move {
            let tcp: TcpStream = connecting.await?.into_inner();
            let Some((tls, server)) = tls else { return Ok(Stream(TokioIo::new(Box::new(tcp)))) };
            let shaken = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(server, tcp)).await;
            let stream = shaken.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS took too long"))??;
            Ok(Stream(TokioIo::new(Box::new(stream))))
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of either kind.
pub(super) struct Stream(TokioIo<Box<dyn Io>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }
}
