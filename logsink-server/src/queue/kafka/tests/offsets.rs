//! Positions under all that can happen to a topic and a group, against a real broker.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::{
    admin::{AdminClient, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    topic_partition_list::{Offset, TopicPartitionList},
};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{super::*, batch, broker::*};
use crate::{
    metrics::Metrics,
    offsets::Watermark,
    queue::{Fetched, QueueReader, QueueWriter},
};

/// What a test wants quickly.
fn quick(mut options: KafkaOptions) -> KafkaOptions {
    for (key, value) in [("topic.metadata.refresh.interval.ms", "1000"), ("session.timeout.ms", "6000")] {
        options.properties.insert(key.into(), value.into());
    }
    options
}

fn admin(options: &KafkaOptions) -> AdminClient<DefaultClientContext> {
    options.client(&[]).create().unwrap()
}

async fn append(options: &KafkaOptions, sequences: std::ops::Range<u64>) {
    let mut writing = options.clone();
    // Those are of consumers.
    writing.properties.remove("session.timeout.ms");
    let writer = KafkaWriter::connect(&writing, Metrics::new()).unwrap();
    futures_util::future::try_join_all(sequences.map(|sequence| writer.append(batch(sequence)))).await.unwrap();
}

/// Sees where a group stands, without being in it.
#[derive(Clone)]
struct Onlooker(std::sync::Arc<BaseConsumer>, KafkaOptions);

impl Onlooker {
    fn new(options: &KafkaOptions, group: &str) -> Self {
        let client = options.client(&[("group.id", group)]).create().unwrap();
        Self(std::sync::Arc::new(client), options.clone())
    }

    /// The positions, of the partitions that have one.
    async fn committed(&self) -> BTreeMap<i32, i64> {
        let Self(client, options) = self.clone();
        let ask = move || {
            let mut list = TopicPartitionList::new();
            (0..options.partitions).for_each(|partition| _ = list.add_partition(&options.topic, partition));
            let committed = client.committed_offsets(list, DEADLINE).unwrap();
            let elements = committed.elements();
            let known = elements.iter().filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            });
            known.collect()
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }
}

async fn committed(options: &KafkaOptions, group: &str) -> BTreeMap<i32, i64> {
    Onlooker::new(options, group).committed().await
}

/// Reads until `done`, committing everything at once.
async fn drain_until(reader: &mut KafkaReader, mut done: impl FnMut(&[crate::queue::Message]) -> bool) {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if let Ok(Ok(Fetched::Messages(messages))) = timeout(Duration::from_millis(200), reader.next(1 << 20)).await {
            reader.commit(&after(&messages)).unwrap();
            if done(&messages) {
                return;
            }
        } else if done(&[]) {
            return;
        }
    }
    panic!("not done in time");
}

#[tokio::test]
async fn messages_deleted_unread_are_counted_and_reading_goes_on_behind_them() {
    let options = quick(KafkaOptions { partitions: 1, ..options("expired") });
    append(&options, 0..100).await;
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let messages = read(&mut reader, 10).await;
    let ten: Vec<_> = messages.into_iter().take(10).collect();
    reader.commit(&after(&ten)).unwrap();
    Box::new(reader).close().await.unwrap();
    // Retention, while no drain runs.
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&options.topic, 0, Offset::Offset(60)).unwrap();
    admin(&options).delete_records(&list, &AdminOptions::new()).await.unwrap();

    let metrics = Metrics::new();
    let mut reader = KafkaReader::connect(&options, &options.topic, metrics.clone()).unwrap();
    let mut seen = BTreeSet::new();
    drain_until(&mut reader, |messages| {
        seen.extend(sequences(messages));
        seen.len() == 40 && metrics.queue_lost.get() == 50
    })
    .await;
    assert_eq!(seen, (60..100).collect());
    Box::new(reader).close().await.unwrap();
    assert_eq!(committed(&options, &options.topic).await, BTreeMap::from([(0, 100)]));
}

#[tokio::test]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let options = quick(KafkaOptions { partitions: 1, ..options("grown") });
    append(&options, 0..20).await;
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let mut seen = sequences(&read(&mut reader, 20).await);
    let grow = NewPartitions::new(&options.topic, 6);
    admin(&options).create_partitions([&grow], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    append(&options, 20..400).await;
    let mut partitions = BTreeSet::new();
    drain_until(&mut reader, |messages| {
        seen.extend(sequences(messages));
        partitions.extend(messages.iter().map(|message| message.position.partition));
        seen.len() == 400
    })
    .await;
    assert!(partitions.len() > 1, "{partitions:?}");
    Box::new(reader).close().await.unwrap();
}

/// The same name, other messages: neither are positions of the old one committed for the new one, nor is anything of the new one
/// passed over because it stands below or above them.
#[tokio::test]
async fn a_topic_made_anew_is_read_from_its_beginning() {
    for (before, after_it) in [(50, 20), (20, 50)] {
        let options = quick(KafkaOptions { partitions: 2, ..options("anew") });
        append(&options, 0..before).await;
        let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
        let mut seen = BTreeSet::new();
        drain_until(&mut reader, |messages| {
            seen.extend(sequences(messages));
            seen.len() as u64 == before
        })
        .await;
        while !reader.knows_topic() {
            sleep(Duration::from_millis(50)).await;
        }
        admin(&options).delete_topics(&[&options.topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let started = Instant::now();
        while let Err(error) = options.create_topic().await {
            assert!(started.elapsed() < DEADLINE, "{error}");
            sleep(Duration::from_millis(100)).await;
        }
        append(&options, 1_000..1_000 + after_it).await;
        let mut seen = BTreeSet::new();
        // Until the group's positions are those of the new topic, all of it.
        let onlooker = Onlooker::new(&options, &options.topic);
        loop {
            drain_until(&mut reader, |messages| {
                seen.extend(sequences(messages).into_iter().filter(|sequence| *sequence >= 1_000));
                true
            })
            .await;
            let committed: i64 = onlooker.committed().await.values().sum();
            if committed == after_it as i64 && seen.len() as u64 == after_it {
                break;
            }
            assert!(started.elapsed() < DEADLINE, "{committed} committed, {} seen", seen.len());
        }
        Box::new(reader).close().await.unwrap();
    }
}

/// A drain whose index is away does not call for long; the group must not take its partitions meanwhile.
#[tokio::test]
async fn a_reader_that_is_not_asked_stays_in_the_group_beyond_the_poll_interval() {
    let mut options = quick(options("stalled"));
    options.properties.insert("max.poll.interval.ms".into(), "6000".into());
    append(&options, 0..40).await;
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let first = read(&mut reader, 40).await;
    sleep(Duration::from_secs(9)).await;
    assert!(first.iter().all(|message| message.epoch == 1));
    reader.commit(&after(&first)).unwrap();
    append(&options, 40..80).await;
    let more = read(&mut reader, 40).await;
    assert!(more.iter().all(|message| message.epoch == 1), "it never lost them");
    reader.commit(&after(&more)).unwrap();
    Box::new(reader).close().await.unwrap();
    assert_eq!(committed(&options, &options.topic).await.values().sum::<i64>(), 80);
}

#[tokio::test]
async fn a_member_with_a_name_comes_back_to_its_partitions_and_the_others_rest_on_theirs() {
    let named = |name: &str, options: &KafkaOptions| KafkaOptions { instance: Some(name.into()), ..options.clone() };
    let mut options = quick(options("static"));
    options.properties.insert("session.timeout.ms".into(), "30000".into());
    append(&options, 0..200).await;
    let mut stays = KafkaReader::connect(&named("a", &options), &options.topic, Metrics::new()).unwrap();
    let mut goes = KafkaReader::connect(&named("b", &options), &options.topic, Metrics::new()).unwrap();
    // Until each has two.
    let share = |messages: &[crate::queue::Message]| -> BTreeSet<i32> {
        messages.iter().map(|message| message.position.partition).collect()
    };
    let mut theirs = BTreeSet::new();
    let started = Instant::now();
    while theirs.len() < 2 {
        assert!(started.elapsed() < DEADLINE);
        let _ = timeout(Duration::from_millis(100), stays.next(1 << 20)).await;
        if let Ok(Ok(Fetched::Messages(messages))) = timeout(Duration::from_millis(100), goes.next(1 << 20)).await {
            theirs.extend(share(&messages));
        }
    }
    Box::new(goes).close().await.unwrap();
    let mut back = KafkaReader::connect(&named("b", &options), &options.topic, Metrics::new()).unwrap();
    append(&options, 200..400).await;
    let mut again = BTreeSet::new();
    while again.len() < 2 {
        assert!(started.elapsed() < 2 * DEADLINE);
        if let Ok(Ok(Fetched::Messages(messages))) = timeout(Duration::from_millis(100), back.next(1 << 20)).await {
            again.extend(share(&messages));
        }
        match timeout(Duration::from_millis(100), stays.next(1 << 20)).await {
            Ok(Ok(Fetched::Revoked(partitions))) => panic!("{partitions:?} were taken from the one that stayed"),
            Ok(Ok(Fetched::Messages(messages))) => assert!(share(&messages).is_disjoint(&theirs)),
            _ => {}
        }
    }
    assert_eq!(again, theirs);
    Box::new(back).close().await.unwrap();
    Box::new(stays).close().await.unwrap();
}

/// Members that come, go and die at random, and acknowledge in random order: what is committed is done with, all of it, always;
/// and everything is done with at the end.
async fn storm(assignment: Assignment, name: &str) {
    const MESSAGES: u64 = 400;
    let options = quick(KafkaOptions { assignment, ..options(name) });
    append(&options, 0..MESSAGES).await;
    let mut random = fastrand::Rng::with_seed(7);
    // What was acknowledged, by partition, in any life of any member.
    let mut done: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    struct Member {
        reader: KafkaReader,
        watermark: Watermark,
        under_way: Vec<(crate::queue::Position, u32)>,
    }
    let member = || Member {
        reader: KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap(),
        watermark: Watermark::default(),
        under_way: Vec::new(),
    };
    let onlooker = Onlooker::new(&options, &options.topic);
    let mut members = vec![member(), member()];
    let started = Instant::now();
    let mut turn_at = started + Duration::from_secs(3);
    let (mut turns, mut deaths) = (0, 0);
    loop {
        assert!(started.elapsed() < 2 * DEADLINE, "{} of {MESSAGES}", done.values().map(BTreeSet::len).sum::<usize>());
        for member in &mut members {
            match timeout(Duration::from_millis(20), member.reader.next(200)).await {
                Ok(Ok(Fetched::Messages(messages))) => {
                    for message in messages {
                        member.watermark.begin(message.position, message.epoch);
                        member.under_way.push((message.position, message.epoch));
                    }
                }
                Ok(Ok(Fetched::Revoked(partitions))) => {
                    partitions.iter().for_each(|&partition| member.watermark.forget(partition));
                    member.under_way.retain(|(position, _)| !partitions.contains(&position.partition));
                }
                _ => {}
            }
            // Some acknowledgements, any of them.
            for _ in 0..random.usize(0..8).min(member.under_way.len()) {
                let (position, epoch) = member.under_way.swap_remove(random.usize(..member.under_way.len()));
                done.entry(position.partition).or_default().insert(position.offset);
                member.watermark.finish(position, epoch);
            }
            let positions: Vec<_> = member.watermark.positions().collect();
            member.reader.commit(&positions).unwrap();
        }
        let committed = onlooker.committed().await;
        for (partition, offset) in &committed {
            let missing = (0..*offset).find(|offset| !done.get(partition).is_some_and(|done| done.contains(offset)));
            assert_eq!(missing, None, "partition {partition} is committed up to {offset}");
        }
        if committed.values().sum::<i64>() as u64 == MESSAGES {
            break;
        }
        if Instant::now() >= turn_at && turns < 5 {
            turns += 1;
            turn_at = Instant::now() + Duration::from_secs(2);
            match turns {
                1 | 3 => members.push(member()),
                // It goes in order, with things under way.
                2 | 5 => Box::new(members.remove(0).reader).close().await.unwrap(),
                // It is dropped as a process that ends without a word.
                _ => {
                    deaths += 1;
                    drop(members.remove(0));
                }
            }
        }
    }
    assert!(turns >= 3 || deaths == 0, "the storm was over before it began");
    for member in members {
        Box::new(member.reader).close().await.unwrap();
    }
}

#[tokio::test]
async fn only_what_is_done_with_is_committed_while_members_come_and_go() {
    storm(Assignment::CooperativeSticky, "storm").await;
}

#[tokio::test]
async fn only_what_is_done_with_is_committed_when_all_members_rest_at_a_change() {
    storm(Assignment::Range, "storm-eager").await;
}

/// What librdkafka does of itself when it goes wrong: a partition is not fetched any more, and nobody says so.
#[tokio::test]
async fn a_partition_that_stands_still_is_noticed_and_the_client_is_replaced() {
    let options = quick(KafkaOptions { partitions: 1, ..options("still") });
    append(&options, 0..20).await;
    let metrics = Metrics::new();
    let mut reader = KafkaReader::connect(&options, &options.topic, metrics.clone()).unwrap();
    assert_eq!(read(&mut reader, 20).await.len(), 20);
    reader.commit(&[crate::queue::Position { partition: 0, offset: 20 }]).unwrap();
    reader.stall().await;
    append(&options, 20..40).await;
    let mut seen = BTreeSet::new();
    drain_until(&mut reader, |messages| {
        seen.extend(sequences(messages));
        seen.is_superset(&(20..40).collect())
    })
    .await;
    // On a busy machine the new one may be too slow as well.
    assert!(metrics.encode().contains("logsink_queue_clients_replaced_total{reason=\"consumer\"}"));
    Box::new(reader).close().await.unwrap();
    assert_eq!(committed(&options, &options.topic).await, BTreeMap::from([(0, 40)]));
}
