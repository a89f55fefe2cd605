//! Batches and records that are larger than the topic takes, against a real broker.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message as _;
use rdkafka::{
    admin::{AdminClient, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};

use super::{super::*, broker::*};
use crate::{
    metrics::Metrics,
    otlp,
    queue::{Batch, Message, QueueReader, QueueWriter, dead::DeadArchive},
};

/// Records of random letters, which no compression makes small, each with as many bytes.
fn batch(sequence: u64, sizes: &[usize]) -> Batch {
    let mut random = fastrand::Rng::with_seed(sequence);
    let records = sizes.iter().enumerate().map(|(index, &bytes)| LogRecord {
        time_unix_nano: index as u64 + 1,
        body: Some(AnyValue {
            value: Some(Value::StringValue((0..bytes).map(|_| random.alphanumeric()).collect::<String>())),
        }),
        ..LogRecord::default()
    });
    let scope = ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    Batch {
        payload: ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec().into(),
        headers: Headers { instance: Some("i".into()), sequence: Some(sequence), ..Headers::default() },
    }
}

/// Each record's id, as the index makes it of a sender's headers, with its number and the length of its text.
fn records(messages: &[Message]) -> BTreeMap<(u64, u32), (u64, usize)> {
    let mut all = BTreeMap::new();
    for message in messages {
        otlp::for_each_record(&message.payload, &mut |record| {
            let id = (message.headers.sequence.unwrap(), message.headers.first + record.index);
            assert_eq!(all.insert(id, (record.time_unix_nano, record.body.text().len())), None, "{id:?} stands twice");
        })
        .unwrap();
    }
    all
}

/// A topic that is there already and takes less than our messages.
pub(super) async fn small(name: &str, bytes_max: usize) -> KafkaOptions {
    let options = options(name);
    options.create_topic().await.unwrap();
    limit(&options, bytes_max).await;
    options
}

async fn limit(options: &KafkaOptions, bytes_max: usize) {
    let admin: AdminClient<DefaultClientContext> = options.client(&[]).create().unwrap();
    let text = bytes_max.to_string();
    let change = AlterConfig::new(ResourceSpecifier::Topic(&options.topic)).set("max.message.bytes", &text);
    for answer in admin.alter_configs([&change], &AdminOptions::new()).await.unwrap() {
        answer.unwrap();
    }
}

/// As a sender does: again and again until it is taken.
async fn append(writer: &KafkaWriter, batch: &Batch) {
    for _ in 0..20 {
        match writer.append(batch.clone()).await {
            Ok(()) => return,
            Err(QueueError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("not taken");
}

#[tokio::test]
async fn a_batch_over_the_topics_limit_is_split_and_its_records_keep_their_ids() {
    let options = small("split", 50_000).await;
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, metrics.clone()).unwrap();
    let whole = batch(1, &[9_000; 40]);
    append(&writer, &whole).await;
    // The topic takes even less, and the sender did not hear the answer: what is cut elsewhere is the same records.
    let mut reader = KafkaReader::connect(&options, "first", Metrics::new()).unwrap();
    let mut once = Vec::new();
    while records(&once).len() < 40 {
        once.extend(read(&mut reader, 1).await);
    }
    let first = records(&once);
    let expected = (0..40).map(|index| ((1, index), (u64::from(index) + 1, 9_000))).collect();
    assert_eq!(first, expected);
    assert!(once.len() >= 8 && once.iter().all(|message| message.payload.len() < 50_000), "{}", once.len());
    limit(&options, 20_000).await;
    append(&writer, &whole).await;
    let mut twice = Vec::new();
    // What was cut in the first way arrives as far as the topic takes it.
    while records(&twice).len() < 40 {
        twice.retain(|message: &Message| message.payload.len() < 20_000);
        twice.extend(read(&mut reader, 1).await);
    }
    assert_eq!(records(&twice), expected_again());
    assert!(metrics.queue_split.get() >= 2);
    Box::new(reader).close().await.unwrap();

    fn expected_again() -> BTreeMap<(u64, u32), (u64, usize)> {
        (0..40).map(|index| ((1, index), (u64::from(index) + 1, 9_000))).collect()
    }
}

/// librdkafka sends several messages as one, and the broker looks at the size of all of them.
#[tokio::test]
async fn small_batches_are_taken_by_a_topic_that_takes_little() {
    let options = small("little", 30_000).await;
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let batches: Vec<_> = (0..60).map(|sequence| batch(sequence, &[4_000])).collect();
    futures_util::future::join_all(batches.iter().map(|batch| append(&writer, batch))).await;
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 60 {
        seen.extend(sequences(&read(&mut reader, 1).await));
    }
    Box::new(reader).close().await.unwrap();
}

#[tokio::test]
async fn a_record_over_the_limit_is_cut_and_marked() {
    let options = small("cut", 30_000).await;
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, metrics.clone()).unwrap();
    append(&writer, &batch(1, &[100, 90_000, 100])).await;
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let messages = read(&mut reader, 3).await;
    let records = records(&messages);
    assert_eq!((records[&(1, 0)], records[&(1, 2)]), ((1, 100), (3, 100)));
    assert!((20_000..30_000).contains(&records[&(1, 1)].1), "{records:?}");
    assert_eq!(metrics.queue_truncated.get(), 1);
    let mut marked = 0;
    for message in &messages {
        otlp::for_each_record(&message.payload, &mut |record| {
            marked += usize::from(record.attributes().get("logsink.truncated.original_bytes").is_some());
        })
        .unwrap();
    }
    assert_eq!(marked, 1);
    Box::new(reader).close().await.unwrap();
}

#[tokio::test]
async fn a_record_over_the_limit_is_a_dead_letter_where_the_settings_say_so() {
    let mut options = small("bury", 30_000).await;
    options.oversize = Oversize::DeadLetter;
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, metrics.clone()).unwrap();
    append(&writer, &batch(1, &[100, 90_000, 100])).await;
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    assert_eq!(records(&read(&mut reader, 2).await).len(), 2);
    Box::new(reader).close().await.unwrap();
    let letters = tokio::task::spawn_blocking(move || {
        let mut letters = Vec::new();
        KafkaDeadArchive::connect(&options).unwrap().each(&mut |letter| {
            letters.push(letter);
            true
        })?;
        Ok::<_, QueueError>(letters)
    });
    let letters = letters.await.unwrap().unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.starts_with("too_large: a record of 90"), "{}", letters[0].reason);
    // Sent again, it is the batch's second record.
    assert_eq!((letters[0].headers.first, letters[0].headers.sequence), (1, Some(1)));
    assert!(metrics.encode().contains("logsink_index_dead_total{reason=\"too_large\"} 1"));
}

#[tokio::test]
async fn the_largest_request_fits_a_message() {
    let options = options("largest");
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let largest = Batch { payload: vec![0; 16 << 20].into(), ..batch(0, &[1]) };
    writer.append(largest).await.unwrap();
}
