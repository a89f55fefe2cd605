//! Real servers that die, hang and come back while events flow. One story at a time: they share the servers.

/// What readiness says while a server is away.
#[path = "dependencies.rs"]
mod dependencies;

/// A greedy service and a modest one while Kafka takes nothing.
#[path = "fairness.rs"]
mod fairness;

#[path = "numbers.rs"]
mod numbers;

use std::{fs, path::Path, thread, time::Duration};

use logsink_tests::{
    App, Server, http, load,
    otlp::Door,
    process::succeed,
    server::{Space, command},
    stack::{alone, control, elasticsearch, etcd, etcdctl},
    unique, until,
};

/// Recoveries of real servers lie in between.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_hundred_thousand_events_survive_every_server_each_found_once() {
    const OVER_KAFKA: u64 = 60_000;
    const OVER_GRPC: u64 = 40_000;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("storm");
    let front = Server::cluster(dir.path(), "front", &["ingest", "query"], &space);
    let mut drain = Server::cluster(dir.path(), "drain", &["drain"], &space);
    let services = [unique("over-kafka"), unique("over-grpc")];
    let mut kafka_app = App::build(dir.path(), &services[0], &space.kafka_url()).start();
    let mut grpc_app = App::build(dir.path(), &services[1], &front.grpc_url()).start();
    // Twenty seconds of events: every fault below falls into the stream.
    kafka_app.emit("storm", OVER_KAFKA, OVER_KAFKA / 20);
    grpc_app.emit("storm", OVER_GRPC, OVER_GRPC / 20);

    let mut reach = |share: u64| {
        until("the stream goes on", PATIENCE, || {
            let now = kafka_app.emitted();
            if now >= OVER_KAFKA * share / 10 { Ok(()) } else { Err(format!("{now} events")) }
        });
    };
    // Between the first copy and the repeat, between a bulk and its answer, and in quiet: each record is there once.
    let roll_over = || {
        let url = format!("{}/{}/_rollover", elasticsearch(), space.data_stream);
        let answer = http::post(&url, "application/json", Vec::new()).expect("the data stream rolls over");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    reach(1);
    until("the first are indexed", PATIENCE, || {
        let answer = http::get(&format!("{}/{}/_settings", elasticsearch(), space.data_stream))?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    });
    drain.kill();
    roll_over();
    reach(2);
    drain.restart();
    reach(3);
    control("pause", &["elasticsearch"]);
    reach(5);
    control("resume", &["elasticsearch"]);
    roll_over();
    reach(6);
    roll_over();
    control("kill", &["kafka"]);
    control("start", &["kafka"]);
    reach(8);
    drain.kill();
    roll_over();
    drain.restart();
    reach(10);

    for (app, count) in [(&mut kafka_app, OVER_KAFKA), (&mut grpc_app, OVER_GRPC)] {
        until("all is out", PATIENCE, || if app.emitted() == count { Ok(()) } else { Err(app.emitted().to_string()) });
        app.flush(PATIENCE);
        let metrics = app.metrics();
        assert_eq!((metrics["sent"].as_u64(), metrics["lost"].as_u64()), (Some(count), Some(0)), "{metrics}");
    }
    // Elasticsearch counts by itself, so that the pages are read once.
    let url = format!("{}/{}/_count", elasticsearch(), space.data_stream);
    until("all is indexed", PATIENCE, || {
        let answer = http::get(&url)?;
        let count = serde_json::from_str::<serde_json::Value>(&answer.body).map_err(|error| error.to_string())?;
        if count["count"].as_u64() >= Some(OVER_KAFKA + OVER_GRPC) { Ok(()) } else { Err(answer.body) }
    });
    numbers::exactly_once(&front.query(&format!("service={}", services[0])), OVER_KAFKA);
    numbers::exactly_once(&front.query(&format!("service={}", services[1])), OVER_GRPC);
    kafka_app.quit();
    grpc_app.quit();
    assert!(drain.stop().success());
    // A search shows a double once; Elasticsearch counts it twice.
    let refresh = format!("{}/{}/_refresh", elasticsearch(), space.data_stream);
    assert_eq!(http::post(&refresh, "application/json", Vec::new()).expect("it is refreshed").status, 200);
    let count = http::get(&url).expect("Elasticsearch counts").body;
    let count: serde_json::Value = serde_json::from_str(&count).expect("the count is JSON");
    assert_eq!(count["count"], OVER_KAFKA + OVER_GRPC);
}

#[test]
fn rules_outlive_etcd_its_restart_and_a_compaction() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("steady");
    let source = format!("etcd://{}", etcd().trim_start_matches("http://"));
    let app_in = |name: &str| {
        let home = dir.path().join(name);
        fs::create_dir_all(&home).unwrap();
        App::build(&home, &service, &server.grpc_url()).env("LOGSINK_RULES", &source).start()
    };
    let mut app = app_in("first");
    put(dir.path(), &service, "drop");
    await_silence(&mut app, true);

    // etcd dies: the rules stay, in the running process and in one that is started now, beside the first one's copy.
    control("kill", &["etcd"]);
    await_silence(&mut app, true);
    let mut late = app_in("first");
    await_silence(&mut late, true);
    late.quit();

    // It comes back: the watch goes on.
    control("start", &["etcd"]);
    put(dir.path(), &service, "keep");
    await_silence(&mut app, false);

    // While the application hears nothing, etcd changes twice and forgets the revision that the watch would resume at.
    app.pause();
    control("kill", &["etcd"]);
    control("start", &["etcd"]);
    put(dir.path(), &service, "keep");
    put(dir.path(), &service, "drop");
    let status: serde_json::Value =
        serde_json::from_str(&etcdctl(&["endpoint", "status", "--write-out=json"])).expect("etcdctl writes JSON");
    let revision = status[0]["Status"]["header"]["revision"].as_i64().expect("a revision");
    etcdctl(&["compact", &revision.to_string(), "--physical"]);
    app.resume();
    await_silence(&mut app, true);

    // And it still watches.
    put(dir.path(), &service, "keep");
    await_silence(&mut app, false);
    app.quit();
}

#[test]
fn a_server_that_starts_without_etcd_indexes_nothing_before_it_knows_the_rules() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("unread");
    let mut server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let mut drain = Server::cluster(dir.path(), "drain", &["drain"], &space);
    let service = unique("unread");
    let file = dir.path().join("secret.toml");
    fs::write(&file, "[[rule]]\nname = \"secret\"\nthen = { redact = [\"message\"] }\n").unwrap();
    succeed(command(&["rules", "put", "--service", &service, "--etcd", &etcd()]).arg(&file));
    assert!(server.stop().success() && drain.stop().success());
    control("kill", &["etcd"]);
    server.relaunch();
    // The queue takes events, and keeps them.
    until("the server takes events", PATIENCE, || {
        http::get(&server.http_url("/readyz"))?;
        Door::Http.export(&server, &load::request(&service, 0..5)).map_err(|refused| refused.message)
    });
    // It does so, and answers searches; one that only drains could do nothing.
    let rules = |server: &Server| -> serde_json::Value {
        let ready = http::get(&server.http_url("/readyz")).unwrap();
        serde_json::from_str::<serde_json::Value>(&ready.body).unwrap()["checks"]["rules"].clone()
    };
    let warned = rules(&server);
    assert!(warned["warnings"][0].as_str().unwrap().contains("nothing is indexed before the rules"), "{warned}");
    drain.relaunch();
    until("the drain answers", PATIENCE, || http::get(&drain.http_url("/readyz")).map(drop));
    let stopped = rules(&drain);
    assert_eq!(stopped["ready"], false, "{stopped}");
    until("the drain says that it waits", PATIENCE, || {
        let said = server.stderr();
        if said.contains("the drain waits until the rules have been read") { Ok(()) } else { Err(said) }
    });
    // That nothing comes cannot be waited for: three times what it takes for an event to be found.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(server.query(&format!("service={service}")).len(), 0, "{}", server.stderr());
    control("start", &["etcd"]);
    let hits = server.await_hits(&format!("service={service}"), 5, PATIENCE);
    assert!(hits.iter().all(|hit| hit["message"] == "[redacted]"), "{hits:?}");
    for server in [&mut server, &mut drain] {
        server.await_ready();
    }
}

#[test]
fn kafka_that_hangs_makes_ingest_say_try_again_and_nothing_is_lost() {
    const EVENTS: u64 = 5_000;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("hang");
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let service = unique("patient");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    app.emit("hang", EVENTS, 1_000);
    until("some are out", PATIENCE, || if app.emitted() > EVENTS / 5 { Ok(()) } else { Err("few".into()) });
    control("pause", &["kafka"]);
    until("more are out", PATIENCE, || if app.emitted() == EVENTS { Ok(()) } else { Err("few".into()) });
    // The controller, which hangs with it, has declared the only broker gone after nine seconds, and for a moment names no broker
    // at all: librdkafka then forgets all of them and does not come back by itself (librdkafka#5301).
    thread::sleep(Duration::from_secs(10));
    control("resume", &["kafka"]);
    app.flush(PATIENCE);
    assert_eq!(app.metrics()["lost"], 0);
    let hits = server.await_hits(&format!("service={service}"), EVENTS as usize, PATIENCE);
    numbers::exactly_once(&hits, EVENTS);
    let replaced = ["consumer", "producer"]
        .map(|client| server.counter(&format!("logsink_queue_clients_replaced_total{{reason=\"{client}\"}}")));
    eprintln!("clients replaced: {} consumers, {} producers", replaced[0], replaced[1]);
    app.quit();
}

/// Puts a rule about `noisy` for the service into etcd.
fn put(dir: &Path, service: &str, then: &str) {
    let file = dir.join("rules.toml");
    fs::write(&file, format!("[[rule]]\nname = \"noisy\"\nwhen = 'target=noisy'\nthen = \"{then}\"\n")).unwrap();
    succeed(command(&["rules", "put", "--service", service, "--etcd", &etcd()]).arg(&file));
}

/// Waits until `noisy` is off for `tracing` itself, or on.
fn await_silence(app: &mut App, silent: bool) {
    until(if silent { "noisy is silent" } else { "noisy speaks" }, Duration::from_secs(30), || {
        let interest = app.interest();
        if (interest == "never") == silent { Ok(()) } else { Err(interest) }
    });
}
