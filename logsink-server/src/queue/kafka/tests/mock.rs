//! Against the mock cluster that librdkafka has built in: what a real one shows only after a long time or with luck.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message as _;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::{Instant, sleep, timeout};

use super::{super::*, batch};
use crate::{
    metrics::Metrics,
    queue::{Batch, Fetched, Position, QueueReader, QueueWriter, dead::DeadLetter},
};

const DEADLINE: Duration = Duration::from_secs(60);

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, KafkaOptions) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("logs", 2, 1).unwrap();
    let options = KafkaOptions {
        brokers: vec![cluster.bootstrap_servers()],
        topic: "logs".into(),
        partitions: 0,
        ..KafkaOptions::default()
    };
    (cluster, options)
}

/// Reads on until the metrics show these lines.
async fn until_shown(metrics: &Metrics, lines: &[&str]) {
    let started = Instant::now();
    loop {
        let text = metrics.encode();
        if lines.iter().all(|line| text.lines().any(|found| found == *line)) {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "not {lines:?} in:\n{text}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Appends until it is taken: with a short `message.timeout.ms`, a client that has to connect first may be too late.
async fn append(writer: &KafkaWriter, index: u64) {
    let started = Instant::now();
    while let Err(error) = writer.append(batch(index)).await {
        assert!(started.elapsed() < DEADLINE, "{error}");
    }
}

#[tokio::test]
async fn what_is_not_committed_yet_is_the_lag() {
    let (_cluster, options) = cluster();
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let mut offsets = [0; 2];
    for index in 0..40 {
        writer.append(batch(index)).await.unwrap();
    }
    let metrics = Metrics::new();
    let mut reader = KafkaReader::connect(&options, "group", Arc::clone(&metrics)).unwrap();
    let mut read = 0;
    while read < 40 {
        if let Fetched::Messages(messages) = timeout(DEADLINE, reader.next(1 << 20)).await.unwrap().unwrap() {
            read += messages.len();
            messages.iter().for_each(|message| offsets[message.position.partition as usize] += 1);
        }
    }
    let line = |partition: usize, lag: i64| format!("logsink_drain_lag_records{{partition=\"{partition}\"}} {lag}");
    until_shown(&metrics, &[&line(0, offsets[0]), &line(1, offsets[1])]).await;
    reader.commit(&[Position { partition: 0, offset: offsets[0] - 3 }]).unwrap();
    until_shown(&metrics, &[&line(0, 3), &line(1, offsets[1])]).await;
    timeout(DEADLINE, Box::new(reader).close()).await.unwrap().unwrap();
}

/// Its end is not known, and what is read of it is not committed; but it must not keep those after it from that.
#[tokio::test]
async fn a_partition_without_a_leader_does_not_hold_up_the_commits_of_others() {
    let (cluster, options) = cluster();
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    for index in 0..40 {
        writer.append(batch(index)).await.unwrap();
    }
    let other: BaseConsumer = options.client(&[("group.id", "group")]).create().unwrap();
    let ends = [0, 1].map(|partition| other.fetch_watermarks("logs", partition, DEADLINE).unwrap().1);
    cluster.partition_leader("logs", 0, None).unwrap();
    let metrics = Metrics::new();
    let mut reader = KafkaReader::connect(&options, "group", Arc::clone(&metrics)).unwrap();
    let mut read = 0;
    while read < ends[1] {
        if let Fetched::Messages(messages) = timeout(DEADLINE, reader.next(1 << 20)).await.unwrap().unwrap() {
            assert!(messages.iter().all(|message| message.position.partition == 1));
            read += messages.len() as i64;
        }
    }
    let line = |partition: usize, lag: i64| format!("logsink_drain_lag_records{{partition=\"{partition}\"}} {lag}");
    until_shown(&metrics, &[&line(1, ends[1])]).await;
    reader.commit(&[Position { partition: 1, offset: ends[1] }]).unwrap();
    let committed = || {
        let mut list = TopicPartitionList::new();
        list.add_partition("logs", 1);
        other.committed_offsets(list, DEADLINE).unwrap().elements()[0].offset()
    };
    let started = Instant::now();
    while committed() != Offset::Offset(ends[1]) {
        assert!(started.elapsed() < DEADLINE, "not committed: {:?}", committed());
    }
    assert!(!metrics.encode().contains("logsink_drain_lag_records{partition=\"0\"}"));
    // It is asked again.
    cluster.partition_leader("logs", 0, Some(1)).unwrap();
    until_shown(&metrics, &[&line(0, ends[0]), &line(1, 0)]).await;
    timeout(DEADLINE, Box::new(reader).close()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_producer_given_up_by_librdkafka_is_replaced() {
    let (cluster, options) = cluster();
    // The brokers do not let it be idempotent: librdkafka never tries again with this producer.
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, Arc::clone(&metrics)).unwrap();
    // Given up before the first message is handed over, it takes none with it.
    if let Err(error) = timeout(DEADLINE, writer.append(batch(0))).await.unwrap() {
        assert!(matches!(&error, QueueError::Unavailable(_)), "{error:?}");
    }
    timeout(DEADLINE, writer.append(batch(1))).await.unwrap().unwrap();
    until_shown(&metrics, &["logsink_queue_clients_replaced_total{reason=\"producer\"} 1"]).await;
}

/// What librdkafka may do when the cluster has for a moment named no broker (librdkafka#5301).
#[tokio::test]
async fn a_producer_that_has_lost_all_brokers_is_replaced() {
    let (cluster, mut options) = cluster();
    options.properties.insert("message.timeout.ms".into(), "1000".into());
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, Arc::clone(&metrics)).unwrap();
    append(&writer, 0).await;
    writer.strand();
    let started = Instant::now();
    let mut index = 1;
    while let Err(error) = writer.append(batch(index)).await {
        assert!(matches!(&error, QueueError::Unavailable(_)), "{error:?}");
        assert!(started.elapsed() < DEADLINE, "{error}");
        index += 1;
    }
    until_shown(&metrics, &["logsink_queue_clients_replaced_total{reason=\"producer\"} 1"]).await;
    // Brokers that are away for everyone are no reason.
    cluster.broker_down(1).unwrap();
    for _ in 0..6 {
        assert!(writer.append(batch(index)).await.is_err());
    }
    cluster.broker_up(1).unwrap();
    append(&writer, index).await;
    until_shown(&metrics, &["logsink_queue_clients_replaced_total{reason=\"producer\"} 1"]).await;
}

/// Its sender has given up, and its bytes are free for others.
#[tokio::test]
async fn what_nobody_waits_for_is_not_sent() {
    let (cluster, options) = cluster();
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    writer.append(batch(0)).await.unwrap();
    cluster.broker_round_trip_time(1, Duration::from_secs(1)).unwrap();
    let (first, second) = (Bytes::from(vec![1; 1000]), Bytes::from(vec![2; 1000]));
    let with = |payload: &Bytes| Batch { payload: payload.clone(), ..batch(0) };
    // The second waits for the answer to the first, long after that batch has closed.
    let mut under_way = std::pin::pin!(writer.append(with(&first)));
    timeout(Duration::from_millis(200), &mut under_way).await.unwrap_err();
    timeout(Duration::from_millis(200), writer.append(with(&second))).await.unwrap_err();
    assert!(second.is_unique(), "nothing keeps it");
    under_way.await.unwrap();
}

/// It may hear the brokers, too, and send nothing.
#[tokio::test]
async fn a_producer_whose_messages_stay_unacknowledged_is_replaced() {
    let (cluster, mut options) = cluster();
    options.properties.insert("message.timeout.ms".into(), "1000".into());
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, Arc::clone(&metrics)).unwrap();
    append(&writer, 0).await;
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT; 1000];
    cluster.request_errors(RDKafkaApiKey::Produce, &refused);
    let replaced = "logsink_queue_clients_replaced_total{reason=\"producer\"} 1";
    let started = Instant::now();
    while !metrics.encode().contains(replaced) {
        assert!(started.elapsed() < DEADLINE, "nobody noticed");
        writer.append(batch(1)).await.unwrap_err();
    }
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    append(&writer, 1).await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_written_is_not_ready() {
    let (cluster, options) = cluster();
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    writer.ready().await.unwrap();
    writer.append(batch(0)).await.unwrap();
    writer.ready().await.unwrap();
    cluster.broker_down(1).unwrap();
    let error = timeout(DEADLINE, writer.ready()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("does not answer in time"), "{error}");
    cluster.broker_up(1).unwrap();
    let started = Instant::now();
    while let Err(error) = writer.ready().await {
        assert!(started.elapsed() < DEADLINE, "{error}");
    }
}

/// A megabyte of resource above many records would be written once for each few of them.
#[tokio::test]
async fn a_batch_that_splitting_would_multiply_is_refused_and_nothing_of_it_is_written() {
    let (_cluster, mut options) = cluster();
    options.message_bytes_max = 300_000;
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, Arc::clone(&metrics)).unwrap();
    let scope = ScopeLogs { log_records: vec![LogRecord::default(); 100_000], ..ScopeLogs::default() };
    let resource = |bytes| ResourceLogs {
        schema_url: "r".repeat(bytes),
        scope_logs: vec![scope.clone()],
        ..ResourceLogs::default()
    };
    let with_resource = |bytes| Batch {
        payload: ExportLogsServiceRequest { resource_logs: vec![resource(bytes)] }.encode_to_vec().into(),
        ..batch(0)
    };
    let batch = with_resource(299_000);
    let error = timeout(DEADLINE, writer.append(batch.clone())).await.unwrap().unwrap_err();
    let bytes = batch.payload.len();
    assert!(matches!(error, QueueError::TooLarge { bytes: all, bytes_max: 300_000 } if all == bytes), "{error:?}");
    assert_eq!(metrics.queue_split.get(), 0);
    timeout(DEADLINE, writer.append(with_resource(149_000))).await.unwrap().unwrap();
    assert_eq!(metrics.queue_split.get(), 1);
}

/// librdkafka sends small messages as one, which may be more than the topic takes, and these brokers do not tell how much that is.
#[tokio::test]
async fn small_messages_refused_together_do_not_make_larger_ones_be_split() {
    let (cluster, options) = cluster();
    let metrics = Metrics::new();
    let writer = KafkaWriter::connect(&options, Arc::clone(&metrics)).unwrap();
    writer.append(batch(0)).await.unwrap();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refused]);
    let with = |text: String| {
        let record = LogRecord { event_name: text, ..LogRecord::default() };
        let scope = ScopeLogs { log_records: vec![record; 2], ..ScopeLogs::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
        let payload = ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec().into();
        Batch { payload, ..batch(0) }
    };
    let error = timeout(DEADLINE, writer.append(with("small".into()))).await.unwrap().unwrap_err();
    assert!(matches!(&error, QueueError::Unavailable(message) if message.contains("smaller")), "{error:?}");
    append(&writer, 1).await;
    timeout(DEADLINE, writer.append(with("x".repeat(2_000)))).await.unwrap().unwrap();
    assert_eq!((metrics.queue_split.get(), metrics.queue_truncated.get()), (0, 0));
}

/// Of one sender, so that they go to one partition.
fn letters(count: usize, bytes: usize) -> Vec<DeadLetter> {
    let bytes = Bytes::from(vec![b'x'; bytes]);
    let letter = |index| DeadLetter {
        id: format!("0/{index}"),
        time_ms: 0,
        reason: String::new(),
        source: String::new(),
        record: None,
        headers: batch(0).headers,
        bytes: bytes.clone(),
        cut_from: None,
    };
    (0..count).map(letter).collect()
}

/// A letter's time does not run while those before it are sent.
#[tokio::test]
async fn letters_that_take_longer_than_the_patience_for_one_are_all_sent_again() {
    let (cluster, mut options) = cluster();
    // A message of this size is a batch, and a partition has one under way: six seconds, where a letter has four.
    cluster.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
    options.properties.insert("message.timeout.ms".into(), "3000".into());
    let started = Instant::now();
    let replayed = KafkaDeadArchive::connect(&options).unwrap().replay(letters(60, 600_000)).await.unwrap();
    assert!(replayed.stopped.is_none() && replayed.sent == 60, "{replayed:?}");
    assert!(started.elapsed() > Duration::from_secs(5), "the broker was not slow: {:?}", started.elapsed());
}

#[tokio::test]
async fn what_concerns_all_letters_ends_with_how_many_were_sent_and_which_are_left() {
    let (cluster, options) = cluster();
    let (well, refused) =
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    cluster.request_errors(RDKafkaApiKey::Produce, &[well, refused]);
    // Two of them are more than a window.
    let replayed = KafkaDeadArchive::connect(&options).unwrap().replay(letters(4, 5 << 20)).await.unwrap();
    let stopped = replayed.stopped.map(|error| error.to_string()).unwrap_or_default();
    assert!(stopped.contains("Kafka refuses"), "{stopped}");
    assert_eq!((replayed.sent, replayed.refused), (1, vec![]));
    assert_eq!(replayed.left, ["0/1", "0/2", "0/3"]);
}
