//! Cluster: Kafka, Elasticsearch and etcd, each only where a role needs it. All of them may be away when the server starts.

use std::sync::Arc;

use super::{DrainParts, Steps};
use crate::{
    config::{self, Config, Role, units::Bytes},
    error::Error,
    index::elasticsearch::{Auth, Elasticsearch, ElasticsearchOptions, Retention, RetentionOptions},
    metrics::Metrics,
    queue::{
        BoxFuture, DeadLetters, Message, QueueError, QueueReader,
        headers::HeaderReader,
        json::JsonReader,
        kafka::{KafkaDeadLetters, KafkaOptions, KafkaReader, KafkaWriter},
    },
};

/// What goes around the largest request in a Kafka message: headers, and the batch that holds it.
const MESSAGE_OVERHEAD_BYTES: usize = 1 << 20;

pub(super) fn compose(config: &Config, metrics: &Arc<Metrics>) -> Result<Steps, Error> {
    let kafka = config.kafka.as_ref().map(|kafka| (kafka_options(kafka, config), kafka.group.as_str()));
    let drain = kafka.as_ref().filter(|_| config.has(Role::Drain));
    let mut steps = Steps { queue_writer: None, drain: None, index: None, retention: None, dead: None };

    // index, for searches and for the drain
    if let Some(elastic) = config.elasticsearch.as_ref().filter(|_| drain.is_some() || config.has(Role::Query)) {
        let dead: Arc<dyn DeadLetters> = match drain {
            Some((options, _)) => Arc::new(KafkaDeadLetters::connect(options, metrics.clone())?),
            None => Arc::new(NoDrain),
        };
        let mut options = elasticsearch_options(elastic, kafka.as_ref().map(|(options, _)| options.topic.clone()));
        options.body_bytes_max = Bytes(config.drain.request_bytes_max()).as_usize();
        let index = Arc::new(Elasticsearch::connect(options, dead.clone(), metrics.clone())?);
        steps.index = Some(index.clone());
        // queue → drain
        if let Some((options, group)) = drain {
            let reader = KafkaReader::connect(options, group, metrics.clone())?;
            let etcd = config.etcd.clone().map(|etcd| (etcd.endpoints, etcd.fleet)).unwrap_or_default();
            steps.retention = Some(Retention::new(index.clone(), etcd.0, etcd.1));
            let reader = read_as(config, Box::new(reader), &dead, metrics);
            steps.drain = Some(DrainParts { reader, writer: index });
            steps.dead = Some(dead);
        }
    }
    // ingest → queue
    if let Some((options, _)) = kafka.as_ref().filter(|_| config.has(Role::Ingest)) {
        steps.queue_writer = Some(Arc::new(KafkaWriter::connect(options, metrics.clone())?));
    }
    Ok(steps)
}

/// The reader, with JSON lines translated where the topic holds such, and with the headers that are wanted as attributes.
fn read_as(
    config: &Config,
    reader: Box<dyn QueueReader>,
    dead: &Arc<dyn DeadLetters>,
    metrics: &Arc<Metrics>,
) -> Box<dyn QueueReader> {
    match &config.kafka {
        Some(kafka) if kafka.format == config::Format::Json => {
            Box::new(JsonReader::new(reader, kafka.json.clone(), Arc::clone(dead), Arc::clone(metrics)))
        }
        Some(kafka) if !kafka.header_attributes.is_empty() => {
            Box::new(HeaderReader::new(reader, kafka.header_attributes.clone(), Arc::clone(metrics)))
        }
        _ => reader,
    }
}

pub(super) fn kafka_options(kafka: &config::Kafka, config: &Config) -> KafkaOptions {
    let defaults = KafkaOptions::default();
    KafkaOptions {
        brokers: kafka.brokers.clone(),
        topic: kafka.topic.clone(),
        partitions: kafka.partitions,
        replication: kafka.replication.unwrap_or(defaults.replication),
        message_bytes_max: config.ingest.request_bytes_max.as_usize() + MESSAGE_OVERHEAD_BYTES,
        instance: kafka.instance.clone(),
        assignment: kafka.assignment,
        oversize: kafka.oversize,
        compression: kafka.compression,
        properties: kafka.properties.clone(),
    }
}

fn elasticsearch_options(elastic: &config::Elasticsearch, topic: Option<String>) -> ElasticsearchOptions {
    let defaults = ElasticsearchOptions::default();
    let basic = elastic.username.as_ref().zip(elastic.password.as_ref());
    let auth = match (&elastic.api_key, &elastic.bearer_token, basic) {
        (Some(key), _, _) => Auth::ApiKey(key.0.clone()),
        (_, Some(token), _) => Auth::Bearer(token.0.clone()),
        (_, _, Some((username, password))) => Auth::Basic { username: username.clone(), password: password.0.clone() },
        _ => Auth::None,
    };
    ElasticsearchOptions {
        urls: elastic.urls.clone(),
        data_stream: elastic.data_stream.clone(),
        streams_max: elastic.streams_max,
        layout: elastic.layout,
        retention: retention_options(&elastic.retention),
        refresh_interval: format!("{}ms", elastic.refresh_interval.0.as_millis()),
        field_names: elastic.field_names,
        auth,
        ca: elastic.ca.clone(),
        cloud_id: elastic.cloud_id.clone(),
        timeout: elastic.timeout.0,
        compression: elastic.compression,
        request_bytes_max: elastic.request_bytes_max.as_usize(),
        requests_max: elastic.requests_max,
        shards: elastic.shards,
        replicas: elastic.replicas,
        setup: elastic.setup,
        queue: topic.unwrap_or(defaults.queue),
        ..defaults
    }
}

fn retention_options(retention: &config::ElasticsearchRetention) -> RetentionOptions {
    RetentionOptions {
        by: retention.by,
        age: retention.age.map(|age| age.0),
        bytes: retention.bytes.map(|bytes| bytes.0),
        rollover_age: retention.rollover_age.0,
        rollover_bytes: retention.rollover_bytes.0,
        every: retention.every.0,
    }
}

/// The dead letters of a process that writes nothing to the index.
struct NoDrain;

impl DeadLetters for NoDrain {
    fn put(&self, _: &Message, _: Option<u32>, _: &str, _: &[u8]) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async { Err(QueueError::Failed("this process has not the role \"drain\"".into())) })
    }
}
