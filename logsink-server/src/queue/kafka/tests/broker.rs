//! Against a real broker, whose address is in `KAFKA_BROKERS`.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    admin::{AdminClient, NewPartitions},
    client::DefaultClientContext,
    producer::Producer as _,
};
use tokio::time::timeout;

use super::{super::*, batch};
use crate::{
    metrics::Metrics,
    queue::{Batch, Fetched, Message, Position, QueueReader, QueueWriter},
};

pub(super) const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn options(name: &str) -> KafkaOptions {
    let brokers = std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS names no broker: `make test` starts one");
    let topic = format!("test-{name}-{:x}", fastrand::u64(..));
    KafkaOptions { brokers: vec![brokers], topic, partitions: 4, ..KafkaOptions::default() }
}

pub(super) async fn next(reader: &mut KafkaReader) -> Fetched {
    timeout(DEADLINE, reader.next(1 << 20)).await.expect("a message in time").unwrap()
}

pub(super) async fn read(reader: &mut KafkaReader, count: usize) -> Vec<Message> {
    let mut all = Vec::new();
    while all.len() < count {
        if let Fetched::Messages(messages) = next(reader).await {
            all.extend(messages);
        }
    }
    all
}

/// The positions after these messages.
pub(super) fn after(messages: &[Message]) -> Vec<Position> {
    let mut next = BTreeMap::new();
    for Message { position, .. } in messages {
        let offset: &mut i64 = next.entry(position.partition).or_default();
        *offset = (*offset).max(position.offset + 1);
    }
    next.into_iter().map(|(partition, offset)| Position { partition, offset }).collect()
}

pub(super) fn sequences(messages: &[Message]) -> BTreeSet<u64> {
    messages.iter().map(|message| message.headers.sequence.unwrap()).collect()
}

/// A readiness probe that came before the first batch let the broker make the topic by its own defaults.
#[tokio::test]
async fn the_topic_is_made_as_configured_whoever_asks_first() {
    let options = options("probe");
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    timeout(DEADLINE, async { while writer.ready().await.is_err() {} }).await.unwrap();
    timeout(DEADLINE, writer.append(batch(0))).await.unwrap().unwrap();
    let client: rdkafka::producer::BaseProducer = options.client(&[]).create().unwrap();
    let metadata = client.client().fetch_metadata(Some(&options.topic), DEADLINE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 4);
}

#[tokio::test]
async fn partitions_that_are_added_are_written_to() {
    let options = KafkaOptions { partitions: 1, ..options("grow") };
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    timeout(DEADLINE, writer.append(batch(0))).await.unwrap().unwrap();
    let admin: AdminClient<DefaultClientContext> = options.client(&[]).create().unwrap();
    let grown = admin.create_partitions([&NewPartitions::new(&options.topic, 3)], &AdminOptions::new()).await.unwrap();
    grown[0].as_ref().unwrap();
    // Readiness looks at the partitions as well as the clock does.
    let written = async {
        let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
        let (mut index, mut partitions) = (1, BTreeSet::new());
        while partitions.len() < 3 {
            // A new partition may have no leader yet.
            let _ = writer.ready().await;
            let appended = (index..index + 16).map(|index| writer.append(batch(index)));
            futures_util::future::try_join_all(appended).await.unwrap();
            partitions.extend(read(&mut reader, 16).await.iter().map(|message| message.position.partition));
            index += 16;
        }
    };
    timeout(DEADLINE, written).await.expect("some of 16 keys in each");
}

#[tokio::test]
async fn what_is_committed_is_not_read_again_and_the_rest_is() {
    let options = options("commit");
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let appended = (0..100).map(|index| writer.append(batch(index)));
    futures_util::future::try_join_all(appended).await.unwrap();

    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let messages = read(&mut reader, 100).await;
    assert_eq!(sequences(&messages), (0..100).collect());
    for message in &messages {
        let sent = batch(message.headers.sequence.unwrap());
        assert_eq!(message.payload, sent.payload);
        let appended_ms = message.headers.appended_ms;
        assert!(appended_ms.is_some(), "the broker stamps it");
        assert_eq!(message.headers, Headers { appended_ms, ..sent.headers });
        assert_eq!(message.epoch, 1);
    }
    let (done, rest) = messages.split_at(60);
    // Of each partition a prefix: messages come in order within it.
    reader.commit(&after(done)).unwrap();
    Box::new(reader).close().await.unwrap();

    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    assert_eq!(sequences(&read(&mut reader, rest.len()).await), sequences(rest));
    Box::new(reader).close().await.unwrap();
}

#[tokio::test]
async fn a_second_reader_takes_over_half_and_then_all() {
    let options = options("rebalance");
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let mut first = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let appended = (0..200).map(|index| writer.append(batch(index)));
    futures_util::future::try_join_all(appended).await.unwrap();
    let messages = read(&mut first, 200).await;
    first.commit(&after(&messages)).unwrap();

    let mut second = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    // The second one joins when it is asked, and has nothing to read.
    let (revoked, _) = tokio::join!(next(&mut first), timeout(Duration::from_secs(10), second.next(1)));
    let Fetched::Revoked(revoked) = revoked else { panic!("partitions go to the second reader") };
    assert_eq!(revoked.len(), 2, "cooperative: the other two stay");

    let appended = (200..400).map(|index| writer.append(batch(index)));
    futures_util::future::try_join_all(appended).await.unwrap();
    let (mut from_first, mut from_second) = (Vec::new(), Vec::new());
    while from_first.len() + from_second.len() < 200 {
        tokio::select! {
            fetched = first.next(1 << 20) => match fetched.unwrap() {
                Fetched::Messages(messages) => from_first.extend(messages),
                other => panic!("{other:?}"),
            },
            fetched = second.next(1 << 20) => match fetched.unwrap() {
                Fetched::Messages(messages) => from_second.extend(messages),
                other => panic!("{other:?}"),
            },
            () = tokio::time::sleep(DEADLINE) => panic!("{} and {} messages", from_first.len(), from_second.len()),
        }
    }
    let partitions = |messages: &[Message]| messages.iter().map(|m| m.position.partition).collect::<BTreeSet<_>>();
    assert_eq!(partitions(&from_second), revoked.into_iter().collect());
    assert!(partitions(&from_first).is_disjoint(&partitions(&from_second)));
    let all: BTreeSet<u64> = sequences(&from_first).union(&sequences(&from_second)).copied().collect();
    assert_eq!(all, (200..400).collect(), "what was committed before the rebalance is not read again");

    // The first one goes, with its last messages not committed: the second one reads them.
    second.commit(&after(&from_second)).unwrap();
    Box::new(first).close().await.unwrap();
    let again = read(&mut second, from_first.len()).await;
    assert_eq!(sequences(&again), sequences(&from_first));
    Box::new(second).close().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_is_not_asked_holds_back_and_loses_nothing() {
    let options = options("pause");
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    // 60 MiB: more than the reader's buffer, so that it pauses.
    for chunk in 0..6 {
        let appended = (0..10).map(|index| {
            let mut batch = batch(chunk * 10 + index);
            batch.payload = Bytes::from(fastrand::Rng::with_seed(index).u8(..).to_string().repeat(500_000));
            writer.append(batch)
        });
        futures_util::future::try_join_all(appended).await.unwrap();
    }
    // It joins when it is asked.
    let first = reader.next(1).await.unwrap();
    assert!(matches!(first, Fetched::Messages(messages) if messages.len() == 1));
    let started = std::time::Instant::now();
    while reader.buffered() < 8 << 20 {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Longer than it takes to pause.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(reader.buffered() < 12 << 20, "{} bytes are buffered", reader.buffered());
    assert_eq!(sequences(&read(&mut reader, 59).await).len(), 59);
    Box::new(reader).close().await.unwrap();
}

/// Large messages lie in the client's memory, which stays as long as one of them is there, and no longer.
#[tokio::test]
async fn messages_outlive_their_reader_and_end_its_client() {
    let options = options("outlive");
    let writer = KafkaWriter::connect(&options, Metrics::new()).unwrap();
    let payload = |index: u64| Bytes::from(format!("{index} ").repeat(10_000));
    for index in 0..20 {
        let batch = Batch { payload: payload(index), ..batch(index) };
        timeout(DEADLINE, writer.append(batch)).await.unwrap().unwrap();
    }
    let mut reader = KafkaReader::connect(&options, "group", Metrics::new()).unwrap();
    let mut messages = read(&mut reader, 20).await;
    let client = reader.client();
    timeout(DEADLINE, Box::new(reader).close()).await.unwrap().unwrap();
    assert!(client.upgrade().is_some());
    // It is no member of the group any more, though.
    let mut next = KafkaReader::connect(&options, "group", Metrics::new()).unwrap();
    assert_eq!(sequences(&read(&mut next, 20).await).len(), 20);
    for message in &messages {
        assert_eq!(message.payload, payload(message.headers.sequence.unwrap()));
    }
    let last = messages.split_off(19);
    drop(messages);
    assert!(client.upgrade().is_some());
    std::thread::spawn(move || drop(last)).join().unwrap();
    let ended = async {
        while client.upgrade().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    };
    timeout(DEADLINE, ended).await.expect("the client ends with its last message");
}
