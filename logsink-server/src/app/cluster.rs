//! Cluster: Kafka, Elasticsearch and etcd, each only where a role needs it.

use std::sync::Arc;

use super::{DrainParts, Steps};
use crate::{
    config::{self, Config, Role},
    error::Error,
    index::elasticsearch::{Auth, Elasticsearch, ElasticsearchOptions},
    metrics::Metrics,
    queue::{
        BoxFuture, DeadLetters, Message, QueueError,
        kafka::{KafkaDeadLetters, KafkaOptions, KafkaReader, KafkaWriter},
    },
};

pub(super) async fn compose(config: &Config, metrics: &Arc<Metrics>) -> Result<Steps, Error> {
    let kafka = config.kafka.as_ref().map(kafka_options);
    let mut steps = Steps { queue_writer: None, drain: None, index: None };

    // index, for searches and for the drain
    if let Some(elastic) = config.elasticsearch.as_ref().filter(|_| config.has(Role::Drain) || config.has(Role::Query)) {
        let dead: Arc<dyn DeadLetters> = match &kafka {
            Some(options) if config.has(Role::Drain) => Arc::new(KafkaDeadLetters::connect(options)?),
            _ => Arc::new(NoDrain),
        };
        let topic = config.kafka.as_ref().map(|kafka| kafka.topic.clone());
        let index = Elasticsearch::connect(elasticsearch_options(elastic, topic), dead, metrics.clone())?;
        let index = Arc::new(index);
        steps.index = Some(index.clone());
        // queue → drain
        if let Some(options) = kafka.as_ref().filter(|_| config.has(Role::Drain)) {
            steps.drain = Some(DrainParts { reader: Box::new(KafkaReader::connect(options, group)?), writer: index });
        }
    }
    // ingest → queue
    if let Some(options) = kafka.as_ref().filter(|_| config.has(Role::Ingest)) {
        steps.queue_writer = Some(Arc::new(KafkaWriter::connect(options)?));
    }
    Ok(steps)
}

fn elasticsearch_options(elastic: &config::Elasticsearch, topic: Option<String>) -> ElasticsearchOptions {
    let defaults = ElasticsearchOptions::default();
    let auth = match (&elastic.api_key, &elastic.username, &elastic.password) {
        (Some(key), _, _) => Auth::ApiKey(key.0.clone()),
        (None, Some(username), Some(password)) => {
            Auth::Basic { username: username.clone(), password: password.0.clone() }
        }
        (None, _, _) => Auth::None,
    };
    ElasticsearchOptions {
        urls: elastic.urls.clone(),
        data_stream: elastic.data_stream.clone(),
        auth,
        ca: elastic.ca.clone(),
        shards: elastic.shards,
        replicas: elastic.replicas,
        setup: elastic.setup,
        queue: topic.unwrap_or(defaults.queue),
        ..defaults
    }
}

/// The dead letters of a process that writes nothing to the index.
struct NoDrain;

impl DeadLetters for NoDrain {
    fn put(&self, _: &Message, _: Option<u32>, _: &str, _: &[u8]) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async { Err(QueueError::Failed("this process has not the role \"drain\"".into())) })
    }
}
