//! Stories of a sink that is down, a process that ends, and the disk between them.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use crate::{
    Builder, Guard,
    config::Overflow,
    metrics::Reason,
    transport::{Batch, header, memory::Memory},
    worker::tests::{PATIENCE, emit, numbers, wait_until, with},
};

fn builder(sink: &Arc<Memory>, dir: &Path) -> Builder {
    let dir = dir.to_owned();
    let builder = crate::builder().alone().service("test").rules("none").transport(sink.clone());
    builder.overflow(Overflow::Spill).configure(move |config| {
        config.spool.dir = Some(dir);
        config.batch.age_ms_max = 5;
        // So that the order of arrival is that of sending.
        config.send.in_flight_max = 1;
        config.send.flush_timeout_ms = 10_000;
        config.retry.delay_ms_min = 1;
        config.retry.delay_ms_max = 10;
    })
}

fn down() -> Arc<Memory> {
    let sink = Arc::new(Memory::new());
    sink.set_down(true);
    sink
}

fn all_in_order(sink: &Memory) -> Vec<i64> {
    sink.taken().iter().flat_map(numbers).collect()
}

/// The batches, each but once, as a server keeps them.
fn deduplicated(sinks: &[&Memory]) -> Vec<Batch> {
    let mut seen = BTreeSet::new();
    let taken = sinks.iter().flat_map(|sink| sink.taken());
    taken.filter(|batch| seen.insert((batch.header(header::INSTANCE).unwrap().to_owned(), batch.sequence))).collect()
}

/// A process's life while the sink is down: it emits, flushes and ends.
fn leaves(dir: &Path, range: std::ops::Range<i64>) -> Guard {
    let sink = down();
    let guard = with(builder(&sink, dir), |guard| {
        emit(range);
        guard.flush(PATIENCE).unwrap();
    });
    assert!(sink.taken().is_empty());
    guard
}

/// All files of this kind below the directory.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|have| have == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn slot(dir: &Path, number: u32) -> PathBuf {
    let service = dir.join("test");
    let sinks: Vec<_> = fs::read_dir(service).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(sinks.len(), 1);
    sinks[0].join(number.to_string())
}

#[test]
fn a_process_that_ends_while_the_sink_is_down_leaves_all_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let guard = leaves(dir.path(), 0..100);
    let instance = guard.instance().to_owned();
    let counts = guard.metrics();
    assert_eq!((counts.drained, counts.spooled, counts.sent, counts.lost()), (100, 100, 0, 0), "{counts}");
    drop(guard);

    let sink = Arc::new(Memory::new());
    let guard = with(builder(&sink, dir.path()), |guard| {
        emit(100..110);
        wait_until("all events", || all_in_order(&sink).len() >= 110);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(all_in_order(&sink), (0..110).collect::<Vec<_>>());
    for batch in sink.taken() {
        let expected = if numbers(&batch)[0] < 100 { instance.as_str() } else { guard.instance() };
        assert_eq!(batch.header(header::INSTANCE), Some(expected), "under the name of who emitted it");
    }
    let counts = guard.metrics();
    assert_eq!((counts.drained, counts.sent, counts.lost()), (110, 110, 0), "{counts}");
    drop(guard);
    assert!(files(dir.path(), "log").is_empty(), "what was sent is gone");
}

#[test]
fn a_sink_that_comes_back_gets_everything_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let sink = down();
    let guard = with(builder(&sink, dir.path()), |guard| {
        for round in 0..20 {
            emit(round * 10..round * 10 + 10);
            guard.flush(PATIENCE).unwrap();
        }
        sink.set_down(false);
        emit(200..300);
        wait_until("all events", || all_in_order(&sink).len() >= 300);
        // Back in memory, without the disk.
        let spooled = guard.metrics().spooled;
        emit(300..310);
        guard.flush(PATIENCE).unwrap();
        assert_eq!(guard.metrics().spooled, spooled);
    });
    assert_eq!(all_in_order(&sink), (0..310).collect::<Vec<_>>());
    let sequences: Vec<_> = sink.taken().iter().map(|batch| batch.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "numbers without a gap");
    let counts = guard.metrics();
    assert_eq!((counts.drained, counts.sent, counts.lost()), (310, 310, 0), "{counts}");
}

#[test]
fn more_than_memory_holds_goes_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let sink = down();
    let small = builder(&sink, dir.path()).configure(|config| {
        config.queue.bytes_max = 1 << 20;
        config.queue.level.insert(crate::config::Level::Info, crate::config::LevelOverflow::Block);
        config.queue.block_ms_max = 60_000;
        config.batch.bytes_max = 64 << 10;
    });
    let guard = with(small, |guard| {
        // Some eight times the memory.
        emit(0..40_000);
        assert_eq!(guard.metrics().lost(), 0);
        wait_until("most to be on disk", || guard.metrics().spooled > 20_000);
        sink.set_down(false);
        wait_until("all events", || all_in_order(&sink).len() >= 40_000);
    });
    assert_eq!(all_in_order(&sink), (0..40_000).collect::<Vec<_>>());
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn an_answer_that_got_lost_before_the_end_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sink = down();
    let guard = with(builder(&sink, dir.path()), |guard| {
        emit(0..50);
        guard.flush(PATIENCE).unwrap();
        // Taken, and never told so.
        let lost_answer = crate::transport::SendError::Retryable { message: "lost".to_owned(), after: None };
        sink.answer(vec![crate::transport::memory::Answer::TakeButFail(lost_answer); 10_000]);
        sink.set_down(false);
        wait_until("a batch to be taken", || !sink.taken().is_empty());
    });
    drop(guard);
    let next = Arc::new(Memory::new());
    let guard = with(builder(&next, dir.path()), |_| {
        wait_until("all events", || all_in_order(&next).len() >= 50);
    });
    drop(guard);
    let kept: Vec<_> = deduplicated(&[&sink, &next]).iter().flat_map(numbers).collect();
    assert_eq!(kept, (0..50).collect::<Vec<_>>());
}

#[test]
fn processes_share_nothing_and_the_dead_are_inherited() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (down(), down());
    let first = with(builder(&one, dir.path()), |guard| {
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    let second = with(builder(&two, dir.path()), |guard| {
        emit(10..20);
        guard.flush(PATIENCE).unwrap();
    });
    assert!(slot(dir.path(), 0).is_dir() && slot(dir.path(), 1).is_dir());
    one.set_down(false);
    wait_until("the first one's events", || all_in_order(&one).len() == 10);
    assert!(two.taken().is_empty());
    // The second ends; a third finds slot 0 taken, takes slot 1 and what is in it.
    drop(second);
    let three = Arc::new(Memory::new());
    let third = with(builder(&three, dir.path()), |_| {
        wait_until("the second one's events", || all_in_order(&three).len() == 10);
    });
    assert_eq!((all_in_order(&one), all_in_order(&three)), ((0..10).collect(), (10..20).collect()));
    assert!(two.taken().is_empty());
    drop((first, third));

    // Two left something, one comes: it takes over both.
    let both = (leaves(dir.path(), 20..30), leaves(dir.path(), 30..40));
    assert!(!files(&slot(dir.path(), 1), "log").is_empty());
    drop(both);
    let four = Arc::new(Memory::new());
    drop(with(builder(&four, dir.path()), |_| wait_until("both", || all_in_order(&four).len() >= 20)));
    let mut all = all_in_order(&four);
    all.sort_unstable();
    assert_eq!(all, (20..40).collect::<Vec<_>>());
    assert!(files(dir.path(), "log").is_empty(), "what was sent is gone");
}

#[test]
fn a_slot_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(leaves(dir.path(), 0..10));
    let future = slot(dir.path(), 0);
    fs::write(future.join("format"), "2\n").unwrap();
    let before: Vec<_> = files(&future, "log").iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!before.is_empty());

    let sink = Arc::new(Memory::new());
    let guard = with(builder(&sink, dir.path()), |guard| {
        emit(10..20);
        guard.flush(PATIENCE).unwrap();
    });
    drop(guard);
    assert_eq!(all_in_order(&sink), (10..20).collect::<Vec<_>>());
    let after: Vec<_> = files(&future, "log").iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after);
    fs::write(future.join("format"), "1\n").unwrap();
    drop(with(builder(&sink, dir.path()), |_| wait_until("the rest", || all_in_order(&sink).len() == 20)));
}

#[test]
fn what_is_too_old_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let sink = down();
    let impatient = builder(&sink, dir.path()).configure(|config| config.spool.age_s_max = 1);
    let guard = with(impatient, |guard| {
        (0..5).for_each(|round| {
            emit(round * 10..round * 10 + 10);
            guard.flush(PATIENCE).unwrap();
        });
        wait_until("the events to expire", || guard.metrics().dropped_for(Reason::SpoolExpired) >= 40);
        sink.set_down(false);
        emit(50..60);
        guard.flush(PATIENCE).unwrap();
        wait_until("the new ones", || all_in_order(&sink).ends_with(&[59]) && guard.metrics().sent >= 10);
    });
    let counts = guard.metrics();
    assert_eq!(counts.drained, counts.sent + counts.lost(), "{counts}");
    assert!(all_in_order(&sink).iter().all(|number| *number >= 40), "{:?}", all_in_order(&sink));
}

#[test]
fn a_full_spool_drops_the_newest_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let sink = down();
    let small = builder(&sink, dir.path()).configure(|config| {
        config.spool.bytes_max = 8 << 20;
        config.queue.bytes_max = 1 << 20;
        config.batch.bytes_max = 64 << 10;
    });
    let guard = with(small, |guard| {
        let mut emitted = 0;
        wait_until("the spool to fill", || {
            emit(emitted..emitted + 1000);
            emitted += 1000;
            guard.metrics().dropped_for(Reason::SpoolFull) > 1000
        });
        let bytes: u64 = files(dir.path(), "log").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes <= 8 << 20, "{bytes}");
        sink.set_down(false);
        guard.flush(PATIENCE).unwrap();
        wait_until("the rest", || guard.metrics().sent + guard.metrics().lost() == emitted as u64);
    });
    let numbers = all_in_order(&sink);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    assert_eq!(numbers[..1000], (0..1000).collect::<Vec<_>>(), "the oldest are kept");
    assert_eq!(numbers.len() as u64, guard.metrics().sent);
}

#[test]
fn a_torn_or_damaged_spool_gives_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let sink = down();
    drop(with(builder(&sink, dir.path()), |guard| {
        (0..5).for_each(|round| {
            emit(round * 10..round * 10 + 10);
            guard.flush(PATIENCE).unwrap();
        });
    }));
    let segment = files(dir.path(), "log").remove(0);
    // One byte of the third of five frames, and half a frame at the end, as a crash leaves it.
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&segment, &bytes).unwrap();
    let half = bytes[16..16 + 200].to_vec();
    fs::File::options().append(true).open(&segment).unwrap().write_all(&half).unwrap();

    let sink = Arc::new(Memory::new());
    let guard = with(builder(&sink, dir.path()), |guard| {
        wait_until("what is whole", || all_in_order(&sink).ends_with(&[49]));
        emit(50..51);
        guard.flush(PATIENCE).unwrap();
    });
    let rest: Vec<_> = (0..20).chain(30..51).collect();
    assert_eq!(all_in_order(&sink), rest);
    assert_eq!(guard.metrics().dropped_for(Reason::SpoolFailed), 1, "a frame, of nobody knows how many records");
}

#[test]
fn a_directory_that_cannot_be_used_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = builder(&down(), &file).layer::<tracing_subscriber::Registry>().map(drop).unwrap_err().to_string();
    assert!(error.starts_with("spool.dir: cannot create") && error.contains("another queue.overflow"), "{error}");
}

#[test]
fn a_flush_does_not_wait_for_a_sink_that_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Arc::new(Memory::new());
    sink.set_held(true);
    let guard = with(builder(&sink, dir.path()), |guard| {
        emit(0..10);
        let start = Instant::now();
        guard.flush(PATIENCE).unwrap();
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        sink.set_held(false);
        wait_until("them to be sent", || guard.metrics().sent == 10);
    });
    drop(guard);
    assert_eq!(all_in_order(&sink), (0..10).collect::<Vec<_>>(), "though on disk as well, they are sent once");
}
