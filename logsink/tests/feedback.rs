//! Nothing that the library's own threads say, nor the clients on them, becomes an event, with everything turned on and
//! everything wanted. What the application's own clients say does.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{fs, time::Duration};

use otlp_server::{OtlpServer, PATIENCE, text, wait_until};
use tracing_subscriber::layer::SubscriberExt;

/// Calls a server as the application would, through the same client libraries.
fn application_calls(server: &OtlpServer) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(server.url()).unwrap();
    runtime.block_on(endpoint.connect()).unwrap();
}

#[test]
fn what_the_library_s_threads_say_does_not_come_back() {
    let server = OtlpServer::start();
    let other = OtlpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    fs::write(&file, "filter = \"trace\"").unwrap();
    let common = || logsink::builder().alone().filter("trace");
    let (layer, guard) = common().endpoint(server.url()).rules(format!("file:{}", file.display())).layer().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    // A second pipeline whose sink and source are away, and whose clients have much to say about that.
    #[cfg(all(feature = "kafka", feature = "etcd"))]
    let (subscriber, _away) = {
        let (layer, guard) = common()
            .endpoint("kafka://127.0.0.1:1/logs")
            .rules("etcd://127.0.0.1:1")
            .configure(|config| config.cache_dir = Some("/nonexistent".into()))
            .flush_timeout(Duration::ZERO)
            .layer()
            .unwrap();
        (subscriber.with(layer), guard)
    };
    // And one with the rules pushed by the server, which here knows no such thing.
    let (layer, _pushed) = common().endpoint(other.url()).rules("push").layer().unwrap();
    tracing::subscriber::set_global_default(subscriber.with(layer)).unwrap();
    #[cfg(feature = "log")]
    tracing_log::LogTracer::init().unwrap();

    tracing::info!(n = 0, "begin");
    for revision in 1..=3 {
        fs::write(&file, format!("filter = \"trace\" # {revision}")).unwrap();
        wait_until("the rules", || guard.rules().revision == named(&file));
        tracing::info!(n = revision, "on the way");
        guard.flush(PATIENCE).unwrap();
    }
    // Long enough for the clients that are away to try again, and for what they say to be sent.
    std::thread::sleep(Duration::from_secs(1));
    guard.flush(PATIENCE).unwrap();
    let quiet = server.records();
    let strange: Vec<_> = quiet.iter().filter(|record| otlp_server::number(&record.attributes).is_none()).collect();
    assert!(strange.is_empty(), "{} of {}: {:?}", strange.len(), quiet.len(), strange[0]);
    assert_eq!(server.numbers(), [0, 1, 2, 3]);
    assert!(guard.metrics().dropped_for(logsink::metrics::Reason::OwnThread) > 0, "or this shows nothing");

    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("application".to_owned());
        thread.spawn_scoped(scope, || application_calls(&server)).unwrap();
    });
    guard.flush(PATIENCE).unwrap();
    let records = server.records();
    let of_clients: Vec<_> =
        records.iter().filter(|record| otlp_server::number(&record.attributes).is_none()).collect();
    assert!(of_clients.iter().any(|record| text(&record.attributes, "target").unwrap().starts_with("h2::")));
    for record in of_clients {
        assert_eq!(text(&record.attributes, "thread.name").as_deref(), Some("application"), "{record:?}");
    }
}

/// The revision of a file's present content.
fn named(file: &std::path::Path) -> String {
    format!("file-{:08x}", crc32fast::hash(&fs::read(file).unwrap()))
}
