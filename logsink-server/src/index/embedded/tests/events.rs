//! Events to test with, encoded by the official types.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

use crate::queue::{Headers, Message, Position};

/// One event.
#[derive(Debug, Clone, Default)]
pub(super) struct Event {
    pub(super) time_ns: i64,
    pub(super) severity: i32,
    pub(super) service: String,
    pub(super) scope: String,
    pub(super) message: String,
    pub(super) trace_id: Vec<u8>,
    pub(super) span_id: Vec<u8>,
    pub(super) attributes: Vec<(String, any_value::Value)>,
}

impl Event {
    /// A plain event this many seconds after 1970 began, and one: time 0 means "unknown".
    pub(super) fn at(second: i64) -> Self {
        Self::at_ns((second + 1) * 1_000_000_000)
    }

    pub(super) fn at_ns(time_ns: i64) -> Self {
        Self { time_ns, severity: 9, service: "shop".into(), message: format!("event {time_ns}"), ..Self::default() }
    }
}

pub(super) fn text(text: &str) -> any_value::Value {
    any_value::Value::StringValue(text.to_owned())
}

pub(super) fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A message of the disk log with these events.
pub(super) fn message(offset: i64, events: &[Event]) -> Message {
    let resource_logs = events.iter().map(|event| ResourceLogs {
        resource: Some(Resource {
            attributes: vec![
                key_value("service.name", text(&event.service)),
                key_value("host.name", text(if event.service == "shop" { "h1" } else { "h2" })),
                key_value("pid", any_value::Value::IntValue(41)),
            ],
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope { name: event.scope.clone(), ..InstrumentationScope::default() }),
            log_records: vec![LogRecord {
                time_unix_nano: event.time_ns as u64,
                severity_number: event.severity,
                body: Some(AnyValue { value: Some(text(&event.message)) }),
                attributes: event.attributes.iter().map(|(key, value)| key_value(key, value.clone())).collect(),
                trace_id: event.trace_id.clone(),
                span_id: event.span_id.clone(),
                ..LogRecord::default()
            }],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    });
    let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
    Message {
        position: Position { partition: 0, offset },
        epoch: 0,
        payload: Bytes::from(request.encode_to_vec()),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

/// The message, as an instance of the library sends it.
pub(super) fn from(instance: &str, sequence: u64, mut message: Message) -> Message {
    message.headers.instance = Some(instance.to_owned());
    message.headers.sequence = Some(sequence);
    message
}

/// Messages from this offset on, with `each` events, made from their number.
pub(super) fn messages(
    offset: i64,
    count: i64,
    each: i64,
    make: impl Fn(i64) -> Event,
) -> impl Iterator<Item = Message> {
    (0..count).map(move |n| message(offset + n, &(0..each).map(|e| make(n * each + e)).collect::<Vec<_>>()))
}
