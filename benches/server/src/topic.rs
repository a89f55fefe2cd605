//! The topics: made, filled, counted, deleted.

use std::{future::Future, process::Command, time::Duration};

use anyhow::{bail, ensure};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use serde_json::json;

use crate::{payload, plan::Arguments};

/// Of every topic here.
pub(crate) const PARTITIONS: i32 = 4;
/// Records a message of a topic that is drained.
pub(crate) const RECORDS: u32 = 100;
/// Different messages: 100,000 records, 53 MB. More than any cache holds.
const MESSAGES: u32 = 1_000;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a topic that is not there yet.
pub(crate) fn create(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("max.message.bytes", "20000000");
    let answers = wait(admin(brokers)?.create_topics([&new], &options()))??;
    for answer in answers {
        if let Err((topic, code)) = answer {
            bail!("cannot create the topic {topic}: {code}");
        }
    }
    Ok(())
}

/// Deletes a topic: its disk space is needed for the next.
pub(crate) fn delete(brokers: &str, topic: &str) -> anyhow::Result<()> {
    wait(admin(brokers)?.delete_topics(&[topic], &options()))??;
    Ok(())
}

fn admin(brokers: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(client(brokers).create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn wait<F: Future>(future: F) -> anyhow::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

pub(crate) fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// How many messages lie in the topic.
pub(crate) fn messages(brokers: &str, topic: &str) -> anyhow::Result<u64> {
    let consumer: BaseConsumer = client(brokers).create()?;
    (0..PARTITIONS).try_fold(0, |sum, partition| {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        Ok(sum + u64::try_from(high - low)?)
    })
}

/// How many messages of the topic the group has committed.
pub(crate) fn committed(brokers: &str, topic: &str, group: &str) -> anyhow::Result<u64> {
    let consumer: BaseConsumer = client(brokers).set("group.id", group).create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(topic, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(partitions, TIMEOUT)?;
    let offset = |offset| if let Offset::Offset(offset) = offset { u64::try_from(offset).unwrap_or(0) } else { 0 };
    Ok(committed.elements().iter().map(|partition| offset(partition.offset())).sum())
}

/// Makes and fills a topic, by a process of its own: what it takes for that is not the parent's.
pub(crate) fn filled(brokers: &str, topic: &str, records: u64, format: &str) -> anyhow::Result<()> {
    create(brokers, topic)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["fill", "--brokers", brokers, "--topic", topic, "--format", format]);
    let status = command.args(["--records", &records.to_string()]).status()?;
    ensure!(status.success(), "filling the topic {topic}: {status}");
    Ok(())
}

/// `fill --brokers LIST --topic NAME --records N --format otlp|json`
pub(crate) fn fill(arguments: &Arguments) -> anyhow::Result<()> {
    let (topic, records): (_, u64) = (arguments.text("--topic")?, arguments.number("--records")?);
    let (values, each) = match arguments.text("--format")? {
        "otlp" => ((0..MESSAGES).map(|index| payload::request(index, RECORDS).encode_to_vec()).collect(), RECORDS),
        "json" => ((0..MESSAGES / 10).flat_map(lines).collect::<Vec<_>>(), 1),
        other => bail!("--format {other}: write otlp or json"),
    };
    let messages = records / u64::from(each);
    let producer: ThreadedProducer<DefaultProducerContext> = client(arguments.text("--brokers")?)
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .create()?;
    for (number, value) in (0..messages).zip(values.iter().cycle()) {
        let partition = i32::try_from(number % PARTITIONS as u64)?;
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value);
        while let Err((error, back)) = producer.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                error => bail!("filling the topic {topic}: {error}"),
            }
            record = back;
        }
    }
    producer.flush(TIMEOUT * 4)?;
    let found = self::messages(arguments.text("--brokers")?, topic)?;
    ensure!(found == messages, "{topic} holds {found} of {messages} messages");
    Ok(())
}

/// Records as other shippers write them: a JSON document of about a kilobyte each, with what the OTLP records say.
fn lines(index: u32) -> Vec<Vec<u8>> {
    let mut request = payload::request(index, RECORDS);
    let logs = request.resource_logs.remove(0);
    let pairs = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| -> serde_json::Value {
        let value = |pair: &opentelemetry_proto::tonic::common::v1::KeyValue| match pair.value.clone()?.value? {
            Value::StringValue(text) => Some(json!(text)),
            Value::IntValue(number) => Some(json!(number)),
            Value::DoubleValue(number) => Some(json!(number)),
            Value::BoolValue(flag) => Some(json!(flag)),
            _ => None,
        };
        attributes.iter().map(|pair| (pair.key.clone(), json!(value(pair)))).collect::<serde_json::Map<_, _>>().into()
    };
    let resource = pairs(&logs.resource.unwrap_or_default().attributes);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let records = logs.scope_logs.into_iter().flat_map(|logs| logs.log_records);
    let line = |record: opentelemetry_proto::tonic::logs::v1::LogRecord| {
        let body = record.body.and_then(|body| body.value);
        let message = if let Some(Value::StringValue(text)) = body { text } else { String::new() };
        json!({
            "@timestamp": "2026-01-01T00:00:00.123456789Z",
            "message": message,
            "log.level": record.severity_text,
            "trace.id": hex(&record.trace_id),
            "span.id": hex(&record.span_id),
            "attributes": pairs(&record.attributes),
            "resource": {"attributes": resource},
        })
        .to_string()
        .into_bytes()
    };
    records.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_size_that_all_figures_are_about() {
        let bytes = payload::request(0, RECORDS).encode_to_vec().len() as f64 / f64::from(RECORDS);
        assert!((500.0..560.0).contains(&bytes), "{bytes}");
        let line = lines(0).remove(0).len();
        assert!((800..1300).contains(&line), "{line}");
    }
}
