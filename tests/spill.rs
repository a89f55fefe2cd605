//! kill -9 at any moment of a process that spills: whatever was acknowledged arrives, once, and in order.
//!
//! A thousand times, which takes some twenty seconds; `LOGSINK_SPILL_KILLS` says how often.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Numbers that one process may use.
const NUMBERS: i64 = 1_000_000;
/// Processes at a time: each has a slot of its own, and inherits those of the dead.
const SIDE_BY_SIDE: i64 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

fn spooler(dir: &Path, mode: &str, first: i64, rounds: i64) -> Child {
    Command::new(env!("CARGO_BIN_EXE_logsink-spooler"))
        .arg(dir.join("spool"))
        .arg(dir.join("taken"))
        .args([mode.to_owned(), first.to_string(), rounds.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the spooler starts")
}

/// Runs one process until it is killed or ends; returns the last number that it was told is safe.
fn one_life(dir: &Path, first: i64, random: &mut u64) -> Option<i64> {
    let mut dice = |sides: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % sides
    };
    let mode = ["down", "down", "flaky", "up"][dice(4) as usize];
    let mut child = spooler(dir, mode, first, 1 + dice(12) as i64);
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    // The moment of the kill is random by intention; nothing waits for this time to be long enough.
    let moment = Duration::from_micros(dice(40_000));
    let killer = thread::spawn(move || {
        thread::park_timeout(moment);
        // It may have ended by itself.
        let _ = child.kill();
        child.wait()
    });
    let acknowledged =
        stdout.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("ack ")?.parse().ok()).last();
    killer.join().expect("no panic").expect("the child is ours");
    acknowledged
}

/// What the sink has taken: instance, sequence number, numbers.
fn taken(dir: &Path) -> Vec<(String, u64, Vec<i64>)> {
    let text = fs::read_to_string(dir.join("taken")).unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (instance, sequence) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let numbers = words.next()?.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        Some((instance, sequence, numbers))
    };
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn what_was_acknowledged_survives_any_kill_and_comes_once() {
    let kills: i64 = std::env::var("LOGSINK_SPILL_KILLS").map_or(1_000, |kills| kills.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let start = Instant::now();
    let mut acknowledged = BTreeSet::new();
    thread::scope(|scope| {
        let sides: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|side| {
                scope.spawn(move || {
                    let mut random = 7 + side as u64;
                    let lives = (side..kills).step_by(SIDE_BY_SIDE as usize).map(|life| life * NUMBERS);
                    lives.filter_map(|first| Some(first..=one_life(dir, first, &mut random)?)).collect::<Vec<_>>()
                })
            })
            .collect();
        sides.into_iter().for_each(|side| acknowledged.extend(side.join().unwrap().into_iter().flatten()));
    });
    assert!(acknowledged.len() as i64 > kills, "hardly anything was acknowledged: the test shows little");

    // Whoever comes last sends what is left.
    let mut last = spooler(dir, "drain", kills * NUMBERS, 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let arrived: BTreeSet<_> = taken(dir).into_iter().flat_map(|(.., numbers)| numbers).collect();
        let missing = acknowledged.difference(&arrived).count();
        if missing == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{missing} of {} acknowledged events did not arrive", acknowledged.len());
        thread::park_timeout(Duration::from_millis(20));
    }
    drop(last.stdin.take());
    assert!(last.wait().unwrap().success());

    let mut kept: BTreeMap<(String, u64), Vec<i64>> = BTreeMap::new();
    let (mut once, mut newest, mut repeats) = (BTreeSet::new(), BTreeMap::new(), 0);
    for (instance, sequence, numbers) in taken(dir) {
        if let Some(first) = kept.get(&(instance.clone(), sequence)) {
            assert_eq!(*first, numbers, "one number, two batches: {instance} {sequence}");
            repeats += 1;
            continue;
        }
        for number in &numbers {
            assert!(once.insert(*number), "{number} was delivered twice, the second time by {instance} {sequence}");
            let before = newest.insert(instance.clone(), *number);
            assert!(before < Some(*number), "{number} came after {before:?}");
        }
        kept.insert((instance, sequence), numbers);
    }
    eprintln!(
        "{kills} processes in {:.1} s: {} events acknowledged, {} arrived, {repeats} batches came again",
        start.elapsed().as_secs_f64(),
        acknowledged.len(),
        once.len()
    );
}
