//! Messages that no index takes: each is put aside with its reason, what stands around it is found, and a person can look at it,
//! send it again and remove it.

use std::time::Duration;

use logsink_tests::{
    Server,
    load::{self, request},
    process::{run, succeed},
    server::{Space, command},
    unique, until,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, KeyValueList, any_value::Value},
};
use prost::Message as _;

use crate::numbers;

const FOUND: Duration = Duration::from_secs(90);

fn pair(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A request of one event whose attributes are these.
fn with(service: &str, n: u64, attributes: Vec<KeyValue>) -> Vec<u8> {
    let mut request: ExportLogsServiceRequest = request(service, [n]);
    request.resource_logs[0].scope_logs[0].log_records[0].attributes.extend(attributes);
    request.encode_to_vec()
}

#[test]
fn poison_is_put_aside_and_the_partition_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("poison").partitions(1);
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let service = unique("sound");
    let producer = load::producer(&[]);
    let send = |payload: &[u8]| load::send(&producer, &space.topic, 0, payload);
    // One event in front of each, and one behind all.
    let mut number = 0;
    let mut sound = || {
        send(&request(&service, [number]).encode_to_vec());
        number += 1;
    };
    sound();
    send(b"{\"message\": \"this is no OTLP\"}");
    sound();
    let whole = request(&service, [900]).encode_to_vec();
    send(&whole[..whole.len() / 2]);
    sound();
    send(&request(&service, []).encode_to_vec());
    sound();
    let deep = (0..1_000).fold(Value::IntValue(1), |value, _| {
        Value::KvlistValue(KeyValueList { values: vec![pair("d".into(), value)] })
    });
    send(&with(&service, 901, vec![pair("deep".into(), deep)]));
    sound();
    load::flush(&producer);
    // 64 MiB in a few kilobytes, which librdkafka unpacks before anyone sees them.
    let bomb = load::producer(&[("compression.codec", "gzip"), ("message.max.bytes", "100000000")]);
    load::send(&bomb, &space.topic, 0, &vec![0; 64 << 20]);
    load::flush(&bomb);
    sound();
    // Many attributes are no poison: the event is found.
    let many = (0..10_000).map(|index| pair(format!("attribute.{index}"), Value::IntValue(index))).collect();
    send(&with(&service, number, many));
    number += 1;
    load::flush(&producer);

    let hits = server.await_hits(&format!("service={service}"), number as usize, FOUND);
    numbers::exactly_once(&hits, number);
    // Another producer's trace goes with the records that name none.
    assert_eq!(hits[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c", "{}", hits[0]);
    let config = dir.path().join("all.toml");
    let letters = |arguments: &[&str]| succeed(command(&["dead-letters"]).args(arguments).arg("--config").arg(&config));
    let list = until("all are put aside", FOUND, || {
        let list = letters(&["list"]);
        if list.lines().count() == 1 + 4 { Ok(list) } else { Err(list) }
    });
    // Their order is that of writes, of which several are under way at a time.
    let id_of = |offset: u64, reason: &str| {
        let source = format!("{}/0/{offset}", space.topic);
        let line = list.lines().find(|line| line.split_whitespace().any(|word| word == source));
        let line = line.filter(|line| line.contains(reason));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or_else(|| panic!("{source}, {reason}:\n{list}"))
    };
    let ids = [(1, "not_otlp"), (3, "not_otlp"), (7, "nest deeper"), (9, "not_otlp")].map(|(at, why)| id_of(at, why));
    let [first, .., bomb] = ids;
    assert_eq!(letters(&["list", "--reason", "nest deeper"]).lines().count(), 1 + 1);
    assert_eq!(letters(&["list", "-n", "2"]).lines().count(), 1 + 2);
    assert_eq!(letters(&["list", "--from", "-1h", "--source", &format!("{}/0/1", space.topic)]).lines().count(), 1 + 1);

    let page = letters(&["show", first]);
    for part in [
        "not an OTLP request",
        "text      {\"message\": \"this is no OTLP\"}",
        "7b 22 6d 65",
        &space.topic,
        load::TRACEPARENT,
    ] {
        assert!(page.contains(part), "{part} in:\n{page}");
    }
    // Of the bomb only the beginning was kept, and nobody has 0/9999: both are named, and neither would be sent.
    let rehearsed = run(command(&["dead-letters", "replay", bomb, "0/9999", "--dry-run", "--config"]).arg(&config));
    let text = String::from_utf8_lossy(&rehearsed.stdout);
    for words in [format!("{bomb}: only a part"), "0/9999: there is no such".into(), "would send 0".into()] {
        assert!(text.contains(&words), "{words} in:\n{text}");
    }
    assert_eq!(rehearsed.status.code(), Some(1), "{rehearsed:?}");
    // Sent again it is refused again, once more with its reason.
    assert!(letters(&["replay", first, "--dry-run"]).contains("would send 1 dead letter"));
    assert!(letters(&["replay", first]).contains("sent 1 dead letter again"));
    until("it comes back", FOUND, || {
        let list = letters(&["list"]);
        if list.lines().count() == 1 + 5 { Ok(()) } else { Err(list) }
    });
    assert!(letters(&["purge", "--yes"]).contains("removed 5 dead letters"));
    assert_eq!(letters(&["list"]).lines().count(), 1);
    let refused = logsink_tests::process::refuse(command(&["dead-letters", "replay"]).arg("--config").arg(&config), 2);
    assert!(refused.contains("say which"), "{refused}");
}
