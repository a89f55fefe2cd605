//! What `init()` refuses, and that a refused attempt leaves nothing behind.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use logsink::InitError;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .map(|tasks| {
            tasks
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
                .filter(|name| name.starts_with("logsink"))
                .count()
        })
        .unwrap_or_default()
}

#[test]
fn a_refused_init_says_why_and_leaves_nothing_behind() {
    let refused = |builder: logsink::Builder| builder.init().unwrap_err().to_string();
    let alone = || logsink::builder().alone();

    let text = refused(alone().endpoint("ftp://somewhere"));
    assert!(text.starts_with("endpoint: `ftp://somewhere` cannot be sent to: write `http://host:4317`"), "{text}");
    let text = refused(alone().filter("info,[span]=debug"));
    assert!(text.starts_with("filter: the directive `[span]=debug` looks into spans"), "{text}");
    let text = refused(alone().header("a b", "c"));
    assert!(text.starts_with("headers.a b: is not a name of gRPC metadata"), "{text}");
    let text = refused(alone().endpoint("https://localhost").configure(|c| c.tls.ca = Some("/no/such/ca".into())));
    assert!(text.starts_with("tls.ca: cannot read /no/such/ca: "), "{text}");
    if !cfg!(feature = "kafka") {
        let text = refused(alone().endpoint("kafka://b:9092"));
        assert_eq!(text, "endpoint: this build has no Kafka: add the cargo feature `kafka` of logsink");
    }
    otlp_server::wait_until("the threads to end", || threads() == 0);

    // Somebody else's subscriber comes first.
    tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
    let error = alone().init().unwrap_err();
    assert!(matches!(error, InitError::AlreadyInitialized), "{error}");
    otlp_server::wait_until("the threads to end", || threads() == 0);
}
