//! The topic of dead letters, against a real broker.

use std::sync::Arc;

use super::{super::*, batch, broker::*, large::small};
use crate::{
    control::{Scope, Snapshot, Stored},
    metrics::Metrics,
    queue::{
        DeadLetters, Message, Position, QueueReader,
        dead::{DeadArchive, DeadLetter},
    },
    sift::Sift,
};

fn message(offset: i64, payload: Bytes) -> Message {
    let headers = Headers { appended_ms: Some(1_767_225_600_000), ..batch(7).headers };
    Message { position: Position { partition: 3, offset }, epoch: 1, payload, headers, dropped: Vec::new() }
}

/// A letter of so many bytes, all of one sender.
fn letter(sequence: u64, bytes: usize) -> DeadLetter {
    DeadLetter {
        id: format!("0/{sequence}"),
        time_ms: 0,
        reason: "mapping: because".into(),
        source: String::new(),
        record: None,
        headers: Headers { sequence: Some(sequence), ..batch(0).headers },
        bytes: vec![b'x'; bytes].into(),
        cut_from: None,
    }
}

/// As a command does: on a thread that may block.
async fn all(options: &KafkaOptions) -> Vec<DeadLetter> {
    let options = options.clone();
    let each = move || {
        let mut letters = Vec::new();
        KafkaDeadArchive::connect(&options)?.each(&mut |letter| {
            letters.push(letter);
            true
        })?;
        Ok::<_, QueueError>(letters)
    };
    tokio::task::spawn_blocking(each).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_sent_again_and_removed() {
    let options = options("dead");
    assert_eq!(all(&options).await, [], "no topic, no letters");
    let letters = KafkaDeadLetters::connect(&options, Metrics::new()).unwrap();
    // A request of two empty records.
    let request = Bytes::from_static(b"\x0a\x06\x12\x04\x12\x00\x12\x00");
    letters.put(&message(42, request), Some(1), "mapping: because", b"").await.unwrap();
    let mut foreign = message(43, Bytes::from_static(b"no OTLP"));
    foreign.headers =
        Headers { others: vec![("traceparent".into(), Bytes::from_static(b"00-1"))], ..Headers::default() };
    letters.put(&foreign, None, "not_otlp: \u{1b}", b"no OTLP").await.unwrap();

    let read_again = all(&options).await;
    let [record, whole] = &read_again[..] else { panic!("{read_again:?}") };
    assert_eq!((record.id.as_str(), record.reason.as_str(), record.record), ("0/0", "mapping: because", Some(1)));
    assert_eq!(record.source, format!("{}/3/42", options.topic));
    assert_eq!(&*record.bytes, b"\x0a\x04\x12\x02\x12\x00", "a request with the one record");
    assert_eq!(record.headers, message(42, Bytes::new()).headers);
    assert_eq!((&*whole.bytes, whole.record), (b"no OTLP".as_slice(), None));
    assert_eq!(whole.headers.others, foreign.headers.others);

    // Sent again, the records have their ids and the time at which the queue first took them.
    options.create_topic().await.unwrap();
    let replayed = KafkaDeadArchive::connect(&options).unwrap().replay(read_again.clone()).await.unwrap();
    assert_eq!((replayed.sent, replayed.refused, replayed.left), (2, vec![], vec![]));
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let mut messages = read(&mut reader, 2).await;
    messages.sort_by_key(|message| message.headers.sequence);
    let headers = Headers { first: 1, ..record.headers.clone() };
    assert_eq!((&messages[0].payload, &messages[0].headers), (&record.bytes, &headers));
    assert_eq!(messages[1].headers.instance, Some(format!("dead/{}/3", options.topic)));
    assert_eq!((messages[1].headers.sequence, messages[1].headers.others.len()), (Some(43), 1));
    Box::new(reader).close().await.unwrap();

    let purging = options.clone();
    let purge = move || KafkaDeadArchive::connect(&purging)?.purge();
    assert_eq!(tokio::task::spawn_blocking(purge.clone()).await.unwrap().unwrap(), 2);
    assert_eq!(all(&options).await, []);
    assert_eq!(tokio::task::spawn_blocking(purge).await.unwrap().unwrap(), 0);
}

/// A message as large as the topic takes, with what is said beside it, is more than the topic of dead letters takes.
#[tokio::test]
async fn a_letter_that_is_too_large_is_kept_in_part() {
    let options = KafkaOptions { message_bytes_max: 100_000, ..options("dead-large") };
    let letters = KafkaDeadLetters::connect(&options, Metrics::new()).unwrap();
    let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(99_990).collect();
    letters.put(&message(1, bytes.clone().into()), None, "not_otlp", &bytes).await.unwrap();
    let read_again = all(&options).await;
    assert_eq!(read_again[0].cut_from, Some(99_990));
    assert!(read_again[0].bytes.len() > 50_000 && bytes.starts_with(&read_again[0].bytes));
}

/// Rules are applied once: what a limit has let pass comes back, however many are sent again within a second.
#[tokio::test(flavor = "multi_thread")]
async fn letters_of_judged_records_come_back_past_the_rules() {
    let options = options("dead-judged");
    let text = "[[rule]]\nname = \"few\"\nthen = { rate_limit = { per_second = 0.001, burst = 20 } }".to_owned();
    let documents = [(Scope::Global, Stored { text, revision: "7".into() })].into();
    let rules = tokio::sync::watch::channel(Some(Arc::new(Snapshot { documents })));
    let sift = Sift::new(rules.1, Metrics::new());
    // A request of one empty record.
    let read_first = |offset| message(offset, Bytes::from_static(b"\x0a\x04\x12\x02\x12\x00"));
    let letters = KafkaDeadLetters::connect(&options, Metrics::new()).unwrap();
    for offset in 0..20 {
        let judged = sift.sift(read_first(offset));
        assert!(judged.dropped.is_empty());
        letters.put(&judged, Some(0), "mapping: because", b"").await.unwrap();
    }
    assert_eq!(sift.sift(read_first(20)).dropped, [0], "the limit is reached");

    options.create_topic().await.unwrap();
    let replayed = KafkaDeadArchive::connect(&options).unwrap().replay(all(&options).await).await;
    assert_eq!(replayed.unwrap().sent, 20);
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    for message in read(&mut reader, 20).await {
        assert_eq!(message.headers.rules.as_deref(), Some("g7-s0"));
        assert!(sift.sift(message).dropped.is_empty());
    }
    Box::new(reader).close().await.unwrap();
}

/// What the topic takes is learnt on the way, with another client. Their partition takes no more than a batch of these letters at a
/// time, so that others still wait when the old client ends: they are sent as well.
#[tokio::test]
async fn a_letter_that_is_too_large_to_be_sent_again_does_not_keep_the_others() {
    let options = small("dead-over", 30_000).await;
    let sizes = (0..1_200).map(|sequence| letter(sequence, if sequence % 400 == 7 { 90_000 } else { 4_000 }));
    let replayed = KafkaDeadArchive::connect(&options).unwrap().replay(sizes.collect()).await.unwrap();
    assert!(replayed.stopped.is_none(), "{replayed:?}");
    let why = format!("it has 90000 bytes, and a message of {} 30000 at most", options.topic);
    let mut refused = replayed.refused;
    refused.sort();
    assert_eq!(refused, ["0/407", "0/7", "0/807"].map(|id| (id.to_owned(), why.clone())));
    assert_eq!((replayed.sent, replayed.left), (1_197, vec![]));
    let mut reader = KafkaReader::connect(&options, &options.topic, Metrics::new()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 1_197 {
        seen.extend(sequences(&read(&mut reader, 1).await));
    }
    assert!([7, 407, 807].iter().all(|sequence| !seen.contains(sequence)));
    Box::new(reader).close().await.unwrap();
}

/// It would be sent again as a message that ends in the middle.
#[tokio::test]
async fn a_message_of_which_the_reader_kept_the_beginning_is_a_letter_in_part() {
    let options = KafkaOptions { message_bytes_max: 100_000, ..options("dead-part") };
    let letters = KafkaDeadLetters::connect(&options, Metrics::new()).unwrap();
    // The second one does not fit the topic of dead letters either.
    for (offset, kept) in [(1, 60_000), (2, 99_990)] {
        let mut message = message(offset, vec![0; kept].into());
        message.headers.others.push((TOO_LARGE.into(), Bytes::from_static(b"67108864")));
        letters.put(&message, None, "not_otlp", &message.payload).await.unwrap();
    }
    let kept: Vec<_> = all(&options).await.iter().map(|letter| (letter.cut_from, letter.bytes.len())).collect();
    assert_eq!(kept[0], (Some(64 << 20), 60_000));
    assert!(kept[1].0 == Some(64 << 20) && kept[1].1 < 99_990, "{kept:?}");
}
