//! Events → `layer()` → OTLP over HTTP, against a real server that answers as servers in trouble do; and OTLP over either
//! protocol through a real proxy, with a token that is replaced.

#![cfg(all(feature = "http", feature = "grpc"))]

#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant, SystemTime},
};

use http_server::{Answer, ConnectProxy, HttpServer};
use logsink::{
    Builder, Guard,
    config::{Compression, Secret},
    metrics::Reason,
};
use otlp_server::{OtlpServer, PATIENCE, records, text, wait_until};
use tracing_subscriber::layer::SubscriberExt;

fn builder(url: String) -> Builder {
    logsink::builder().alone().service("web").endpoint(url).rules("none").configure(|config| {
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

fn all(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn a_batch_is_a_post_with_everything_beside_it() {
    for (compression, encoding) in
        [(Compression::None, None), (Compression::Gzip, Some("gzip")), (Compression::Zstd, Some("zstd"))]
    {
        let server = HttpServer::start();
        let builder = builder(format!("http://{}/otlp/v1/logs", server.address())).configure(move |config| {
            config.send.compression = Some(compression);
            config.headers.insert("X-Scope-OrgID".to_owned(), Secret("tenant".to_owned()));
        });
        let guard = with(builder, |guard| {
            tracing::warn!(n = 0, user = "jo", ratio = 0.5, "hello");
            emit(1..3000);
            guard.flush(PATIENCE).unwrap();
        });
        assert_eq!(server.numbers(), all(0..3000));
        // Several are under way at a time, so the first need not come first.
        let calls = server.calls();
        let call = calls.iter().find(|call| call.headers["logsink-sequence"] == "1").unwrap();
        let header = |name: &str| call.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(call.path, "/otlp/v1/logs");
        assert_eq!(header("content-type").as_deref(), Some("application/x-protobuf"));
        assert_eq!(header("content-encoding").as_deref(), encoding);
        assert_eq!(header("x-scope-orgid").as_deref(), Some("tenant"));
        assert_eq!(header("logsink-instance").as_deref(), Some(guard.instance()));
        assert!(header("user-agent").unwrap().starts_with("logsink/"));
        let first = &records(&call.request)[0];
        assert_eq!((text(&first.attributes, "user").as_deref(), first.severity_number), (Some("jo"), 13));
        assert_eq!(guard.metrics().lost(), 0);
    }
}

#[test]
fn what_is_worth_trying_again_is_and_not_before_the_time_that_was_asked_for() {
    let server = HttpServer::start();
    let date = SystemTime::now() + Duration::from_secs(2);
    let refuse = |status, wait: Option<&str>| Answer::Refuse(status, wait.map(str::to_owned));
    server.answer([
        refuse(429, Some("1")),
        refuse(502, None),
        refuse(503, Some(&http_date(date))),
        refuse(504, Some("nonsense")),
    ]);
    let start = Instant::now();
    let guard = with(builder(server.url()), |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(server.numbers(), all(0..10));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    // HTTP's dates have no fraction of a second.
    assert!(SystemTime::now() >= date - Duration::from_secs(1));
    assert_eq!((guard.metrics().retries, guard.metrics().lost()), (4, 0));
    let sequences: BTreeSet<_> =
        server.calls().iter().map(|call| call.headers["logsink-sequence"].to_str().unwrap().to_owned()).collect();
    assert_eq!(sequences.len(), 1, "a retry keeps its number");
}

/// As HTTP writes a date, by the command that every system has.
fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn what_is_final_is_counted_and_not_repeated() {
    for status in [400, 401, 403, 404, 500, 301] {
        let server = HttpServer::start();
        server.answer([Answer::Refuse(status, Some("1".to_owned()))]);
        let guard = with(builder(server.url()), |guard| {
            emit(0..10);
            guard.flush(PATIENCE).unwrap();
            emit(10..15);
            guard.flush(PATIENCE).unwrap();
        });
        let counts = guard.metrics();
        assert_eq!(counts.sent as usize, server.numbers().len(), "{status}");
        assert!(counts.dropped_for(Reason::Permanent) > 0, "{status}");
        assert_eq!((counts.dropped_for(Reason::Permanent) + counts.sent, counts.retries), (15, 0), "{status}");
    }
}

#[test]
fn a_batch_above_the_server_s_limit_is_halved() {
    let server = HttpServer::start();
    server.set_body_bytes_max(20_000);
    let guard = with(builder(server.url()).configure(|config| config.batch.age_ms_max = 60_000), |guard| {
        emit(0..2000);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(server.numbers(), all(0..2000));
    assert!(guard.metrics().splits > 0);
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn a_server_that_does_not_know_our_compression_gets_plain_bytes() {
    let server = HttpServer::start();
    server.set_encodings(&["gzip"]);
    let builder = builder(server.url()).configure(|config| config.send.compression = Some(Compression::Zstd));
    let guard = with(builder, |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
        emit(10..20);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(server.numbers(), all(0..20));
    assert_eq!((guard.metrics().retries, guard.metrics().lost()), (1, 0), "asked once");
}

#[test]
fn records_that_the_server_refused_are_counted() {
    let server = HttpServer::start();
    server.answer([Answer::TakeInPart(3)]);
    let guard = with(builder(server.url()).configure(|config| config.batch.age_ms_max = 60_000), |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!((guard.metrics().sent, guard.metrics().dropped_for(Reason::Rejected)), (7, 3));
}

#[test]
fn an_answer_without_end_is_an_answer() {
    let server = HttpServer::start();
    server.answer([Answer::TakeWithoutEnd]);
    let guard = with(builder(server.url()), |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!((guard.metrics().sent, guard.metrics().retries), (10, 0));
}

#[test]
fn a_server_that_is_late_or_restarts_loses_nothing_of_ours() {
    let address = OtlpServer::free_address();
    let guard = with(builder(format!("otlphttp://{address}")), |guard| {
        emit(0..100);
        assert!(guard.flush(Duration::from_millis(100)).is_err(), "nobody listens");
        let first = HttpServer::start_at(address);
        guard.flush(PATIENCE).unwrap();
        emit(100..500);
        wait_until("more events", || first.numbers().len() > 100);
        // A set: batches whose answer did not get through any more come again.
        let mut received: BTreeSet<_> = first.stop().into_iter().collect();
        emit(500..600);
        let second = HttpServer::start_at(address);
        guard.flush(PATIENCE).unwrap();
        received.extend(second.numbers());
        assert_eq!(received.into_iter().collect::<Vec<_>>(), all(0..600));
    });
    assert!(guard.metrics().retries > 0);
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn both_protocols_go_through_a_proxy() {
    // In base64 `user:p@ss word`.
    let proxy = ConnectProxy::start(Some("Basic dXNlcjpwQHNzIHdvcmQ="));
    let url = format!("http://user:p%40ss%20word@{}", proxy.address());
    let through = |url: &str| {
        let url = url.to_owned();
        move |config: &mut logsink::Config| config.send.proxy = Some(Secret(url))
    };
    let web = HttpServer::start();
    let grpc = OtlpServer::start();
    // A name that only the proxy can resolve.
    let port = |address: std::net::SocketAddr| format!("sink.invalid:{}", address.port());
    let (web_name, grpc_name) = (port(web.address()), port(grpc.address()));
    for endpoint in [format!("otlphttp://{web_name}"), format!("grpc://{grpc_name}")] {
        let guard = with(builder(endpoint).configure(through(&url)), |guard| {
            emit(0..10);
            guard.flush(PATIENCE).unwrap();
        });
        assert_eq!(guard.metrics().lost(), 0);
    }
    assert_eq!((web.numbers(), grpc.numbers()), (all(0..10), all(0..10)));
    // As often as there were connections.
    assert_eq!(proxy.asked().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([web_name.clone(), grpc_name]));

    // Without the password nothing gets through, and nothing is lost while it is missing.
    let wrong = format!("http://user:wrong@{}", proxy.address());
    let wrong =
        builder(format!("otlphttp://{web_name}")).flush_timeout(Duration::from_millis(100)).configure(through(&wrong));
    let guard = with(wrong, |guard| {
        emit(10..20);
        assert!(guard.flush(Duration::from_millis(200)).is_err());
    });
    assert_eq!((guard.metrics().lost(), web.numbers().len()), (0, 10));
    assert!(guard.metrics().retries > 0);
    drop(guard);
}

#[test]
fn a_token_that_is_replaced_in_its_file_is_used_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let server = HttpServer::start();
    server.set_token("first");
    let token_file = file.clone();
    let builder = builder(server.url()).configure(move |config| config.send.token_file = Some(token_file));
    let guard = with(builder, |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
        // The sink takes another one now, which is in the file: the refused batch comes again with it.
        fs::write(&file, "second").unwrap();
        server.set_token("second");
        emit(10..20);
        guard.flush(PATIENCE).unwrap();
        assert_eq!(server.numbers(), all(0..20));
        assert_eq!(guard.metrics().lost(), 0);
        // Where the file has no other token, trying again makes no sense.
        server.set_token("third");
        emit(20..25);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!((guard.metrics().sent, guard.metrics().dropped_for(Reason::Permanent)), (20, 5));
}

#[test]
fn the_token_goes_over_grpc_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "first").unwrap();
    let server = OtlpServer::start();
    let token_file = file.clone();
    let builder = builder(server.url()).configure(move |config| config.send.token_file = Some(token_file));
    let _guard = with(builder, |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
        fs::write(&file, "second").unwrap();
        server.answer([otlp_server::Answer::Refuse(tonic::Status::unauthenticated("expired"))]);
        emit(10..20);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(server.numbers(), all(0..20));
    let tokens: Vec<_> = server
        .calls()
        .iter()
        .map(|call| call.metadata.get("authorization").unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        (tokens.first().map(String::as_str), tokens.last().map(String::as_str)),
        (Some("Bearer first"), Some("Bearer second"))
    );
}
