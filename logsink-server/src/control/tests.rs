//! The control plane as its users meet it: the library's push source over a real gRPC connection, people over HTTP.

use std::{net::SocketAddr, path::Path, time::Duration};

use logsink::{
    reload::Reload,
    source::{RuleSource, push::PushSource},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;

struct Server {
    control: Arc<Control>,
    http: String,
    grpc: SocketAddr,
    stop: watch::Sender<bool>,
    grpc_task: tokio::task::JoinHandle<()>,
}

async fn serve(dir: &Path, grpc: SocketAddr) -> Server {
    let store = file::FileStore::open(dir).unwrap();
    let control = Control::new(Arc::new(store), Metrics::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = format!("http://{}", listener.local_addr().unwrap());
    let router = http::router(Arc::clone(&control));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let listener = TcpListener::bind(grpc).await.unwrap();
    let grpc = listener.local_addr().unwrap();
    let (stop, mut stopping) = watch::channel(false);
    let service = push::service(Arc::clone(&control));
    let grpc_task = tokio::spawn(async move {
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await.unwrap();
    });
    Server { control, http, grpc, stop, grpc_task }
}

impl Server {
    /// As the server stops: subscriptions first, then the listener.
    async fn stop(self) {
        self.control.close();
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(20), self.grpc_task).await.expect("it stops").unwrap();
    }
}

fn subscribe(grpc: SocketAddr, service: &str, instance: &str, cache: &Path) -> (Arc<Reload>, watch::Sender<bool>) {
    let reload = Reload::new(RuleSet::compile(&[], service).unwrap());
    let channel = tonic::transport::Endpoint::try_from(format!("http://{grpc}")).unwrap().connect_lazy();
    let (stop, stopping) = watch::channel(false);
    let source = PushSource::new(channel, service, instance, Some(cache.to_owned()));
    tokio::spawn(Box::new(source).run(Arc::clone(&reload), stopping));
    (reload, stop)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn base(reload: &Reload) -> String {
    reload.active().rules.base().to_string()
}

#[tokio::test]
async fn rules_reach_subscribed_processes_and_their_status_comes_back() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(dir.path(), "127.0.0.1:0".parse().unwrap()).await;
    let (one, stop_one) = subscribe(server.grpc, "checkout", "one", cache.path());
    let (two, _stop_two) = subscribe(server.grpc, "cart", "two", cache.path());
    until("both are listed with their first revision", || {
        let listed = server.control.instances().list();
        listed
            .iter()
            .map(|process| (process.instance.as_str(), process.revision.as_str()))
            .eq([("two", "g0-s0"), ("one", "g0-s0")])
    })
    .await;

    let client = reqwest::Client::new();
    let put = |path: &str, text: &str| client.put(format!("{}{path}", server.http)).body(text.to_owned()).send();
    let answer = put("/api/v1/rules/global", "filter = \"warn\"").await.unwrap();
    assert_eq!(answer.status(), 200);
    until("both follow the global rules", || base(&one) == "warn" && base(&two) == "warn").await;
    assert_eq!(put("/api/v1/rules/service/checkout", "filter = \"debug\"").await.unwrap().status(), 200);
    until("one follows its own", || base(&one) == "debug").await;
    assert_eq!((base(&two), two.generation()), ("warn".to_owned(), 3), "what does not concern it is not sent");

    let answer =
        put("/api/v1/rules/global", "filter = \"info\"\n[[rule]]\nname = \"x\"\nwhen = 'level>=wran'\nthen = \"drop\"");
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 400);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!((&body["line"], &body["column"]), (&4.into(), &16.into()), "{body}");
    assert_eq!(body["hint"], "did you mean warn?");

    let get = |path: &str| client.get(format!("{}{path}", server.http)).send();
    assert_eq!(get("/api/v1/rules/global").await.unwrap().text().await.unwrap(), "filter = \"warn\"");
    assert_eq!(get("/api/v1/rules/service/unknown").await.unwrap().status(), 404);
    let listed: Vec<instances::Instance> = get("/api/v1/instances").await.unwrap().json().await.unwrap();
    assert_eq!(listed.iter().map(|process| process.service.as_str()).collect::<Vec<_>>(), ["cart", "checkout"]);

    let removed = client.delete(format!("{}/api/v1/rules/service/checkout", server.http)).send().await.unwrap();
    assert_eq!(removed.status(), 200);
    until("one is back under the global rules", || base(&one) == "warn").await;

    stop_one.send_replace(true);
    until("who stops is off the list", || server.control.instances().list().len() == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn processes_come_back_after_a_restart_and_start_without_the_server() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(dir.path(), "127.0.0.1:0".parse().unwrap()).await;
    let grpc = server.grpc;
    server.control.put(&Scope::Global, Some("filter = \"warn\"".into())).await.unwrap();
    let (early, _stop_early) = subscribe(grpc, "app", "early", cache.path());
    until("the rules are there", || base(&early) == "warn").await;
    until("and on disk", || cache.path().join("app.rules.toml").exists()).await;
    server.stop().await;

    let (late, _stop_late) = subscribe(grpc, "app", "late", cache.path());
    until("the rules come from the disk", || base(&late) == "warn").await;

    let server = serve(dir.path(), grpc).await;
    server.control.put(&Scope::Global, Some("filter = \"error\"".into())).await.unwrap();
    until("both have come back", || base(&early) == "error" && base(&late) == "error").await;
    server.stop().await;
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path(), "127.0.0.1:0".parse().unwrap()).await;
    let client = reqwest::Client::new();
    let long = "x".repeat(SERVICE_BYTES_MAX + 1);
    let put = |path: String, text: String| client.put(format!("{}{path}", server.http)).body(text).send();
    assert_eq!(put(format!("/api/v1/rules/service/{long}"), String::new()).await.unwrap().status(), 400);
    assert_eq!(put("/api/v1/rules/service/%00".into(), String::new()).await.unwrap().status(), 400);
    assert_eq!(put("/api/v1/rules/global".into(), "#".repeat(300_000)).await.unwrap().status(), 413);
    assert_eq!(
        put("/api/v1/rules/service/..%2F..%2Fx".into(), "filter = \"info\"".into()).await.unwrap().status(),
        200
    );
    assert_eq!(std::fs::read_dir(dir.path().join("service")).unwrap().count(), 1);
    server.stop().await;
}

#[cfg(feature = "real-servers")]
#[tokio::test]
async fn more_rules_than_an_answer_of_etcd_may_have_are_all_read() {
    use etcd_client::{Client, DeleteOptions, Txn, TxnOp};
    use logsink::source::etcd::{Range, Readings};

    let endpoint = std::env::var("ETCD_ENDPOINTS").expect("ETCD_ENDPOINTS names an etcd");
    let mut etcd = Client::connect([&endpoint], None).await.unwrap();
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    // Not where other stories' servers look.
    let prefix = format!("/story/rules/{}/", since.as_nanos());
    let small: Vec<TxnOp> =
        (0..1_100).map(|n| TxnOp::put(format!("{prefix}small/{n}"), "filter = \"warn\"", None)).collect();
    for some in small.chunks(100) {
        etcd.txn(Txn::new().and_then(some)).await.unwrap();
    }
    let large = vec![b'#'; logsink::filter::rules::DOCUMENT_BYTES_MAX];
    for n in 0..24 {
        etcd.put(format!("{prefix}large/{n}"), large.clone(), None).await.unwrap();
    }
    let mut readings = Readings::new(vec![endpoint], Range::Prefix(prefix.clone()));
    let mut next = async || tokio::time::timeout(Duration::from_secs(20), readings.next()).await.expect("etcd answers");
    let reading = next().await;
    assert_eq!(reading.entries.len(), 1_124);
    assert!((0..24).all(|n| reading.entries[&format!("{prefix}large/{n}")].value == large));
    assert!(reading.entries.values().all(|entry| entry.revision <= reading.revision), "of one moment");

    let changed = etcd.put(format!("{prefix}small/7"), "filter = \"error\"", None).await.unwrap();
    let reading = next().await;
    let entry = &reading.entries[&format!("{prefix}small/7")];
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (&b"filter = \"error\""[..], changed.header().unwrap().revision())
    );
    etcd.delete(prefix, Some(DeleteOptions::new().with_prefix())).await.unwrap();
}
