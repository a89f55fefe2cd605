//! Crashes at each point of publishing: what is replayed from `resume_at` makes every event be there exactly once.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::{prelude::*, sample::select};

use super::*;

/// What a restarted server does: reads the log from where the index says.
async fn restart(dir: &Path, log: &[Message], block_rows: usize) -> Arc<Embedded> {
    let store = open(dir, block_rows);
    let from = usize::try_from(store.resume_at()).unwrap();
    store.write(&log[from..]).await.unwrap();
    store
}

#[tokio::test]
async fn a_crash_between_files_and_manifest_repeats_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log: Vec<Message> = messages(0, 9, 10, Event::at).collect();
    let store = open(dir.path(), 30);
    store.write(&log[..5]).await.unwrap();
    let manifest = fs::read(dir.path().join(manifest::NAME)).unwrap();
    store.write(&log[5..7]).await.unwrap();
    assert_eq!(store.stats().blocks, 2);
    let expected = ids(&store, "").await;
    drop(store);
    let day = dir.path().join("1970-01-01");

    // Parquet and side file are there, the manifest's new form is written but not renamed.
    fs::rename(dir.path().join(manifest::NAME), dir.path().join("MANIFEST.tmp")).unwrap();
    fs::write(dir.path().join(manifest::NAME), &manifest).unwrap();
    let store = restart(dir.path(), &log[..7], 30).await;
    assert_eq!(ids(&store, "").await, expected);
    drop(store);

    // The Parquet file is there, the side file half.
    fs::write(dir.path().join(manifest::NAME), &manifest).unwrap();
    fs::rename(day.join("0000000001.filters"), day.join("0000000001.filters.tmp")).unwrap();
    let store = open(dir.path(), 30);
    assert_eq!(fs::read_dir(&day).unwrap().count(), 2, "what no manifest names is deleted");
    drop(store);
    let store = restart(dir.path(), &log[..7], 30).await;
    assert_eq!(ids(&store, "").await, expected);
    drop(store);

    // The Parquet file is cut off under its temporary name.
    fs::write(day.join("0000000009.parquet.tmp"), b"PAR1").unwrap();
    let store = restart(dir.path(), &log, 30).await;
    assert_eq!(ids(&store, "").await.len(), 90);
    assert_eq!(fs::read_dir(&day).unwrap().count(), 6);
}

/// Read again after a crash, it must not wander in time.
#[tokio::test]
async fn a_record_without_a_time_has_that_of_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let mut message = messages(0, 1, 1, |_| Event { time_ns: 0, ..Event::default() }).next().unwrap();
    message.headers.appended_ms = Some(1_767_225_600_001);
    for _ in 0..2 {
        let store = restart(dir.path(), std::slice::from_ref(&message), 10).await;
        let hits = store.search(&query("")).await.unwrap().hits;
        assert_eq!(hits.iter().map(|hit| hit.time_ns).collect::<Vec<_>>(), [1_767_225_600_001_000_000]);
    }
}

/// What came in between sealing and publishing is not in the block, so the manifest must not say that it is stored.
#[tokio::test]
async fn a_block_published_late_vouches_for_its_own_messages_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log: Vec<Message> = messages(0, 13, 1, Event::at)
        .map(|message| events::from("a", message.position.offset.cast_unsigned(), message))
        .collect();
    let store = open(dir.path(), 10);
    let day = dir.path().join("1970-01-01");
    fs::write(&day, "a file where the directory should be").unwrap();
    for message in &log {
        // The tenth seals the block, which cannot be published.
        assert_eq!(store.write(std::slice::from_ref(message)).await.is_err(), message.position.offset == 9);
    }
    fs::remove_file(&day).unwrap();
    store.store.publish(publish::When::Sealed).unwrap();
    assert_eq!((store.resume_at(), store.durable(0)), (10, Some(10)));
    drop(store);
    let store = restart(dir.path(), &log, 10).await;
    assert_eq!(ids(&store, "").await.len(), 13);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A new batch is appended to the log and written.
    Send,
    /// A batch of before is sent again: its ack was lost.
    Resend(usize),
    /// Several new batches, written last to first, as concurrent writes may be.
    Reversed,
    Publish,
    /// The process is killed.
    Kill,
    /// The process is killed after the files of a block, before its manifest.
    KillInPublish,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_batch_is_there_once_whatever_happens(
        steps in proptest::collection::vec(
            prop_oneof![
                6 => Just(Step::Send),
                2 => (0usize..40).prop_map(Step::Resend),
                2 => Just(Step::Reversed),
                1 => select(vec![Step::Publish, Step::Kill, Step::KillInPublish]),
            ],
            1..40,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let manifest = dir.path().join(manifest::NAME);
            let mut store = open(dir.path(), 12);
            let (mut log, mut sent) = (Vec::<Message>::new(), 0u64);
            let send = |log: &mut Vec<Message>, sequence: u64| {
                let at = log.len() as i64;
                let events = [Event::at(sequence as i64 * 2), Event::at(sequence as i64 * 2 + 1)];
                log.push(events::from(["a", "b"][sequence as usize % 2], sequence, message(at, &events)));
            };
            for step in steps {
                let from = log.len();
                match step {
                    Step::Send => {
                        send(&mut log, sent);
                        sent += 1;
                    }
                    Step::Resend(which) if sent > 0 => send(&mut log, which as u64 % sent),
                    Step::Resend(_) => {}
                    Step::Reversed => {
                        for _ in 0..3 {
                            send(&mut log, sent);
                            sent += 1;
                        }
                        log[from..].iter().rev().for_each(|message| {
                            store.store.write(std::slice::from_ref(message)).unwrap();
                        });
                    }
                    Step::Publish => store.close().await.unwrap(),
                    Step::Kill => {
                        drop(store);
                        store = restart(dir.path(), &log, 12).await;
                    }
                    Step::KillInPublish => {
                        let before = fs::read(&manifest).ok();
                        store.close().await.unwrap();
                        match before {
                            Some(before) => fs::write(&manifest, before).unwrap(),
                            None => _ = fs::remove_file(&manifest),
                        }
                        drop(store);
                        store = restart(dir.path(), &log, 12).await;
                    }
                }
                store.write(&log[from..]).await.unwrap();
                assert!(store.resume_at() <= store.durable(0).unwrap());
            }
            let times: Vec<i64> = pages(&store, query(""), 1_000).await.iter().map(|hit| hit.time_ns).collect();
            let unique: BTreeSet<i64> = times.iter().copied().collect();
            assert_eq!(times.len(), unique.len(), "an event twice");
            assert_eq!(unique.len() as u64, 2 * sent, "an event is missing");
        });
    }
}
