//! Clients that connect and do not get on with it, by raw sockets: none of them has a connection for ever.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use logsink_tests::{Server, http, tls::Authority, until};

/// The longest time-out of a door is 20 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two bytes of a slow client.
const SLOWLY: Duration = Duration::from_millis(250);

/// `host:port` of a URL.
fn address(url: &str) -> String {
    url.split("://").nth(1).expect("a URL").to_owned()
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it connects");
    socket.set_read_timeout(Some(SLOWLY)).expect("a time-out");
    socket
}

/// Sends these bytes one by one, and nothing after them, until the server closes the connection. Returns what it said.
fn until_closed(mut socket: TcpStream, mut bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let (start, mut said) = (Instant::now(), Vec::new());
    while start.elapsed() < PATIENCE {
        if let Some(byte) = bytes.next()
            && socket.write_all(&[byte]).is_err()
        {
            return said;
        }
        let mut part = [0; 1_024];
        match socket.read(&mut part) {
            Ok(0) => return said,
            Ok(len) => said.extend_from_slice(&part[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return said,
        }
    }
    panic!("the server still has the connection after {PATIENCE:?}");
}

/// Bytes of a head that never ends.
fn endless(start: &str) -> impl Iterator<Item = u8> + use<> {
    start.to_owned().into_bytes().into_iter().chain(std::iter::repeat(b'a'))
}

#[test]
fn clients_that_do_not_get_on_with_it_lose_their_connections() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let plain = Server::standalone(dirs[0].path());
    let secure = Server::secure(dirs[1].path(), &Authority::new(dirs[1].path(), "doors"), None);
    let (http, grpc) = (address(&plain.http_url("")), address(&plain.grpc_url()));
    thread::scope(|scope| {
        let client = |address: &str, bytes: Box<dyn Iterator<Item = u8> + Send>| {
            let socket = connect(address);
            scope.spawn(move || until_closed(socket, bytes));
        };
        // Nothing at all; what looks like HTTP/2, or like a TLS handshake, up to there.
        for address in [&http, &grpc, &address(&secure.http_url("")), &address(&secure.grpc_url())] {
            client(address, Box::new(std::iter::empty()));
            client(address, Box::new(b"PRI * HTTP/2.0\r\n\r\nSM".iter().copied()));
            client(address, Box::new(b"\x16\x03\x01\x02\x00\x01\x00\x01".iter().copied()));
        }
        // Heads that do not end, of a first request and of a second one.
        client(&http, Box::new(endless("POST /v1/logs HTTP/1.1\r\nhost: here\r\nx-long: ")));
        client(&http, Box::new(endless("GET /livez HTTP/1.1\r\nhost: here\r\n\r\nGET /livez HTTP/1.1\r\nx-long: ")));
        // Kept, and not used again.
        let mut kept = connect(&http);
        kept.write_all(b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        let said = until_closed(kept, std::iter::empty());
        assert!(said.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&said));
    });
    let count = |line: &str| plain.counter(&format!("logsink_connections{line}"));
    let late = |door: &str| count(&format!("_closed_total{{door=\"{door}\",reason=\"late\"}}"));
    // Those that are nonsense are refused rather than late.
    assert!(late("http") >= 4 && late("grpc") >= 2, "{}", http::get(&plain.http_url("/metrics")).unwrap().body);
    until("all are closed", PATIENCE, || match count("{door=\"grpc\"}") {
        0 => Ok(()),
        open => Err(format!("{open} are open")),
    });
}

#[test]
fn a_door_with_as_many_connections_as_may_be_closes_further_ones_at_once() {
    const MAX: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::configured(dir.path(), &format!("[listen]\nconnections_max = {MAX}\n"));
    let grpc = address(&server.grpc_url());
    // Each says what it speaks, so that it is an idle client and nothing is the matter with it.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let idle = || {
        let mut socket = connect(&grpc);
        socket.write_all(preface).unwrap();
        let mut settings = [0; 9];
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.read_exact(&mut settings).map(|()| socket)
    };
    let mut open: Vec<_> = (0..MAX).map(|_| idle().expect("there is room")).collect();
    assert!(until_closed(connect(&grpc), std::iter::empty()).is_empty());
    // The other door is open, and shows it.
    let full = "logsink_connections_closed_total{door=\"grpc\",reason=\"full\"}";
    assert_eq!(server.counter(full), 1);
    assert_eq!(server.counter("logsink_connections{door=\"grpc\"}"), MAX as u64);
    open.pop();
    until("its place is free", PATIENCE, || idle().map(drop).map_err(|error| error.to_string()));
    assert!(server.stderr().contains("as many connections as may be"), "{}", server.stderr());
}
