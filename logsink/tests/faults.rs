//! Events → `layer()` → a real gRPC server that is late, restarts, or answers as servers in trouble do. Whatever happens:
//! every event is received once, or counted as lost.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use logsink::{Builder, Guard, metrics::Reason};
use otlp_server::{Answer, Options, OtlpServer, PATIENCE, retry_info, wait_until};
use tonic::{Code, Status, codec::CompressionEncoding};
use tracing_subscriber::layer::SubscriberExt;

fn builder(url: String) -> Builder {
    logsink::builder().alone().service("faults").endpoint(url).rules("none").configure(|config| {
        config.batch.age_ms_max = 5;
        config.retry.delay_ms_min = 5;
        config.retry.delay_ms_max = 50;
    })
}

fn with(builder: Builder, body: impl FnOnce(&Guard)) -> Guard {
    let (layer, guard) = builder.layer().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || body(&guard));
    guard
}

fn emit(range: std::ops::Range<i64>) {
    range.for_each(|n| tracing::info!(n, "event"));
}

#[test]
fn a_server_that_starts_late_gets_everything() {
    let address = OtlpServer::free_address();
    let guard = with(builder(format!("http://{address}")), |guard| {
        emit(0..1000);
        assert!(guard.flush(Duration::from_millis(100)).is_err(), "nobody listens");
        let server = OtlpServer::start_at(address, Options::default());
        emit(1000..1010);
        guard.flush(PATIENCE).unwrap();
        assert_eq!(server.numbers(), (0..1010).collect::<Vec<_>>());
    });
    assert!(guard.metrics().retries > 0);
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn a_server_that_restarts_loses_nothing_of_ours() {
    let first = OtlpServer::start();
    let address = first.address();
    let guard = with(builder(first.url()), |guard| {
        emit(0..500);
        wait_until("the first events", || !first.numbers().is_empty());
        let taken = first.stop();
        let records = taken.iter().flat_map(|call| otlp_server::records(&call.request));
        // A set: batches whose answer did not get through any more come again.
        let mut received: BTreeSet<_> = records.filter_map(|record| otlp_server::number(&record.attributes)).collect();
        emit(500..1000);
        let second = OtlpServer::start_at(address, Options::default());
        guard.flush(PATIENCE).unwrap();
        received.extend(second.numbers());
        assert_eq!(received.into_iter().collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
    });
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn retry_info_is_obeyed() {
    let server = OtlpServer::start();
    let later = |code| Answer::Refuse(Status::with_details(code, "later", retry_info(200)));
    server.answer([later(Code::Unavailable), later(Code::ResourceExhausted)]);
    let start = Instant::now();
    let guard = with(builder(server.url()), |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(server.numbers(), (0..10).collect::<Vec<_>>());
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!((server.attempts(), guard.metrics().retries), (3, 2));
}

#[test]
fn what_the_specification_calls_final_is_not_repeated() {
    for code in [Code::ResourceExhausted, Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented] {
        let server = OtlpServer::start();
        server.answer([Answer::Refuse(Status::new(code, "no"))]);
        let guard = with(builder(server.url()), |guard| {
            emit(0..10);
            guard.flush(PATIENCE).unwrap();
            emit(10..15);
            guard.flush(PATIENCE).unwrap();
        });
        let counts = guard.metrics();
        assert_eq!(counts.sent as usize, server.numbers().len(), "{code:?}");
        assert_eq!(counts.dropped_for(Reason::Permanent) + counts.sent, 15, "{code:?}");
        assert_eq!(counts.retries, 0, "{code:?}");
    }
}

#[test]
fn a_lost_answer_makes_a_double_that_the_server_can_tell() {
    let server = OtlpServer::start();
    server.answer([Answer::TakeButFail(Status::unavailable("the answer got lost"))]);
    let _guard = with(builder(server.url()), |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    let calls = server.calls();
    let key = |index: usize| {
        let metadata = &calls[index].metadata;
        (metadata.get("logsink-instance").cloned(), metadata.get("logsink-sequence").cloned())
    };
    assert!(key(0).0.is_some() && key(0).1.is_some());
    assert_eq!(key(0), key(1));
    assert_eq!(calls[0].request, calls[1].request);
}

#[test]
fn a_partial_success_is_counted_and_not_repeated() {
    let server = OtlpServer::start();
    let guard = with(builder(server.url()).configure(|config| config.batch.age_ms_max = 60_000), |guard| {
        server.answer([Answer::TakeInPart(3)]);
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
        emit(10..11);
        guard.flush(PATIENCE).unwrap();
    });
    let counts = guard.metrics();
    assert_eq!((counts.sent, counts.dropped_for(Reason::Rejected), counts.retries), (8, 3, 0));
    assert_eq!(server.attempts(), 2);
    assert_eq!(server.calls()[1].metadata.get("logsink-lost").unwrap(), "rejected=3");
}

#[test]
fn a_batch_above_the_server_s_limit_is_halved() {
    let server = OtlpServer::start_with(Options { message_bytes_max: 10_000, ..Options::default() });
    let guard = with(builder(server.url()).configure(|config| config.batch.age_ms_max = 60_000), |guard| {
        emit(0..1000);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(server.numbers(), (0..1000).collect::<Vec<_>>());
    assert!(guard.metrics().splits > 0);
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn payloads_are_compressed_where_the_server_knows_how() {
    use logsink::config::Compression;
    for (compression, encodings) in [
        (Compression::Gzip, &[CompressionEncoding::Gzip][..]),
        (Compression::Zstd, &[CompressionEncoding::Zstd]),
        // Not known there: the server says so, and gets plain bytes.
        (Compression::Zstd, &[]),
    ] {
        let server = OtlpServer::start_with(Options { encodings, ..Options::default() });
        let builder = builder(server.url()).configure(move |config| config.send.compression = Some(compression));
        let guard = with(builder, |guard| {
            emit(0..100);
            guard.flush(PATIENCE).unwrap();
        });
        assert_eq!(server.numbers(), (0..100).collect::<Vec<_>>(), "{compression:?}");
        assert_eq!(guard.metrics().lost(), 0);
        let encoding = server.calls()[0].metadata.get("grpc-encoding").map(|value| value.to_str().unwrap().to_owned());
        let expected = encodings.first().map(|encoding| encoding.to_string());
        assert_eq!(encoding, expected);
    }
}

#[test]
fn a_drop_ends_at_its_deadline_and_counts_what_is_left() {
    let address = OtlpServer::free_address();
    let builder = builder(format!("http://{address}")).flush_timeout(Duration::from_millis(200));
    let guard = with(builder, |_| emit(0..100));
    let start = Instant::now();
    let error = guard.shutdown(Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.to_string(), "the sink has not taken all events within 200ms");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
