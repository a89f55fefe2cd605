//! Both ends on a real directory.

use bytes::Bytes;

use super::*;
use crate::queue::{DeadLetters, Headers, dead::DeadArchive};

fn batch(index: u64) -> Batch {
    Batch {
        payload: Bytes::from(format!("payload {index}")),
        headers: Headers { instance: Some("i".into()), sequence: Some(index), ..Headers::default() },
    }
}

async fn take(reader: &mut DiskReader, bytes_max: usize) -> Vec<Message> {
    match reader.next(bytes_max).await.unwrap() {
        Fetched::Messages(messages) => messages,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_appended_is_read_in_order_and_then_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, mut reader) = open(dir.path(), DiskOptions::default(), Metrics::new()).unwrap();
    for index in 0..20 {
        writer.append(batch(index)).await.unwrap();
    }
    drop(writer);
    let mut read = Vec::new();
    loop {
        match reader.next(100).await.unwrap() {
            Fetched::Messages(messages) => read.extend(messages),
            Fetched::Closed => break,
            Fetched::Revoked(_) => panic!("the disk log is never revoked"),
        }
    }
    for (index, message) in read.iter().enumerate() {
        let sent = batch(index as u64);
        assert_eq!(message.position, Position { partition: 0, offset: index as i64 });
        assert_eq!(message.payload, sent.payload);
        let appended_ms = message.headers.appended_ms;
        assert!(appended_ms.is_some(), "the log stamps it");
        assert_eq!(message.headers, Headers { appended_ms, ..sent.headers });
    }
    assert_eq!(read.len(), 20);
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, mut reader) = open(dir.path(), DiskOptions::default(), Metrics::new()).unwrap();
    for index in 0..100 {
        writer.append(batch(index)).await.unwrap();
    }
    let mut next = 0;
    while next < 100 {
        // Dropped after one poll: mostly while the read is under way.
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(reader.next(1).as_mut().poll(context))).await;
        let messages = match polled {
            std::task::Poll::Ready(Ok(Fetched::Messages(messages))) => messages,
            std::task::Poll::Pending => take(&mut reader, 1).await,
            other => panic!("{other:?}"),
        };
        for message in messages {
            assert_eq!(message.position.offset, next);
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_restart_reads_from_the_position_given() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(dir.path(), DiskOptions::default(), Metrics::new()).unwrap();
    for index in 0..10 {
        writer.append(batch(index)).await.unwrap();
    }
    drop((writer, reader));
    let (_writer, mut reader) =
        open(dir.path(), DiskOptions { from: 7, ..DiskOptions::default() }, Metrics::new()).unwrap();
    reader.commit(&[Position { partition: 0, offset: 7 }]).unwrap();
    assert_eq!(take(&mut reader, 1).await[0].position.offset, 7);
}

#[tokio::test]
async fn a_full_log_asks_to_try_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions { bytes_max: 4_000, ..DiskOptions::default() };
    let metrics = Metrics::new();
    let (writer, mut reader) = open(dir.path(), options, Arc::clone(&metrics)).unwrap();
    let mut appended = 0;
    let error = loop {
        match writer.append(batch(appended)).await {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, QueueError::Unavailable(_)), "{error:?}");
    assert_eq!(writer.ready().await.unwrap_err().to_string(), "the log on disk is full (4000 bytes)");
    let shown = |line: String| metrics.encode().lines().any(|found| found == line);
    assert!(shown(format!("logsink_drain_lag_records{{partition=\"0\"}} {appended}")));
    assert!(metrics.queue_disk_bytes.get() > 3_500);
    reader.commit(&[Position { partition: 0, offset: appended as i64 }]).unwrap();
    writer.ready().await.unwrap();
    writer.append(batch(appended)).await.unwrap();
    assert!(shown("logsink_drain_lag_records{partition=\"0\"} 1".into()), "{}", metrics.encode());
    assert_eq!(metrics.queue_lost.get(), 0);
}

#[tokio::test]
async fn dead_letters_are_json_lines_in_a_bounded_room() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DiskDeadLetters::open(dir.path(), DiskDeadLettersOptions { bytes_max: 2_000 }).unwrap();
    let message = Message {
        position: Position { partition: 0, offset: 42 },
        epoch: 0,
        payload: Bytes::from_static(b"whole"),
        headers: batch(3).headers,
        dropped: Vec::new(),
    };
    letters.put(&message, Some(5), "mapper_parsing_exception \"x\"", b"rec").await.unwrap();
    let text = std::fs::read_to_string(dir.path().join("dead-letters.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["offset"], &line["record"], &line["bytes"]), (&42.into(), &5.into(), &"cmVj".into()));
    assert_eq!(line["sequence"], 3);
    for _ in 0..50 {
        letters.put(&message, None, "not OTLP", &message.payload).await.unwrap();
    }
    let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!((1_000..=2_000).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn dead_letters_are_read_again_and_removed_under_their_writer() {
    let dir = tempfile::tempdir().unwrap();
    let archive = DiskDeadArchive::new(dir.path());
    let all = || {
        let mut letters = Vec::new();
        archive.each(&mut |letter| {
            letters.push(letter);
            true
        })?;
        Ok::<_, QueueError>(letters)
    };
    assert_eq!(all().unwrap(), [], "no file, no letters");
    let letters = DiskDeadLetters::open(dir.path(), DiskDeadLettersOptions::default()).unwrap();
    // A request of two empty records.
    let payload = Bytes::from_static(b"\x0a\x06\x12\x04\x12\x00\x12\x00");
    let position = Position { partition: 0, offset: 42 };
    let headers = Headers { rules: Some("g1-s0".into()), ..batch(3).headers };
    let message = Message { position, epoch: 0, payload, headers, dropped: Vec::new() };
    letters.put(&message, Some(1), "mapping: because", b"").await.unwrap();
    letters.put(&message, None, "not_otlp", b"\xff").await.unwrap();
    std::fs::write(dir.path().join("dead-letters.1.jsonl"), "{\"half\": ").unwrap();
    let read = all().unwrap();
    let shown: Vec<_> = read.iter().map(|letter| (&*letter.id, &*letter.reason, &*letter.bytes)).collect();
    let one = b"\x0a\x04\x12\x02\x12\x00".as_slice();
    assert_eq!(shown, [("42/1", "mapping: because", one), ("42", "not_otlp", b"\xff")]);
    assert_eq!((&*read[0].source, read[0].headers.sequence), ("queue/0/42", Some(3)));
    assert_eq!(read[0].replay_headers().rules, Some("g1-s0".into()), "rules are applied once");
    assert_eq!(archive.purge().unwrap(), 2);
    assert_eq!(all().unwrap(), []);
    letters.put(&message, None, "again", b"x").await.unwrap();
    assert_eq!(all().unwrap().len(), 1);
}

/// The end of a process that was killed while it wrote a letter, in the middle of a character.
#[tokio::test]
async fn a_letter_that_was_cut_does_not_take_the_next_one_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead-letters.jsonl");
    std::fs::write(&path, b"{\"time\":\"2026-01-01T00:00:00Z\",\"reason\":\"\xc3").unwrap();
    let (position, headers) = (Position { partition: 0, offset: 42 }, batch(3).headers);
    let message = Message { position, epoch: 0, payload: Bytes::new(), headers, dropped: Vec::new() };
    for _ in 0..2 {
        let letters = DiskDeadLetters::open(dir.path(), DiskDeadLettersOptions::default()).unwrap();
        letters.put(&message, None, "not_otlp", b"x").await.unwrap();
    }
    let mut found = Vec::new();
    DiskDeadArchive::new(dir.path())
        .each(&mut |letter| {
            found.push(letter.id);
            true
        })
        .unwrap();
    assert_eq!(found, ["42", "42"]);
    let lines = std::fs::read(&path).unwrap().iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(lines, 3, "a whole line is not ended once more");
}

#[tokio::test]
async fn a_disk_that_refuses_loses_nothing_acknowledged_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    // A new file every few messages.
    let options = DiskOptions { bytes_max: 8_000, ..DiskOptions::default() };
    let (queue, away) = (dir.path().join("queue"), dir.path().join("away"));
    let (writer, mut reader) = open(&queue, options, Metrics::new()).unwrap();
    let mut acked = 0;
    for _ in 0..5 {
        writer.append(batch(acked)).await.unwrap();
        acked += 1;
    }
    // There is no place for its next file.
    std::fs::rename(&queue, &away).unwrap();
    let error = loop {
        match writer.append(batch(acked)).await {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, QueueError::Unavailable(what) if what.starts_with("cannot create ")), "{error:?}");
    assert!(writer.append(batch(acked)).await.is_err());
    std::fs::rename(&away, &queue).unwrap();
    writer.append(batch(acked)).await.unwrap();
    acked += 1;
    drop(writer);
    let mut sequences = Vec::new();
    while let Fetched::Messages(messages) = reader.next(1 << 20).await.unwrap() {
        sequences.extend(messages.into_iter().filter_map(|message| message.headers.sequence));
    }
    assert_eq!(sequences, (0..acked).collect::<Vec<_>>());
}
