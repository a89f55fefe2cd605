//! Headers of Kafka messages as attributes of their records: what `[kafka] header_attributes` names.
//!
//! Stands between the queue's reader and drain, only where the setting names any. A header stands beside a whole message, so its
//! attribute goes to the message's resources, once for all of their records, under the name that the headers of JSON lines have
//! too. A resource that has an attribute of that name keeps it: the message was sent again from the dead letters. What is no
//! OTLP passes as it is, since drain says what is wrong with it.

use std::sync::Arc;

use bytes::Bytes;

use super::{BoxFuture, Fetched, HEADER_PREFIX, Message, Position, QueueError, QueueReader, split::put};
use crate::{
    metrics::Metrics,
    otlp::{WireError, tag, wire::Reader},
};

/// What the attributes of one message may add to it beside as many bytes as it has itself: some kilobytes of headers in a small
/// message. A message with more than that, of thousands of resources, is left as it is and counted.
const GROWTH_FREE: usize = 16 << 10;

/// A reader whose messages have their headers among the attributes.
pub struct HeaderReader {
    inner: Box<dyn QueueReader>,
    /// The headers' names.
    names: Vec<String>,
    metrics: Arc<Metrics>,
}

/// An attribute to be added.
struct Attribute<'h> {
    key: String,
    value: &'h [u8],
}

impl HeaderReader {
    /// Reads `inner`'s messages and adds the headers of these names.
    pub fn new(inner: Box<dyn QueueReader>, names: Vec<String>, metrics: Arc<Metrics>) -> Self {
        Self { inner, names, metrics }
    }

    fn add(&self, message: &mut Message) {
        let others = &message.headers.others;
        // Of a name that stands twice the last one counts, as it does among attributes.
        let found = self.names.iter().filter_map(|name| others.iter().rfind(|(key, _)| key == name));
        let attributes: Vec<_> =
            found.map(|(key, value)| Attribute { key: format!("{HEADER_PREFIX}{key}"), value }).collect();
        if attributes.is_empty() {
            return;
        }
        match with_attributes(&message.payload, &attributes) {
            Ok(Some(payload)) => message.payload = Bytes::from(payload),
            Ok(None) => _ = self.metrics.drain_headers_left_out.inc(),
            // Drain finds the same, and says so.
            Err(_) => {}
        }
    }
}

impl QueueReader for HeaderReader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        Box::pin(async move {
            let mut fetched = self.inner.next(bytes_max).await?;
            if let Fetched::Messages(messages) = &mut fetched {
                messages.iter_mut().for_each(|message| self.add(message));
            }
            Ok(fetched)
        })
    }

    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError> {
        self.inner.commit(next)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        self.inner.close()
    }
}

/// The request with these attributes in each of its resources; none when it would grow too much. All else is copied byte for
/// byte, unknown fields included.
fn with_attributes(payload: &[u8], attributes: &[Attribute<'_>]) -> Result<Option<Vec<u8>>, WireError> {
    let growth_max = GROWTH_FREE + payload.len();
    let mut out = Vec::with_capacity(payload.len() + 256);
    let mut request = Reader::new(payload);
    loop {
        let start = request.position();
        let Some(key) = request.key()? else { return Ok(Some(out)) };
        if key != tag::request::RESOURCE_LOGS {
            request.pass(key)?;
            out.extend_from_slice(&payload[start..request.position()]);
            continue;
        }
        let inner = resource_logs(request.len_bytes()?, attributes)?;
        put(key, &inner, &mut out);
        if out.len() > request.position() + growth_max {
            return Ok(None);
        }
    }
}

fn resource_logs(bytes: &[u8], attributes: &[Attribute<'_>]) -> Result<Vec<u8>, WireError> {
    let (mut resource, mut rest) = (None, Vec::with_capacity(bytes.len()));
    let mut message = Reader::new(bytes);
    loop {
        let start = message.position();
        let Some(key) = message.key()? else { break };
        if key == tag::resource_logs::RESOURCE && resource.is_none() {
            resource = Some(message.len_bytes()?);
        } else {
            // A second resource among them: it is refused by whoever reads it, as it would have been.
            message.pass(key)?;
            rest.extend_from_slice(&bytes[start..message.position()]);
        }
    }
    let mut inner = resource.unwrap_or_default().to_vec();
    for attribute in attributes {
        if !has(resource.unwrap_or_default(), &attribute.key)? {
            put(tag::resource::ATTRIBUTES, &attribute.pair(), &mut inner);
        }
    }
    let mut out = Vec::with_capacity(inner.len() + rest.len() + 8);
    put(tag::resource_logs::RESOURCE, &inner, &mut out);
    out.extend_from_slice(&rest);
    Ok(out)
}

/// Whether a resource has an attribute of this name.
fn has(resource: &[u8], name: &str) -> Result<bool, WireError> {
    let mut message = Reader::new(resource);
    while let Some(key) = message.key()? {
        if key != tag::resource::ATTRIBUTES {
            message.pass(key)?;
            continue;
        }
        let mut pair = Reader::new(message.len_bytes()?);
        while let Some(key) = pair.key()? {
            match key {
                tag::key_value::KEY if pair.len_bytes()? == name.as_bytes() => return Ok(true),
                tag::key_value::KEY => {}
                _ => pair.pass(key)?,
            }
        }
    }
    Ok(false)
}

impl Attribute<'_> {
    /// A `KeyValue`, of text where the header is that.
    fn pair(&self) -> Vec<u8> {
        let is_text = std::str::from_utf8(self.value).is_ok();
        let mut value = Vec::with_capacity(self.value.len() + 8);
        put(if is_text { tag::any_value::STRING } else { tag::any_value::BYTES }, self.value, &mut value);
        let mut pair = Vec::with_capacity(self.key.len() + value.len() + 16);
        put(tag::key_value::KEY, self.key.as_bytes(), &mut pair);
        put(tag::key_value::VALUE, &value, &mut pair);
        pair
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
        resource::v1::Resource,
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn text(key: &str, value: &str) -> KeyValue {
        pair(key, Value::StringValue(value.into()))
    }

    /// A request with these resources, each with a record.
    fn request(resources: Vec<Option<Vec<KeyValue>>>) -> ExportLogsServiceRequest {
        let resource = |attributes| Resource { attributes, dropped_attributes_count: 3, ..Resource::default() };
        let scope = ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() };
        let logs = |attributes: Option<Vec<KeyValue>>| ResourceLogs {
            resource: attributes.map(resource),
            scope_logs: vec![scope.clone()],
            schema_url: "schema".into(),
        };
        ExportLogsServiceRequest { resource_logs: resources.into_iter().map(logs).collect() }
    }

    fn attribute<'v>(name: &str, value: &'v [u8]) -> Attribute<'v> {
        Attribute { key: format!("{HEADER_PREFIX}{name}"), value }
    }

    #[test]
    fn each_resource_gets_the_attributes_that_it_has_not() {
        let service = || text("service.name", "shop");
        let before =
            request(vec![Some(vec![service()]), None, Some(vec![text("kafka.header.tenant", "of before"), service()])]);
        let attributes = [attribute("tenant", b"acme"), attribute("raw", b"\xff\x00")];
        let after = with_attributes(&before.encode_to_vec(), &attributes).unwrap().unwrap();
        let after = ExportLogsServiceRequest::decode(&*after).unwrap();
        let raw = || pair("kafka.header.raw", Value::BytesValue(b"\xff\x00".to_vec()));
        let tenant = || text("kafka.header.tenant", "acme");
        let mut wanted = request(vec![
            Some(vec![service(), tenant(), raw()]),
            Some(vec![tenant(), raw()]),
            Some(vec![text("kafka.header.tenant", "of before"), service(), raw()]),
        ]);
        wanted.resource_logs[1].resource.as_mut().unwrap().dropped_attributes_count = 0;
        assert_eq!(after, wanted);
    }

    #[test]
    fn a_message_of_many_resources_is_left_as_it_is() {
        let many = request(vec![None; 1_000]).encode_to_vec();
        let value = [b'x'; 1_000];
        assert_eq!(with_attributes(&many, &[attribute("tenant", &value)]).unwrap(), None);
        let few = request(vec![None; 10]).encode_to_vec();
        assert!(with_attributes(&few, &[attribute("tenant", &value)]).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(bytes: Vec<u8>) {
            let _ = with_attributes(&bytes, &[attribute("tenant", b"acme")]);
        }
    }
}
