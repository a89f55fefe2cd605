//! What does a record cost the server between its bytes on the wire and its bytes in a `_bulk` body?
//!
//! The payload is what a service emits: records of about 530 bytes, 100 a message, from a resource of 7 attributes, each with
//! 10 attributes, ids and a body of 60 to 200 bytes. Two `memcpy` stand below as limits.
//!
//! Instructions: `transcode once STEP N` runs one step N times and nothing else; callgrind over two N, and the difference.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]

use std::{hint::black_box, time::Instant};

use logsink_server::{
    index::elasticsearch::bench,
    otlp::{self, Limits},
    queue::{Headers, Message, Position},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

const RECORDS: u32 = 100;
/// One `_bulk` body is made of so many messages, of 1 MB together: more than the caches near the core hold.
const MESSAGES: u32 = 20;
const ROUNDS: usize = 101;

const STEPS: [&str; 5] = ["check", "walk", "body", "memcpy of the payload", "memcpy of the body"];

fn main() {
    let messages: Vec<Message> = (0..MESSAGES).map(message).collect();
    let records = MESSAGES * RECORDS;
    let payload: usize = messages.iter().map(|message| message.payload.len()).sum();
    let (body, items) = bench::body(&messages);
    assert_eq!(items, records as usize);

    let run = |step: &str| match step {
        "check" => messages.iter().map(|m| otlp::check(&m.payload, &Limits::default()).map_or(0, |s| s.records)).sum(),
        "walk" => messages.iter().map(|m| walk(&m.payload)).sum::<u32>(),
        "body" => bench::body(&messages).1 as u32,
        "memcpy of the payload" => messages.iter().map(|m| black_box(m.payload.to_vec()).len() as u32).sum(),
        "memcpy of the body" => black_box(body.to_vec()).len() as u32,
        _ => panic!("no such step: {step}; there are {STEPS:?}"),
    };

    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [once, step, times] = &args[..]
        && once == "once"
    {
        let times: u32 = times.parse().expect("a number of times");
        (0..times).for_each(|_| _ = black_box(run(step)));
        println!("{}", u64::from(times) * u64::from(records));
        return;
    }

    let each = |bytes: usize| bytes as f64 / f64::from(records);
    println!("{records} records of {:.0} bytes, {:.0} in the body", each(payload), each(body.len()));
    // In turn, so that a noisy moment of the machine falls on all of them.
    let mut times = [const { Vec::new() }; STEPS.len()];
    for _ in 0..ROUNDS {
        for (step, times) in STEPS.iter().zip(&mut times) {
            let start = Instant::now();
            black_box(run(step));
            times.push(start.elapsed().as_nanos() as f64 / f64::from(records));
        }
    }
    for (step, mut times) in STEPS.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!("{step:<24} {:>7.1} ns  median {:>7.1} ns a record", times[0], times[ROUNDS / 2]);
    }
}

/// What every reader of a message does at the least: look at each record and at each of its attributes.
fn walk(payload: &[u8]) -> u32 {
    let mut seen = 0;
    let walked = otlp::for_each_record(payload, &mut |record| {
        seen += record.time_ns() as u32 ^ record.attributes().iter().count() as u32;
    });
    walked.expect("the payload is OTLP") + (seen & 1)
}

fn message(index: u32) -> Message {
    let mut random = Random(u64::from(index) + 1);
    let resource = [
        ("service.name", "checkout"),
        ("service.version", "1.42.0"),
        ("service.instance.id", "checkout-7d9f8b6c5d-x2x9q"),
        ("deployment.environment.name", "production"),
        ("host.name", "ip-10-0-12-34"),
        ("telemetry.sdk.name", "logsink"),
    ];
    let mut attributes: Vec<_> = resource.into_iter().map(|(key, value)| pair(key, text(value))).collect();
    attributes.push(pair("process.pid", wire(Value::IntValue(4711))));
    let resource = Resource { attributes, ..Resource::default() };
    let scope = InstrumentationScope { name: "checkout::http".into(), ..InstrumentationScope::default() };
    let log_records = (0..RECORDS).map(|n| record(&mut random, index * RECORDS + n)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
    let logs = ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() };
    Message {
        position: Position { partition: 1, offset: i64::from(index) },
        epoch: 1,
        payload: ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into(),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

fn record(random: &mut Random, n: u32) -> LogRecord {
    const PATHS: [&str; 4] = ["/api/v1/orders", "/api/v1/orders/items", "/api/v1/payments/confirm", "/api/v1/carts"];
    const WORDS: [&str; 8] =
        ["request", "finished", "payment", "for order", "\"retry\"", "after", "timeout of", "upstream"];
    let mut body = String::new();
    let length = 60 + random.below(140) as usize;
    while body.len() < length {
        body.push_str(WORDS[random.below(8) as usize]);
        body.push(' ');
    }
    body.truncate(length);
    let time = 1_767_225_600_000_000_000 + u64::from(n) * 1_234_567;
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time + 1_000,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(text(&body)),
        attributes: vec![
            pair("target", text("checkout::http::server::respond")),
            pair("code.file.path", text("crates/checkout/src/http/server.rs")),
            pair("code.line.number", wire(Value::IntValue(217))),
            pair("thread.name", text("tokio-runtime-worker")),
            pair("http.request.method", text("POST")),
            pair("url.path", text(PATHS[random.below(4) as usize])),
            pair("http.response.status_code", wire(Value::IntValue(200 + random.below(4) as i64 * 100))),
            pair("user_id", wire(Value::IntValue(random.below(1 << 40) as i64))),
            pair("latency_ms", wire(Value::DoubleValue(random.below(1 << 20) as f64 / 1_000.0))),
            pair("cache_hit", wire(Value::BoolValue(random.below(2) == 0))),
        ],
        trace_id: [random.next().to_be_bytes(), random.next().to_be_bytes()].concat(),
        span_id: random.next().to_be_bytes().to_vec(),
        flags: 1,
        ..LogRecord::default()
    }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn text(text: &str) -> AnyValue {
    wire(Value::StringValue(text.into()))
}

fn wire(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// SplitMix64: the same payload in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
