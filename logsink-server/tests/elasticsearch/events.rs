//! Events that are awkward in every way that an index can stumble over, and the means to write them down.

use logsink_server::queue::{Headers, Message, Position};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

use super::NEW_YEAR_NS;

fn wire(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub(super) fn text(text: &str) -> AnyValue {
    wire(Any::StringValue(text.into()))
}

pub(super) fn int(value: i64) -> AnyValue {
    wire(Any::IntValue(value))
}

pub(super) fn double(value: f64) -> AnyValue {
    wire(Any::DoubleValue(value))
}

pub(super) fn list(values: Vec<AnyValue>) -> AnyValue {
    wire(Any::ArrayValue(ArrayValue { values }))
}

pub(super) fn map(pairs: &[(&str, AnyValue)]) -> AnyValue {
    wire(Any::KvlistValue(KeyValueList { values: self::pairs(pairs) }))
}

pub(super) fn pairs(pairs: &[(&str, AnyValue)]) -> Vec<KeyValue> {
    let pair = |(key, value): &(&str, AnyValue)| KeyValue {
        key: (*key).into(),
        value: Some(value.clone()),
        ..KeyValue::default()
    };
    pairs.iter().map(pair).collect()
}

pub(super) fn record(severity: i32, body: AnyValue, attributes: &[(&str, AnyValue)]) -> LogRecord {
    LogRecord {
        severity_number: severity,
        body: Some(body),
        attributes: pairs(attributes),
        time_unix_nano: NEW_YEAR_NS,
        ..LogRecord::default()
    }
}

pub(super) fn message(sequence: u64, resource: &[(&str, AnyValue)], scope: &str, records: Vec<LogRecord>) -> Message {
    let scope = InstrumentationScope { name: scope.into(), ..InstrumentationScope::default() };
    let scope_logs = ScopeLogs { scope: Some(scope), log_records: records, ..ScopeLogs::default() };
    let resource = Resource { attributes: pairs(resource), ..Resource::default() };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    Message {
        position: Position { partition: 0, offset: i64::try_from(sequence).unwrap() },
        epoch: 1,
        payload: ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into(),
        headers: Headers { instance: Some("test".into()), sequence: Some(sequence), ..Headers::default() },
        dropped: Vec::new(),
    }
}

/// Events in every shape that the expression language can tell apart.
pub(super) fn odd_events() -> Vec<Message> {
    let long = "long ".repeat(8_000);
    let deep = (0..40).fold(int(1), |inner, _| map(&[("d", inner)]));
    let mut traced = record(9, text("traced"), &[]);
    traced.trace_id = (1..=16).collect();
    traced.span_id = (1..=8).collect();
    vec![
        message(
            1,
            &[("service.name", text("checkout")), ("host.name", text("web-1")), ("process.pid", int(42))],
            "scope::name",
            vec![
                record(
                    9,
                    text("connection refused by peer"),
                    &[("target", text("shop::pay")), ("latency_ms", int(251))],
                ),
                record(10, text("Connection REFUSED"), &[("latency_ms", double(250.0)), ("user", text("ann"))]),
                record(13, text("refused connection"), &[("latency_ms", int(250)), ("user", text("5"))]),
                record(
                    17,
                    text("a.b a_b a-b 3.14 don't é É 日本語"),
                    &[("latency_ms", text("fast")), ("user", int(5))],
                ),
                record(21, text(""), &[("latency_ms", int(-3)), ("user", double(5.0))]),
                record(
                    0,
                    text("path /api/v1"),
                    &[("path", text("/api/v1/items")), ("user", wire(Any::BoolValue(true)))],
                ),
                record(1, text("no path"), &[("path", text("/static")), ("user", text("true"))]),
                record(
                    5,
                    int(7),
                    &[("tags", list(vec![text("a"), int(5)])), ("m", map(&[("n", int(5)), ("s", text("x"))]))],
                ),
                record(
                    9,
                    map(&[("k", text("in a body"))]),
                    &[("m.n", int(6)), ("raw", wire(Any::BytesValue(vec![1, 2, 3])))],
                ),
                record(9, list(vec![text("one"), text("two")]), &[("l", list(vec![map(&[("z", int(2))])]))]),
                record(9, text("amb"), &[("m", map(&[("n", int(1))])), ("m.n", int(2))]),
                record(
                    9,
                    text("nulls"),
                    &[("host.name", AnyValue { value: None }), ("user", AnyValue { value: None })],
                ),
                record(9, text("shadow"), &[("host.name", text("other")), ("process.pid", text("none"))]),
                record(9, text("empties"), &[("tags", list(vec![])), ("m", map(&[])), ("user", text(""))]),
                record(9, text(&long), &[("path", text(&long)), ("target", text(&long))]),
                record(9, text("not finite"), &[("latency_ms", double(f64::INFINITY)), ("user", double(f64::NAN))]),
                record(9, text("minus"), &[("latency_ms", double(f64::NEG_INFINITY)), ("user", double(-0.0))]),
                record(9, text("big"), &[("latency_ms", int(i64::MAX)), ("user", int(9_007_199_254_740_993))]),
                record(9, text("small"), &[("latency_ms", double(1e-300)), ("user", double(0.1 + 0.2))]),
                record(9, text("nul \0 in it"), &[("a\0b", int(1)), ("path", text("x\0y"))]),
                record(9, text("equals"), &[("m=n", text("o")), ("user=5", int(7)), ("latency_ms=1", text("a"))]),
                record(9, text("equals alone"), &[("process.pid=43", int(1))]),
                record(9, text("twice"), &[("user", text("ann")), ("user", text("bob"))]),
                record(9, text("deep"), &[("deep", deep)]),
                record(
                    9,
                    text("odd keys"),
                    &[("", int(1)), ("a..b", int(2)), (".x", int(3)), ("a b", int(4)), ("x*", int(5))],
                ),
                traced,
                record(
                    9,
                    text("served"),
                    &[("http.response.status_code", int(503)), ("url.path", text("/static")), ("host.name", int(5))],
                ),
                record(
                    9,
                    text("served oddly"),
                    &[("http.response.status_code", text("503")), ("url.path", map(&[("x", int(1))]))],
                ),
                record(
                    9,
                    text("served at length"),
                    &[("http.response.status_code", double(503.5)), ("url.path", text(&long))],
                ),
                record(9, text("served much"), &[("http.response.status_code", int(i64::MAX))]),
                record(
                    9,
                    text("nested"),
                    &[
                        ("http", map(&[("response", map(&[("status_code", int(404))]))])),
                        ("http.response.status_code", int(503)),
                    ],
                ),
                record(9, text("pid of its own"), &[("process.pid", AnyValue { value: None })]),
                record(9, text("other pid"), &[("process.pid", int(43)), ("exception.type", text("Broken"))]),
            ],
        ),
        message(2, &[], "", vec![record(12, text("no service at all"), &[]), LogRecord::default()]),
        message(
            3,
            &[
                ("service.name", text("Checkout")),
                ("m", map(&[("n", int(5))])),
                ("url.path", text("/r")),
                ("tags=x", text("y")),
            ],
            "",
            vec![record(14, text("other service connection"), &[]), record(9, text("own m"), &[("m", text("mine"))])],
        ),
    ]
}

pub(super) const EXPRESSIONS: &[&str] = &[
    "",
    "not m=\"n=o\"",
    "not tags=\"x=y\"",
    "not exists(tags)",
    "not exists(user)",
    "not latency_ms>0",
    "level>=warn",
    "level=info",
    "level!=info",
    "level<debug",
    "level<=trace",
    "not level>=trace",
    "service=checkout",
    "service!=checkout",
    "service~\"(?i)^check\"",
    "exists(service)",
    "target=shop::pay",
    "target=scope::name",
    "exists(target)",
    "not exists(target)",
    "\"connection refused\"",
    "not \"connection refused\"",
    "\"refused\"",
    "\"a.b\"",
    "\"a_b\"",
    "\"a b\"",
    "\"don't\"",
    "\"3.14\"",
    "\"É\"",
    "\"日本\"",
    "\"...\"",
    "\"in a body\"",
    "message=\"connection refused by peer\"",
    "message=\"Connection Refused\"",
    "message=\"\"",
    "message~\"^Conn\"",
    "not message~\"o\"",
    "exists(message)",
    "not exists(message)",
    "latency_ms>250",
    "latency_ms>=250",
    "latency_ms<250",
    "latency_ms<=250",
    "latency_ms=250",
    "latency_ms=250.0",
    "latency_ms!=250",
    "latency_ms=fast",
    "latency_ms<0",
    "latency_ms>-1e308",
    "latency_ms>1e308",
    "not latency_ms>250",
    "not latency_ms<=250",
    "user=5",
    "user=5.0",
    "user!=5",
    "user=true",
    "user=ann",
    "user=bob",
    "user=\"\"",
    "not user=\"\"",
    "user=0",
    "user=0.30000000000000004",
    "user=9007199254740993",
    "user=9007199254740992",
    "user~\"5\"",
    "not user~\"5\"",
    "user=NaN",
    "not user>0",
    "exists(user)",
    "not exists(user)",
    "path~\"^/api/\"",
    "path=/static",
    "not path=/static",
    "exists(path)",
    "tags=5",
    "not tags=5",
    "tags=a",
    "exists(tags)",
    "tags~\"a\"",
    "m.n=5",
    "not m.n=5",
    "m.n>=5",
    "m.n=2",
    "m.n=1",
    "not m.n=1",
    "m.s=x",
    "m=mine",
    "exists(m)",
    "not exists(m)",
    "exists(m.n)",
    "l.z=2",
    "not l.z=2",
    "exists(l.z)",
    "raw=\"AQID\"",
    "host.name=web-1",
    "host.name!=web-1",
    "exists(host.name)",
    "not exists(host.name)",
    "process.pid=42",
    "not process.pid=42",
    "process.pid>1",
    "process.pid=none",
    "service.name=checkout",
    "trace_id=0102030405060708090a0b0c0d0e0f10",
    "span_id=0102030405060708",
    "exists(trace_id)",
    "not exists(span_id)",
    "trace_id~\"^01\"",
    "level=info (user=ann or latency_ms>250)",
    "not (level=info or not service=checkout)",
    "not (user=5 or path~\"x\") level<error",
    "http.response.status_code=503",
    "not http.response.status_code=503",
    "http.response.status_code>=500",
    "not http.response.status_code>=500",
    "http.response.status_code>503",
    "http.response.status_code<503.5",
    "http.response.status_code<=503.5",
    "http.response.status_code>1e300",
    "http.response.status_code<1e300",
    "http.response.status_code=9223372036854775807",
    "http.response.status_code=503.0",
    "http.response.status_code=abc",
    "exists(http.response.status_code)",
    "not exists(http.response.status_code)",
    "http.response.status_code~\"^5\"",
    "url.path=/static",
    "not url.path=/static",
    "url.path=/r",
    "not url.path=/r",
    "exists(url.path)",
    "url.path.x=1",
    "url.path>1",
    "host.name=5",
    "process.pid=43",
    "process.pid<43",
    "not process.pid<43",
    "not process.pid>1",
    "exists(process.pid)",
    "not exists(process.pid)",
    "exception.type=Broken",
    "not exception.type=Broken",
    "m.n>1",
    "not m.n>1",
    "m.n<2",
    "not m.n<2",
    "exists(nothing)",
    "not exists(nothing)",
];
