//! What a service emits: records of about 533 bytes as OTLP from a resource of 7 attributes, each with 10 attributes, ids and
//! a body of 60 to 200 bytes. The same bytes in every run.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};

/// The `index`-th request, of so many records.
pub(crate) fn request(index: u32, records: u32) -> ExportLogsServiceRequest {
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
    let log_records = (0..records).map(|n| record(&mut random, index * records + n)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
    let logs = ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
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
