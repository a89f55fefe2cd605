//! Cluster: Kafka, Elasticsearch and etcd.
use super::Steps;
use crate::{config::Config, error::Error, metrics::Metrics};
use std::sync::Arc;

pub(super) async fn compose(_config: &Config, _metrics: &Arc<Metrics>) -> Result<Steps, Error> {
    Ok(Steps { queue_writer: None, drain: None, index_reader: None })
}
