//! Stories of the whole hot path, each decoded with the official OTLP types.

#[cfg(any(feature = "log", feature = "opentelemetry"))]
mod bridges;
mod fields;
mod live;
mod nesting;
mod oracle;
mod oversize;
mod recorder;
mod rules;
mod spans;
mod threads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ScopeLogs},
};
use prost::Message;
use tracing_core::Dispatch;
use tracing_subscriber::{Registry, layer::SubscriberExt, prelude::*};

use super::{Capture, LogsinkLayer};
use crate::{
    filter::rules::{Document, RuleSet},
    metrics::{Metrics, Reason},
    queue::{self, CHUNK_BYTES, Consumer},
    reload::Reload,
};

/// A pipeline without a worker.
struct Bench {
    consumer: Mutex<Consumer>,
    reload: Arc<Reload>,
    metrics: Arc<Metrics>,
}

impl Bench {
    /// Everything passes; 16 chunks.
    fn new() -> (Self, LogsinkLayer) {
        Self::with("filter = \"trace\"", 16, Capture::default())
    }

    fn with(rules: &str, chunks: usize, capture: Capture) -> (Self, LogsinkLayer) {
        let (producer, consumer) = queue::channel(chunks * CHUNK_BYTES);
        let rules = RuleSet::compile(&[document(rules)], "checkout").expect("rules compile");
        let bench =
            Self { consumer: Mutex::new(consumer), reload: Reload::new(rules), metrics: Arc::new(Metrics::new()) };
        let layer = LogsinkLayer::new(producer, bench.reload.clone(), bench.metrics.clone(), capture);
        (bench, layer)
    }

    /// Runs `code` under a subscriber that has this layer alone, and returns what was recorded.
    fn run(code: impl FnOnce()) -> Vec<Record> {
        let (bench, layer) = Self::new();
        tracing::subscriber::with_default(Registry::default().with(layer.filtered()), code);
        bench.records()
    }

    /// What was published since the last call.
    fn records(&self) -> Vec<Record> {
        let mut body = Vec::new();
        let mut count = 0;
        self.consumer.lock().unwrap().drain(&mut |run| {
            count += queue::records(run).count();
            assert_eq!(queue::records(run).map(<[u8]>::len).sum::<usize>(), run.len(), "runs hold whole records");
            body.extend_from_slice(run);
        });
        let records = ScopeLogs::decode(&*body).expect("runs concatenate to ScopeLogs").log_records;
        assert_eq!(records.len(), count);
        records.into_iter().map(Record::new).collect()
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.metrics.dropped_for(reason)
    }
}

fn document(text: &str) -> Document {
    Document::parse(text).expect("document parses")
}

fn dispatch(layer: LogsinkLayer) -> Dispatch {
    Dispatch::new(Registry::default().with(layer.filtered()))
}

/// A record as a test wants to look at it. Making one checks what holds for all.
#[derive(Debug)]
struct Record {
    raw: LogRecord,
    attributes: BTreeMap<String, Value>,
}

impl Record {
    fn new(raw: LogRecord) -> Self {
        let keys: BTreeSet<_> = raw.attributes.iter().map(|attribute| &attribute.key).collect();
        assert_eq!(keys.len(), raw.attributes.len(), "no key twice: {:?}", raw.attributes);
        assert!(raw.time_unix_nano > 0 && raw.time_unix_nano == raw.observed_time_unix_nano);
        let attributes = raw
            .attributes
            .iter()
            .map(|attribute| {
                let value = attribute.value.clone().and_then(|any| any.value).expect("an attribute has a value");
                (attribute.key.clone(), value)
            })
            .collect();
        Self { raw, attributes }
    }

    fn message(&self) -> &str {
        match &self.raw.body {
            Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
            other => panic!("the body is {other:?}"),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.attributes.get(key)
    }

    fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{key} is {other:?}"),
        }
    }

    fn int(&self, key: &str) -> i64 {
        match self.get(key) {
            Some(Value::IntValue(number)) => *number,
            other => panic!("{key} is {other:?}"),
        }
    }
}
