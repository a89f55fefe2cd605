//! One server on one machine, with nothing else.

use std::{collections::HashSet, time::Duration};

use logsink_tests::{App, Example, Server, http, unique, until};

use crate::numbers;

#[test]
fn a_request_of_the_axum_example_is_found_with_its_span_fields() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("shop");
    let example = Example::axum(dir.path(), &service, &server.grpc_url());
    let answer = example.get("/orders/42");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = example.get("/orders/13");
    assert_eq!(refused.status, 402, "{}", refused.body);

    let hits = server.await_hits(&format!("service={service} order_id=42"), 1, Duration::from_secs(20));
    let event = hits.iter().find(|hit| hit["message"] == "order found").expect("the handler's own event");
    let attributes = &event["attributes"];
    assert_eq!(attributes["http.request.method"], "GET", "a field of the request's span: {event}");
    assert_eq!(attributes["url.path"], "/orders/42", "{event}");
    assert_eq!(attributes["order_id"], 42, "the event's own field, a number: {event}");
    assert_eq!(attributes["span.path"], "request:find_order", "from the root to the leaf: {event}");
    assert_eq!(attributes["code.file.path"], "examples/axum-service.rs", "{event}");
    assert_eq!(event["resource"]["service.name"], service, "{event}");

    // The failure: by level, word and the path of its span; with the error's source chain.
    let query = format!("level>=error service={service} \"payment refused\" url.path~\"^/orders/\"");
    let hits = server.await_hits(&query, 1, Duration::from_secs(20));
    let chain = hits[0]["attributes"].to_string();
    assert!(chain.contains("the card has expired"), "the source of the error: {}", hits[0]);
    example.stop();
}

#[test]
fn kill_9_mid_stream_loses_and_doubles_nothing() {
    const EVENTS: u64 = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::standalone(dir.path());
    let service = unique("stream");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    app.emit("a", EVENTS, 6_000);
    for part in 1..=3 {
        until("a part of the stream is out", Duration::from_secs(60), || {
            let emitted = app.emitted();
            if emitted >= EVENTS * part / 4 { Ok(()) } else { Err(format!("{emitted}")) }
        });
        server.kill();
        server.restart();
    }
    until("all is out", Duration::from_secs(60), || {
        if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) }
    });
    app.flush(Duration::from_secs(60));
    let metrics = app.metrics();
    assert_eq!((metrics["sent"].as_u64(), metrics["lost"].as_u64()), (Some(EVENTS), Some(0)), "{metrics}");

    // The last acknowledgement is out: killed once more, all of it must be there.
    server.kill();
    server.restart();
    let hits = server.await_hits(&format!("service={service}"), EVENTS as usize, Duration::from_secs(60));
    numbers::exactly_once(&hits, EVENTS);
    // And again over a graceful stop, which publishes what was still open.
    assert!(server.stop().success());
    server.restart();
    numbers::exactly_once(&server.query(&format!("service={service}")), EVENTS);
    app.quit();
}

#[test]
fn pages_are_stable_and_do_not_overlap_while_events_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("pages");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    app.emit("a", 500, 5_000);
    server.await_hits(&format!("service={service}"), 500, Duration::from_secs(20));
    app.chatter(Duration::from_millis(1));

    let mut ids = HashSet::new();
    let mut newest_first = i64::MAX;
    let mut cursor = String::new();
    let mut load = 0;
    for _ in 0..1_000 {
        let url = server.http_url(&format!("/api/v1/search?q=service%3D{service}&from=-1h&limit=37{cursor}"));
        let answer = http::get(&url).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        for hit in page["hits"].as_array().unwrap() {
            let time = hit["time_ns"].as_i64().unwrap();
            assert!(time <= newest_first, "newest first, over all pages: {hit}");
            newest_first = time;
            assert!(ids.insert(hit["id"].as_str().unwrap().to_owned()), "twice: {hit}");
            load += u32::from(hit["target"] == "load");
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('+', "%2B").replace('=', "%3D")),
            None => break,
        }
    }
    assert_eq!(load, 500);
}

#[test]
fn the_doors_for_people_and_machines_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("doors");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    app.emit("a", 10, 1_000);
    server.await_hits(&format!("service={service}"), 10, Duration::from_secs(20));
    for (path, word) in [("/livez", ""), ("/readyz", ""), ("/", "<html"), ("/metrics", "# EOF")] {
        let answer = http::get(&server.http_url(path)).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.body.contains(word), "{path} says {word}: {}", answer.body);
    }
    let answer = http::get(&server.http_url("/api/v1/search?q=level%3E%3D")).unwrap();
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("column"), "says where the expression is wrong: {}", answer.body);
    app.quit();
}
