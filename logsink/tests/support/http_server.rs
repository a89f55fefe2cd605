//! A real OTLP/HTTP server on the loopback that keeps what it takes and answers as told; and a real HTTP proxy.
//!
//! Both run on threads of their own, where nothing is traced.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;
use tracing_subscriber::layer::SubscriberExt;

/// How the server answers one call.
#[derive(Clone)]
pub(crate) enum Answer {
    Take,
    TakeInPart(i64),
    /// Takes it, and its answer has no end.
    TakeWithoutEnd,
    /// A status, and what to wait for.
    Refuse(u16, Option<String>),
}

/// One call.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Decompressed.
    pub(crate) request: ExportLogsServiceRequest,
    pub(crate) taken: bool,
}

#[derive(Default)]
struct Shared {
    calls: Vec<Call>,
    answers: VecDeque<Answer>,
    body_bytes_max: Option<usize>,
    encodings: Vec<&'static str>,
    token: Option<String>,
}

pub(crate) struct HttpServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// A server on a free port that takes gzip and zstd.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let shared = Arc::new(Mutex::new(Shared { encodings: vec!["gzip", "zstd"], ..Shared::default() }));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, started) = mpsc::channel();
        let router = Router::new().fallback(export).with_state(shared.clone());
        let thread = thread::Builder::new().name("http-server".to_owned()).spawn(move || {
            let silent = tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::OFF);
            let _silent = tracing::subscriber::set_default(silent);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                // Ends at once, as a killed process does: connections break.
                tokio::select! {
                    result = axum::serve(listener, router) => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let address = started.recv().unwrap();
        Self { address, shared, stop: Some(stop), thread: Some(thread.unwrap()) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("otlphttp://{}", self.address)
    }

    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.lock().unwrap().answers.extend(answers);
    }

    /// Larger bodies, decompressed, are answered 413.
    pub(crate) fn set_body_bytes_max(&self, bytes: usize) {
        self.shared.lock().unwrap().body_bytes_max = Some(bytes);
    }

    /// Other encodings are answered 415.
    pub(crate) fn set_encodings(&self, encodings: &[&'static str]) {
        self.shared.lock().unwrap().encodings = encodings.to_vec();
    }

    /// Calls without this token are answered 401.
    pub(crate) fn set_token(&self, token: &str) {
        self.shared.lock().unwrap().token = Some(token.to_owned());
    }

    /// All calls, refused ones included.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().unwrap().calls.clone()
    }

    /// The field `n` of all records that were taken, sorted.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        let mut numbers: Vec<_> = self
            .calls()
            .iter()
            .filter(|call| call.taken)
            .flat_map(|call| crate::otlp_server::records(&call.request))
            .filter_map(|record| crate::otlp_server::number(&record.attributes))
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Ends as a killed process does.
    pub(crate) fn stop(mut self) -> Vec<i64> {
        self.end();
        self.numbers()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end();
    }
}

async fn export(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 16 << 20).await.unwrap();
    let encoding = head.headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap().to_owned());
    let mut shared = shared.lock().unwrap();
    let body = match encoding.as_deref() {
        None => body,
        Some(encoding) if !shared.encodings.contains(&encoding) => {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
        }
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
            plain.into()
        }
        Some("zstd") => zstd::decode_all(&*body).unwrap().into(),
        Some(other) => panic!("{other}"),
    };
    let size = body.len();
    let mut call = Call {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        request: ExportLogsServiceRequest::decode(body).unwrap(),
        taken: false,
    };
    let authorization = call.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
    let wanted = shared.token.as_ref().map(|token| format!("Bearer {token}"));
    let answer = if shared.body_bytes_max.is_some_and(|max| size > max) {
        Answer::Refuse(413, None)
    } else if wanted.is_some() && authorization != wanted.as_deref() {
        Answer::Refuse(401, None)
    } else {
        shared.answers.pop_front().unwrap_or(Answer::Take)
    };
    call.taken = !matches!(answer, Answer::Refuse(..));
    shared.calls.push(call);
    let protobuf = [(header::CONTENT_TYPE, "application/x-protobuf")];
    match answer {
        Answer::Take => (protobuf, ExportLogsServiceResponse::default().encode_to_vec()).into_response(),
        Answer::TakeInPart(rejected_log_records) => {
            let error_message = "too old".to_owned();
            let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
            (protobuf, ExportLogsServiceResponse { partial_success }.encode_to_vec()).into_response()
        }
        Answer::TakeWithoutEnd => {
            let endless = std::iter::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096])));
            (protobuf, Body::from_stream(tokio_stream::iter(endless))).into_response()
        }
        Answer::Refuse(status, wait) => {
            let status = StatusCode::from_u16(status).unwrap();
            match wait {
                Some(wait) => (status, [(header::RETRY_AFTER, wait)], "not now").into_response(),
                None => (status, "no").into_response(),
            }
        }
    }
}

/// An HTTP proxy that knows `CONNECT` and nothing else.
pub(crate) struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// On a free port; with credentials (`Basic …`), whoever has none is answered 407.
    pub(crate) fn start(credentials: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let log = log.clone();
                thread::spawn(move || serve(client.unwrap(), credentials, &log));
            }
        });
        Self { address, asked }
    }

    /// Its address, as in a URL.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The hosts and ports that it was asked to connect to.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, credentials: Option<&str>, log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).expect("only CONNECT is known");
    log.lock().unwrap().push(target.to_owned());
    let wanted = credentials.map(|credentials| format!("Proxy-Authorization: {credentials}\r\n"));
    if wanted.is_some_and(|wanted| !head.contains(&wanted)) {
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    // Names that only the proxy can resolve lead to this machine.
    let port = target.rsplit_once(':').unwrap().1;
    let Ok(mut sink) = TcpStream::connect(format!("127.0.0.1:{port}")) else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
        return;
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), sink.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut sink, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Write);
}
