//! What does a record cost the server between its bytes on the wire and its bytes in a `_bulk` body?
//!
//! The payload is what a service emits: records of about 530 bytes, 100 a message, from a resource of 7 attributes, each with
//! 10 attributes, ids and a body of 60 to 200 bytes. Two `memcpy` stand below as limits.
//!
//! Without arguments: nanoseconds of every step. `--case NAME --events N` runs one step over N records for callgrind, which
//! counts only what is called from [`measured`]; `dev/instructions` does that for all of them.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]

mod payload;

use std::{hint::black_box, time::Instant};

use logsink_transcode::{
    Transcoder,
    otlp::{self, Limits},
    queue::Message,
};

use self::payload::message;

const RECORDS: u32 = 100;
/// One `_bulk` body is made of so many messages, of 1 MB together: more than the caches near the core hold.
const MESSAGES: u32 = 20;
const ROUNDS: usize = 101;

/// What is counted, and then the limits.
const STEPS: [&str; 5] = ["check", "walk", "body", "memcpy of the payload", "memcpy of the body"];
const COUNTED: usize = 3;

/// Callgrind counts from here on.
#[inline(never)]
#[unsafe(no_mangle)]
fn measured(step: &mut dyn FnMut()) {
    step();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        STEPS[..COUNTED].iter().for_each(|step| println!("{step}"));
        return;
    }
    let messages: Vec<Message> = (0..MESSAGES).map(|index| message(index, RECORDS)).collect();
    let records = MESSAGES * RECORDS;
    let payload: usize = messages.iter().map(|message| message.payload.len()).sum();
    let mut transcoder = Transcoder::default();
    let mut body = Vec::new();
    let items = transcoder.body(&messages, |bytes| body.extend_from_slice(bytes));
    assert_eq!(items, records as usize);

    let mut run = |step: &str| match step {
        "check" => messages.iter().map(|m| otlp::check(&m.payload, &Limits::default()).map_or(0, |s| s.records)).sum(),
        "walk" => messages.iter().map(|m| walk(&m.payload)).sum::<u32>(),
        "body" => transcoder.body(&messages, |bytes| _ = black_box(bytes)) as u32,
        "memcpy of the payload" => messages.iter().map(|m| black_box(m.payload.to_vec()).len() as u32).sum(),
        "memcpy of the body" => black_box(body.to_vec()).len() as u32,
        _ => panic!("no such step: {step}; there are {STEPS:?}"),
    };

    let value = |name| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    if let Some(step) = value("--case") {
        let events: u32 = value("--events").and_then(|events| events.parse().ok()).expect("--events is a number");
        assert_eq!(events % records, 0, "a step takes {records} records at a time");
        run(step);
        measured(&mut || (0..events / records).for_each(|_| _ = black_box(run(step))));
        return;
    }

    let each = |bytes: usize| bytes as f64 / f64::from(records);
    println!("{records} records of {:.0} bytes, {:.0} in the body", each(payload), each(body.len()));
    // In turn, so that a noisy moment of the machine falls on all of them.
    let mut times = [const { Vec::new() }; STEPS.len()];
    for _ in 0..ROUNDS {
        for (step, times) in STEPS.iter().zip(&mut times) {
            let start = Instant::now();
            black_box(run(step));
            times.push(start.elapsed().as_nanos() as f64 / f64::from(records));
        }
    }
    for (step, mut times) in STEPS.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!("{step:<24} {:>7.1} ns  median {:>7.1} ns a record", times[0], times[ROUNDS / 2]);
    }
}

/// What every reader of a message does at the least: look at each record and at each of its attributes.
fn walk(payload: &[u8]) -> u32 {
    let mut seen = 0;
    let walked = otlp::for_each_record(payload, &mut |record| {
        seen += record.time_ns() as u32 ^ record.attributes().iter().count() as u32;
    });
    walked.expect("the payload is OTLP") + (seen & 1)
}
