//! What cannot be done without: each limit is measured in a process of its own, in the same rounds as the servers.

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::{
    figures,
    http::Client,
    plan::Arguments,
    process::own_cpu_s,
    scan,
    topic::{self, PARTITIONS, RECORDS},
};

/// Limits by their names, and what they are.
pub(crate) const LIMITS: [(&str, &str); 5] = [
    ("fetch", "fetch the topic and count its messages"),
    ("send", "send the same bulk bodies over 4 connections"),
    ("memcpy", "copy the messages and the bodies once"),
    ("scan-shallow", "find the records of the messages"),
    ("scan-deep", "check all of the messages, UTF-8 included"),
];

/// The body has so many lines for a record.
const LINES: usize = 2;
/// Messages that the limits without a broker work on.
const SAMPLE: usize = 500;
/// As many connections as the drain has by default.
const CONNECTIONS: usize = 4;
/// Nothing arrives for so long when nothing more comes.
const QUIET: Duration = Duration::from_secs(20);

/// `limit --which NAME --brokers LIST --topic NAME --records N [--sink HOST:PORT --body FILE]`
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let records: u64 = arguments.number("--records")?;
    let read = |most| messages(arguments, most);
    let (start, cpu) = match arguments.text("--which")? {
        "fetch" => {
            let begin = (Instant::now(), own_cpu_s());
            let expected = usize::try_from(records)? / RECORDS as usize;
            let found = each_message(arguments, expected, |message| {
                black_box(message);
            })?;
            ensure!(found == expected, "{found} of {expected} messages were fetched");
            begin
        }
        "send" => send(arguments, records)?,
        "memcpy" => {
            let (messages, body) = (read(SAMPLE)?, fs::read(arguments.text("--body")?)?);
            let per_body = body.iter().filter(|byte| **byte == b'\n').count() / LINES;
            let begin = (Instant::now(), own_cpu_s());
            repeat(&messages, records, |message| {
                black_box(message.to_vec());
                Some(RECORDS)
            })?;
            for _ in 0..records / per_body as u64 {
                black_box(body.clone());
            }
            begin
        }
        which @ ("scan-shallow" | "scan-deep") => {
            let messages = read(SAMPLE)?;
            let scan = if which == "scan-deep" { scan::deep } else { scan::shallow };
            let begin = (Instant::now(), own_cpu_s());
            repeat(&messages, records, scan)?;
            begin
        }
        other => bail!("--which {other}: there is no such limit"),
    };
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), own_cpu_s() - cpu);
    print!("{}", figures::line(&[("records", records as f64), ("seconds", seconds), ("cpu_s", cpu)]));
    Ok(())
}

fn repeat(messages: &[Vec<u8>], records: u64, mut step: impl FnMut(&[u8]) -> Option<u32>) -> anyhow::Result<()> {
    let mut done = 0;
    for message in messages.iter().cycle() {
        if done >= records {
            break;
        }
        done += u64::from(black_box(step(black_box(message))).context("a message of the topic is not OTLP")?);
    }
    Ok(())
}

fn send(arguments: &Arguments, records: u64) -> anyhow::Result<(Instant, f64)> {
    let (sink, body) = (arguments.text("--sink")?, fs::read(arguments.text("--body")?)?);
    let per_body = body.iter().filter(|byte| **byte == b'\n').count() / LINES;
    ensure!(per_body > 0, "the body is empty");
    let bodies = usize::try_from(records)?.div_ceil(per_body);
    let begin = (Instant::now(), own_cpu_s());
    std::thread::scope(|scope| {
        let send = |from: usize| {
            let mut client = Client::connect(sink)?;
            for _ in (from..bodies).step_by(CONNECTIONS) {
                client.call("POST", "/logs-limit/_bulk?filter_path=errors", &body)?;
            }
            anyhow::Ok(())
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|from| scope.spawn(move || send(from))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a sender panicked")))
    })?;
    Ok(begin)
}

fn messages(arguments: &Arguments, most: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    each_message(arguments, most, |message| messages.push(message.to_vec()))?;
    Ok(messages)
}

/// Reads the topic from its beginning, up to `most` messages.
fn each_message(arguments: &Arguments, most: usize, mut see: impl FnMut(&[u8])) -> anyhow::Result<usize> {
    let mut config = topic::client(arguments.text("--brokers")?);
    // What the broker's client needs to be at its best: at the default of a second it idles.
    config.set("group.id", "logsink-bench-limit").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.set("fetch.queue.backoff.ms", "2").create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(arguments.text("--topic")?, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let (mut found, mut last) = (0, Instant::now());
    while found < most && last.elapsed() < QUIET {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            see(message?.payload().unwrap_or_default());
            (found, last) = (found + 1, Instant::now());
        }
    }
    Ok(found)
}
