//! The oracle is a plain list of what was answered as durable.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, sync::Barrier};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Small enough for a few frames a segment.
const SMALL: Options = Options { segment_bytes: 400, bytes_max: 1 << 20, frame_bytes_max: 4_096, offset_min: 0 };

fn payload(index: u64) -> Vec<u8> {
    (0..index * 7 % 150).map(|at| (at ^ index) as u8).collect()
}

fn append(spool: &Spool, payload: &[u8]) -> u64 {
    spool.append(&[payload]).unwrap().wait().unwrap()
}

fn read_all(reader: &mut Reader, bytes_max: usize) -> BTreeMap<u64, Vec<u8>> {
    let mut all = BTreeMap::new();
    loop {
        let frames = reader.read(bytes_max).unwrap();
        if frames.is_empty() {
            return all;
        }
        for frame in frames {
            assert!(all.last_key_value().is_none_or(|(&last, _)| last < frame.offset), "offsets rise");
            all.insert(frame.offset, frame.payload.to_vec());
        }
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// Ten frames in one segment: the file's path and content, and where each frame begins.
fn one_segment() -> (TempDir, PathBuf, Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Options::default()).unwrap();
    let mut starts = vec![segment::PREAMBLE.len()];
    for index in 0..10 {
        assert_eq!(append(&spool, &payload(index)), index);
        starts.push(starts[index as usize] + frame::HEADER_BYTES + payload(index).len());
    }
    drop(spool);
    let path = segments(dir.path()).remove(0);
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), starts[10]);
    (dir, path, content, starts)
}

#[test]
fn frames_come_back_in_order_over_many_segments_and_openings() {
    let dir = tempfile::tempdir().unwrap();
    for opening in 0..4 {
        let spool = Spool::open(dir.path(), SMALL).unwrap();
        for index in 25 * opening..25 * (opening + 1) {
            assert_eq!(append(&spool, &payload(index)), index);
        }
        for bytes_max in [1, 100, 1 << 20] {
            let mut reader = spool.reader(0);
            let all = read_all(&mut reader, bytes_max);
            assert_eq!(all, (0..25 * (opening + 1)).map(|index| (index, payload(index))).collect());
            assert_eq!(reader.lost(), 0);
        }
        assert_eq!(read_all(&mut spool.reader(20), 64).len() as u64, 25 * (opening + 1) - 20);
    }
    assert!(segments(dir.path()).len() > 10);
}

#[test]
fn a_file_cut_anywhere_keeps_every_whole_frame_and_goes_on() {
    let (dir, path, content, starts) = one_segment();
    for cut in 0..=content.len() {
        fs::write(&path, &content[..cut]).unwrap();
        let whole = starts[1..].iter().filter(|&&end| end <= cut).count() as u64;
        let spool = Spool::open(dir.path(), Options::default()).unwrap();
        assert_eq!(append(&spool, b"after the crash"), whole, "cut at {cut}");
        let mut reader = spool.reader(0);
        let mut all = read_all(&mut reader, 1 << 20);
        assert_eq!(all.remove(&whole).unwrap(), b"after the crash");
        assert_eq!(all, (0..whole).map(|index| (index, payload(index))).collect(), "cut at {cut}");
        assert_eq!(reader.lost(), 0);
        drop(spool);
        assert_eq!(segments(dir.path()), std::slice::from_ref(&path));
    }
}

#[test]
fn a_damaged_byte_costs_the_frame_that_it_is_in() {
    let (dir, path, content, starts) = one_segment();
    for at in 0..content.len() {
        let mut damaged = content.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let spool = Spool::open(dir.path(), Options::default()).unwrap();
        let mut reader = spool.reader(0);
        let all = read_all(&mut reader, 1 << 20);
        let hit = starts.iter().rposition(|&start| start <= at).map(|index| index as u64);
        let expected = (0..10).filter(|&index| Some(index) != hit).map(|index| (index, payload(index))).collect();
        assert_eq!(all, expected, "byte {at}");
        // The last frame is taken for a torn one, of which nobody was told.
        let lost = u64::from(hit.is_some_and(|index| index != 9));
        assert_eq!(reader.lost(), lost, "byte {at}");
    }
}

#[test]
fn frames_after_a_hole_in_a_group_that_was_never_synced_are_cut_off() {
    let (dir, path, content, starts) = one_segment();
    // The group 3..6 as a crash can leave it: written, its first page lost, nothing after it.
    let salt = u64::from_str_radix(&path.file_stem().unwrap().to_str().unwrap()[21..], 16).unwrap();
    let mut torn = content[..starts[3]].to_vec();
    torn.extend(vec![0; starts[4] - starts[3]]);
    for index in 4..6 {
        let payload = payload(index);
        let (payload_bytes, payload_crc) = (payload.len() as u32, crc32fast::hash(&payload));
        let header = frame::Header { payload_bytes, payload_crc, offset: index, durable: 3 };
        torn.extend(header.encode(salt));
        torn.extend(payload);
    }
    fs::write(&path, &torn).unwrap();
    let spool = Spool::open(dir.path(), Options::default()).unwrap();
    assert_eq!(spool.durable(), 3);
    let mut reader = spool.reader(0);
    assert_eq!(read_all(&mut reader, 1 << 20).len(), 3);
    assert_eq!((append(&spool, b"next"), reader.lost()), (3, 0));
}

#[test]
fn a_frame_inside_a_payload_is_never_taken_for_one() {
    let (dir, path, content, starts) = one_segment();
    let forged = content[starts[5]..starts[6]].to_vec();
    let other = tempfile::tempdir().unwrap();
    let spool = Spool::open(other.path(), Options::default()).unwrap();
    append(&spool, &forged);
    append(&spool, b"good");
    drop(spool);
    let outer = segments(other.path()).remove(0);
    let mut damaged = fs::read(&outer).unwrap();
    damaged[segment::PREAMBLE.len() + 9] ^= 1;
    fs::write(&outer, &damaged).unwrap();
    let spool = Spool::open(other.path(), Options::default()).unwrap();
    assert_eq!(read_all(&mut spool.reader(0), 1 << 20), BTreeMap::from([(1, b"good".to_vec())]));
    drop((dir, path));
}

#[test]
fn appends_that_wait_together_are_synced_together() {
    const THREADS: u64 = 16;
    const EACH: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Options::default()).unwrap();
    let barrier = Barrier::new(THREADS as usize);
    let answered: BTreeMap<u64, Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (spool, barrier) = (&spool, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let body = |index: u64| format!("{thread}:{index}").into_bytes();
                    (0..EACH).map(|index| (append(spool, &body(index)), body(index))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answered.len() as u64, THREADS * EACH, "every frame has an offset of its own");
    assert_eq!(read_all(&mut spool.reader(0), 1 << 20), answered);
}

#[test]
fn a_full_log_refuses_until_something_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: 8_000, segment_bytes: 1_000, ..SMALL };
    let spool = Spool::open(dir.path(), options.clone()).unwrap();
    let mut next = 0;
    let full = loop {
        match spool.append(&[&[7; 100]]) {
            Ok(appended) => next = appended.wait().unwrap() + 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, SpoolError::Full { bytes_max: 8_000 });
    assert!(next > 50);
    let on_disk: u64 = segments(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(on_disk <= 8_000 + 16 * 10 && spool.bytes() == on_disk, "{on_disk} of {}", spool.bytes());

    spool.releaser().release(next / 2).unwrap();
    assert_eq!(append(&spool, b"room again"), next);
    let mut reader = spool.reader(next / 2);
    assert_eq!(read_all(&mut reader, 1 << 20).len() as u64, next - next / 2 + 1, "nothing past the release is gone");
    spool.releaser().release(u64::MAX).unwrap();
    assert_eq!(segments(dir.path()).len(), 1, "the active segment stays: it knows the next offset");
    drop((reader, spool));
    assert_eq!(append(&Spool::open(dir.path(), options).unwrap(), b"x"), next + 1);
}

#[test]
fn too_large_a_frame_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), SMALL).unwrap();
    assert_eq!(
        spool.append(&[&[0; 4_000], &[0; 97]]).unwrap_err(),
        SpoolError::TooLarge { bytes: 4_097, bytes_max: 4_096 }
    );
    assert_eq!(append(&spool, &[0; 4_096]), 0);
}

#[test]
fn a_second_user_is_locked_out_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), SMALL).unwrap();
    assert_eq!(Spool::open(dir.path(), SMALL).unwrap_err(), SpoolError::Locked(dir.path().to_owned()));
    drop(spool);
    Spool::open(dir.path(), SMALL).unwrap();
}

#[test]
fn a_lost_directory_does_not_reuse_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Options { offset_min: 500, ..SMALL }).unwrap();
    assert_eq!(append(&spool, b"x"), 500);
    drop(spool);
    let spool = Spool::open(dir.path(), Options { offset_min: 900, ..SMALL }).unwrap();
    assert_eq!(append(&spool, b"y"), 900);
    let mut reader = spool.reader(500);
    assert_eq!(read_all(&mut reader, 1 << 20).into_keys().collect::<Vec<_>>(), [500, 900]);
}

#[tokio::test]
async fn a_reader_waits_for_what_is_durable_and_sees_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), SMALL).unwrap();
    let mut reader = spool.reader(0);
    let (mut waited, appended) = tokio::join!(reader.wait(), spool.append(&[b"one"]).unwrap());
    assert!(waited);
    assert_eq!(appended.unwrap(), 0);
    assert_eq!(reader.read(1).unwrap().len(), 1);
    drop((spool.append(&[b"two"]).unwrap(), spool));
    waited = reader.wait().await;
    assert!(waited, "what waited when the log was closed is written and read");
    assert_eq!(reader.read(1).unwrap()[0].payload, "two");
    assert!(!reader.wait().await);
}

#[test]
fn a_deleted_segment_is_counted_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), SMALL).unwrap();
    for index in 0..50 {
        append(&spool, &payload(index));
    }
    let mut reader = spool.reader(0);
    spool.releaser().release(25).unwrap();
    let all = read_all(&mut reader, 100);
    assert!(all.contains_key(&25) && !all.contains_key(&0));
    assert_eq!(reader.lost() + all.len() as u64, 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the last segment's place: no panic, no endless loop, and only frames that were written.
    #[test]
    fn garbage_gives_no_frames(garbage in prop::collection::vec(any::<u8>(), 0..4_000), keep in 0usize..500) {
        let (dir, path, content, _) = one_segment();
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&content[..keep.min(content.len())]).unwrap();
        file.write_all(&garbage).unwrap();
        drop(file);
        let spool = Spool::open(dir.path(), Options::default()).unwrap();
        for (offset, body) in read_all(&mut spool.reader(0), 1 << 20) {
            prop_assert_eq!(body, payload(offset));
        }
    }
}
