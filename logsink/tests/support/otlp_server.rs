//! A real OTLP/gRPC server on the loopback that keeps what it takes and answers as told.
//!
//! It runs on a thread of its own, where nothing is traced: what h2 and tonic say there must not become events of the
//! process under test.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::CompressionEncoding,
    codegen::Service,
    metadata::MetadataMap,
    server::{Grpc, NamedService, UnaryService},
};

use tracing_subscriber::layer::SubscriberExt;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How the server answers one call.
#[derive(Clone)]
pub(crate) enum Answer {
    Take,
    TakeInPart(i64),
    TakeButFail(Status),
    Refuse(Status),
}

/// One call that was taken.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) request: ExportLogsServiceRequest,
    pub(crate) metadata: MetadataMap,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    answers: VecDeque<Answer>,
    attempts: usize,
}

pub(crate) struct OtlpServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server can be told at its start.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) message_bytes_max: usize,
    pub(crate) encodings: &'static [CompressionEncoding],
}

impl Default for Options {
    fn default() -> Self {
        Self { message_bytes_max: 4 << 20, encodings: &[] }
    }
}

impl OtlpServer {
    /// A server on a free port.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), options)
    }

    pub(crate) fn start_at(address: SocketAddr, options: Options) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, started) = mpsc::channel();
        let service = Export { state: state.clone(), options };
        let thread = thread::Builder::new().name("otlp-server".to_owned()).spawn(move || {
            // Not `NoSubscriber`, which would raise the process's level to `TRACE`.
            let silent = tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::OFF);
            let _silent = tracing::subscriber::set_default(silent);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
                // Ends at once, as a killed process does: connections break.
                tokio::select! {
                    result = server => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let address = started.recv().unwrap();
        Self { address, state, stop: Some(stop), thread: Some(thread.unwrap()) }
    }

    /// An address that nobody listens at now, but a server may later.
    pub(crate) fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Queues answers for the next calls; after them calls are taken again.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().answers.extend(answers);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn attempts(&self) -> usize {
        self.state.lock().unwrap().attempts
    }

    pub(crate) fn records(&self) -> Vec<LogRecord> {
        self.calls().into_iter().flat_map(|call| records(&call.request)).collect()
    }

    /// The field `n` of all records, sorted.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        let mut numbers: Vec<_> = self.records().iter().filter_map(|record| number(&record.attributes)).collect();
        numbers.sort_unstable();
        numbers
    }

    pub(crate) fn wait_for_attempts(&self, count: usize) {
        wait_until("calls", || self.attempts() >= count);
    }

    /// Ends as a killed process does, and gives the calls that it took.
    pub(crate) fn stop(mut self) -> Vec<Call> {
        self.end();
        self.calls()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for OtlpServer {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn records(request: &ExportLogsServiceRequest) -> Vec<LogRecord> {
    request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| s.log_records.clone()).collect()
}

pub(crate) fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
}

pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attribute(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

pub(crate) fn number(attributes: &[KeyValue]) -> Option<i64> {
    match attribute(attributes, "n")? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A `google.rpc.Status` with a `RetryInfo`, for `grpc-status-details-bin`.
pub(crate) fn retry_info(millis: u64) -> bytes::Bytes {
    let field = |number: u8, value: &[u8]| [&[number << 3 | 2, value.len() as u8][..], value].concat();
    let mut delay = vec![0x10];
    let mut nanos = millis * 1_000_000;
    while nanos >= 0x80 {
        delay.push(nanos as u8 | 0x80);
        nanos >>= 7;
    }
    delay.push(nanos as u8);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &field(1, &delay))].concat();
    field(3, &any).into()
}

/// `LogsService/Export`
#[derive(Clone)]
struct Export {
    state: Arc<Mutex<State>>,
    options: Options,
}

impl NamedService for Export {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<http::Request<Body>> for Export {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(service.options.message_bytes_max);
            for encoding in service.options.encodings {
                grpc = grpc.accept_compressed(*encoding);
            }
            Ok(grpc.unary(service, request).await)
        })
    }
}

impl UnaryService<ExportLogsServiceRequest> for Export {
    type Response = ExportLogsServiceResponse;
    type Future = std::future::Ready<Result<Response<ExportLogsServiceResponse>, Status>>;

    fn call(&mut self, request: Request<ExportLogsServiceRequest>) -> Self::Future {
        let mut state = self.state.lock().unwrap();
        state.attempts += 1;
        let call = Call { metadata: request.metadata().clone(), request: request.into_inner() };
        let answer = state.answers.pop_front().unwrap_or(Answer::Take);
        if !matches!(answer, Answer::Refuse(_)) {
            state.calls.push(call);
        }
        std::future::ready(match answer {
            Answer::Take => Ok(Response::new(ExportLogsServiceResponse::default())),
            Answer::TakeInPart(rejected_log_records) => Ok(Response::new(ExportLogsServiceResponse {
                partial_success: Some(ExportLogsPartialSuccess {
                    rejected_log_records,
                    error_message: "too old".to_owned(),
                }),
            })),
            Answer::TakeButFail(status) | Answer::Refuse(status) => Err(status),
        })
    }
}
