//! The connections of a listener: how many there are at a time, TLS where it is wanted, and how long a client may say nothing.
//!
//! Each connection has a place, of which a listener has a fixed number. When all are taken, a further client is accepted and
//! closed at once, and counted: one that knows of other servers goes there, instead of waiting in the system's queue for an
//! answer that does not come. A client that does not finish its TLS handshake, does not begin to speak or stops reading what it
//! asked for loses its place.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::metrics::Metrics;

/// A client that has not finished its TLS handshake by then is not going to.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to say which protocol it speaks, once it is connected. Clients send that at once; a
/// connection that is opened in advance and used later than that is opened anew.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take none of the bytes that wait for it: a page in a browser that was suspended, at most.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that wait to be taken: enough that handshakes go on while one is being set up.
const READY_MAX: usize = 64;
/// After an error of `accept` such as "too many open files": time for some to be closed.
const ACCEPT_DELAY: Duration = Duration::from_millis(200);
/// That all places are taken is logged so often at most.
const FULL_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One of the two listeners, with its bound and its counters.
#[derive(Debug, Clone)]
pub(super) struct Door {
    name: &'static str,
    connections_max: usize,
    /// Connections that have a place.
    open: Gauge,
    full: Counter,
    handshake: Counter,
    /// Those whose client was too slow.
    pub(super) late: Counter,
    /// [`STALL_TIMEOUT`]; tests have less patience.
    stall_timeout: Duration,
}

impl Door {
    pub(super) fn new(name: &'static str, connections_max: usize, metrics: &Metrics) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        let closed = |reason| metrics.connections_closed(name, reason);
        let (full, handshake, late) = (closed("full"), closed("handshake"), closed("late"));
        Self {
            name,
            connections_max,
            open: metrics.connections(name),
            full,
            handshake,
            late,
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

/// Those that are ready to be served.
pub(super) struct Connections {
    ready: mpsc::Receiver<Connection>,
    accepting: AbortHandle,
}

/// One of them. Its place is free again when this is dropped.
pub(super) struct Connection {
    stream: Plain,
    /// None once the client has begun.
    beginning: Option<Beginning>,
    /// Set while bytes wait that the client does not take.
    stalled: Option<Pin<Box<Sleep>>>,
    stall_timeout: Duration,
    late: Counter,
    peer: SocketAddr,
    _place: Place,
}

/// The bytes of a connection, without TLS.
enum Plain {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

struct Place {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

/// Until it is known which protocol a client speaks.
struct Beginning {
    /// Bytes read so far, all of them those of [`PREFACE`].
    seen: usize,
    deadline: Pin<Box<Sleep>>,
}

// === impl Connections ===

impl Connections {
    /// Accepts connections from now on, with TLS where there is a configuration for it.
    pub(super) fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>, door: Door) -> Self {
        let (sender, ready) = mpsc::channel(READY_MAX);
        let accepting = tokio::spawn(accept(listener, tls.map(TlsAcceptor::from), door, sender)).abort_handle();
        Self { ready, accepting }
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Connection {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task ends only with this.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, door: Door, ready: mpsc::Sender<Connection>) {
    let places = Arc::new(Semaphore::new(door.connections_max));
    let mut full_logged = None::<Instant>;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_DELAY).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
            door.full.inc();
            if full_logged.is_none_or(|logged| logged.elapsed() > FULL_LOGGED_EVERY) {
                full_logged = Some(Instant::now());
                let Door { name, connections_max, .. } = door;
                tracing::warn!(door = name, connections_max, "as many connections as may be: closing further ones");
            }
            continue;
        };
        door.open.inc();
        let place = Place { open: door.open.clone(), _permit: permit };
        // Answers are written whole: there is nothing to wait for. Fails only for a connection that is gone.
        let _ = stream.set_nodelay(true);
        let (late, stall_timeout) = (door.late.clone(), door.stall_timeout);
        let connection = move |stream| Connection {
            stream,
            beginning: Some(Beginning { seen: 0, deadline: Box::pin(sleep(BEGIN_TIMEOUT)) }),
            stalled: None,
            stall_timeout,
            late,
            peer,
            _place: place,
        };
        // Sending fails only when the receiver is gone: the server is stopping.
        match &tls {
            None => drop(ready.send(connection(Plain::Tcp(stream))).await),
            Some(tls) => {
                let (handshake, ready, failed) = (tls.accept(stream), ready.clone(), door.handshake.clone());
                // Beside each other: a slow client holds up nobody.
                tokio::spawn(async move {
                    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                        Ok(Ok(stream)) => return drop(ready.send(connection(Plain::Tls(Box::new(stream)))).await),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                    failed.inc();
                });
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

// === impl Connection ===

impl Connection {
    /// After a write: none may wait for too long.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.stall_timeout)));
        ready!(deadline.as_mut().poll(context));
        self.too_late("takes none of what it asked for")
    }

    #[cold]
    fn too_late<T>(&self, what: &'static str) -> Poll<io::Result<T>> {
        self.late.inc();
        tracing::debug!(peer = %self.peer, "closing a connection whose client {what}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }
}

/// Whether it is known what a client speaks, after these further bytes. What is not [`PREFACE`] is a request of HTTP/1, which has
/// a deadline of its own, or is refused.
fn has_begun(seen: &mut usize, read: &[u8]) -> bool {
    let wanted = &PREFACE[*seen..];
    let read = &read[..read.len().min(wanted.len())];
    *seen += read.len();
    *seen == PREFACE.len() || !wanted.starts_with(read)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = this.stream.poll_read(context, buffer);
        let Some(beginning) = &mut this.beginning else { return read };
        if read.is_pending() {
            ready!(beginning.deadline.as_mut().poll(context));
            return this.too_late("does not begin");
        }
        if has_begun(&mut beginning.seen, &buffer.filled()[before..]) {
            this.beginning = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream.poll_write(context, bytes);
        this.written(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream.poll_write_vectored(context, bytes);
        this.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Plain::Tcp(stream) => stream.is_write_vectored(),
            Plain::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.stream.poll_flush(context).map_ok(|()| 0);
        this.written(context, flushed).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = this.stream.poll_shutdown(context).map_ok(|()| 0);
        this.written(context, shut).map_ok(drop)
    }
}

impl Plain {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(&mut self, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const STALL: Duration = Duration::from_secs(2);

    /// A door with less patience, and the connection of a client that has said something.
    async fn connection() -> (Door, Connection, TcpStream) {
        let door = Door { stall_timeout: STALL, ..Door::new("http", 1, &Metrics::new()) };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let connection = Connections::new(listener, None, door.clone()).next().await;
        (door, connection, client)
    }

    #[tokio::test]
    async fn who_takes_none_of_an_answer_loses_the_connection() {
        let (door, mut connection, _client) = connection().await;
        let start = Instant::now();
        let ended = loop {
            if let Err(error) = connection.write_all(&[0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!((ended.kind(), door.late.get()), (io::ErrorKind::TimedOut, 1));
        assert!(start.elapsed() >= STALL);
        assert_eq!(door.open.get(), 1);
        drop(connection);
        assert_eq!(door.open.get(), 0, "its place is free");
    }

    #[tokio::test]
    async fn who_takes_an_answer_slowly_keeps_the_connection() {
        const PARTS: usize = 8;
        const PART_BYTES: usize = 4 << 20;
        let (door, mut connection, mut client) = connection().await;
        let reader = tokio::spawn(async move {
            let mut part = vec![0; PART_BYTES];
            for _ in 0..PARTS {
                sleep(STALL / 4).await;
                client.read_exact(&mut part).await.unwrap();
            }
        });
        let start = Instant::now();
        for _ in 0..PARTS {
            connection.write_all(&[0; PART_BYTES]).await.unwrap();
        }
        reader.await.unwrap();
        assert!(start.elapsed() > STALL, "longer than who takes nothing may");
        assert_eq!(door.late.get(), 0);
    }

    #[test]
    fn a_client_has_begun_when_it_is_known_what_it_speaks() {
        for (pieces, is_over) in [
            (&["G"][..], true),
            // As in POST.
            (&["P"], false),
            (&["P", "O"], true),
            (&["PRI * HTTP/2.0\r\n", "\r\nSM\r\n\r"], false),
            (&["PRI * HTTP/2.0\r\n", "\r\nSM\r\n\r", "\n"], true),
            (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more"], true),
            (&["PRI * HTTP/1.1\r\n"], true),
        ] {
            let mut seen = 0;
            let (last, first) = pieces.split_last().unwrap();
            assert!(first.iter().all(|piece| !has_begun(&mut seen, piece.as_bytes())), "{pieces:?}");
            assert_eq!(has_begun(&mut seen, last.as_bytes()), is_over, "{pieces:?}");
        }
    }
}
