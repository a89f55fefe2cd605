//! One drain: a program, a sink, a topic that is full; until all of it has arrived.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    cases::{Case, Drain},
    figures::Figures,
    http::Client,
    plan::Plan,
    process::{self, Process, Profile, Usage},
    program::{Ports, Route},
    run::Sample,
    topic::{self, RECORDS},
};

/// Nothing arrives for so long when nothing more comes: a JVM's or a group's slow start is far below.
const QUIET: Duration = Duration::from_secs(60);
/// Between two looks at the sink.
const LOOK: Duration = Duration::from_millis(10);
/// What is written twice arrives within this.
const AFTERWARDS: Duration = Duration::from_millis(500);
/// A commit comes within this.
const COMMIT_MAX: Duration = Duration::from_secs(15);

/// A counting sink in a process of its own.
pub(crate) struct Sink {
    process: Process,
    address: String,
    client: Option<Client>,
}

impl Sink {
    /// Starts it and waits until it listens.
    pub(crate) fn start(plan: &Plan, delay_ms: u32) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["sink", "--port", &plan.port.to_string(), "--delay-ms", &delay_ms.to_string()]);
        // The first body of a usual drain is what the limits are measured with.
        let kept = kept_body(plan);
        if delay_ms == 0 && !kept.exists() {
            command.arg("--keep").arg(kept);
        }
        let process = Process::start(&mut command, plan.work.join("sink.log"))?;
        let mut sink = Self { process, address: address(plan), client: None };
        let start = Instant::now();
        while sink.figures().is_err() {
            sink.process.check().context("the sink")?;
            ensure!(start.elapsed() < QUIET, "the sink does not answer");
            thread::sleep(LOOK);
        }
        Ok(sink)
    }

    /// What it has counted.
    pub(crate) fn figures(&mut self) -> anyhow::Result<Figures> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.address)?);
        }
        let Some(client) = &mut self.client else { bail!("no connection to the sink") };
        Figures::parse(&client.get("/_bench")?).context("the sink told no figures")
    }

    /// User and system time so far.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        Ok(self.process.usage()?.cpu_s)
    }
}

/// `host:port` of the sink.
pub(crate) fn address(plan: &Plan) -> String {
    format!("127.0.0.1:{}", plan.port)
}

/// Where the body is that the limits are measured with.
pub(crate) fn kept_body(plan: &Plan) -> PathBuf {
    plan.work.join("body.ndjson")
}

/// A consumer group that has read nothing yet.
fn group(case: &Case) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bench-{}-{}-{}", case.name, std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Measures it once.
pub(crate) fn measure(plan: &Plan, case: &Case, drain: Drain, topic: &str, records: u64) -> anyhow::Result<Sample> {
    let group = group(case);
    let sink_url = format!("http://{}", address(plan));
    let route = Route { topic, group: &group, sink: &sink_url, index: "logs-bench-default" };
    let mut sink = if drain.is_down { None } else { Some(Sink::start(plan, drain.delay_ms)?) };
    let broker = process::of_stack(&plan.stack_work, "kafka")?;
    let broker_before = process::usage(broker)?.cpu_s;

    let ports = Ports { grpc: plan.port + 1, http: plan.port + 2 };
    let mut command = case.program.drain(plan, &route, drain, ports)?;
    let mut program = Process::start(&mut command, plan.work.join(format!("{}.log", case.name)))?;
    let profile = Profile::start(&program, &plan.work)?;
    let mut while_down = None;
    let mut sink = match sink.take() {
        Some(sink) => sink,
        None => {
            while_down = Some(down(plan, &mut program)?);
            Sink::start(plan, drain.delay_ms)?
        }
    };

    let (mut seen, mut last) = (0.0, Instant::now());
    let (figures, usage) = loop {
        let figures = sink.figures()?;
        let arrived = figures.get("records")?;
        if arrived >= records as f64 {
            break (figures, program.usage()?);
        }
        if arrived > seen {
            (seen, last) = (arrived, Instant::now());
        }
        program.check()?;
        ensure!(last.elapsed() < QUIET, "{arrived} of {records} records arrived, then nothing; {}", program.output());
        thread::sleep(LOOK);
    };
    profile.stop()?;
    let (sink_cpu, broker_cpu) = (sink.cpu_s()?, process::usage(broker)?.cpu_s - broker_before);

    thread::sleep(AFTERWARDS);
    let doubled = sink.figures()?.get("records")? - records as f64;
    if case.program.commits_after() {
        ensure!(doubled == 0.0, "{doubled} records were written twice");
        let (messages, start) = (records / u64::from(RECORDS), Instant::now());
        loop {
            let committed = topic::committed(&plan.brokers, topic, &group)?;
            if committed == messages {
                break;
            }
            ensure!(start.elapsed() < COMMIT_MAX, "{committed} of {messages} messages are committed");
            thread::sleep(LOOK);
        }
        let status = program.stop()?;
        ensure!(status.success(), "it ended with {status}: {}", program.output());
    }

    let millions = records as f64 / 1e6;
    let seconds = (figures.get("last_ns")? - figures.get("first_ns")?) / 1e9;
    Ok(Sample {
        cpu_s: usage.cpu_s / millions,
        records_per_s: (records as f64 - figures.get("first_records")?) / seconds,
        peak_mb: usage.peak_mb,
        sink_cpu_s: Some(sink_cpu / millions),
        broker_cpu_s: Some(broker_cpu / millions),
        bulk_records: Some(records as f64 / figures.get("bulks")?),
        body_bytes: Some(figures.get("body_bytes")? / records as f64),
        wire_bytes: Some(figures.get("wire_bytes")? / records as f64),
        doubled,
        while_down,
        ..Sample::default()
    })
}

/// Without a sink: memory after a third of the time and at its end, MB.
fn down(plan: &Plan, program: &mut Process) -> anyhow::Result<(f64, f64)> {
    let third = Duration::from_secs(plan.down_s) / 3;
    thread::sleep(third);
    program.check()?;
    let early = program.usage()?.resident_mb;
    thread::sleep(third * 2);
    program.check()?;
    Ok((early, program.usage()?.resident_mb))
}

/// Into a real Elasticsearch.
pub(crate) fn into_elasticsearch(plan: &Plan, case: &Case, topic: &str, records: u64) -> anyhow::Result<Sample> {
    let group = group(case);
    let index = format!("logs-{group}");
    let route = Route { topic, group: &group, sink: &plan.elasticsearch, index: &index };
    let elasticsearch = process::of_stack(&plan.stack_work, "elasticsearch")?;
    let before = process::usage(elasticsearch)?.cpu_s;
    let ports = Ports { grpc: plan.port + 1, http: plan.port + 2 };
    let drain = Drain { delay_ms: 0, compression: None, is_backlog: false, is_down: false };
    let mut command = case.program.drain(plan, &route, drain, ports)?;
    let start = Instant::now();
    let mut program = Process::start(&mut command, plan.work.join(format!("{}.log", case.name)))?;
    let mut client = Client::connect(plan.elasticsearch.trim_start_matches("http://"))?;
    let (mut seen, mut last) = (0, Instant::now());
    let usage: Usage = loop {
        // Before the index is there the answer is not a good one.
        let count = client.get(&format!("/{index}/_count?ignore_unavailable=true")).ok();
        let count = count.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()?["count"].as_u64());
        if count == Some(records) {
            break program.usage()?;
        }
        if count.is_some_and(|count| count > seen) {
            (seen, last) = (count.unwrap_or(seen), Instant::now());
        }
        program.check()?;
        ensure!(last.elapsed() < QUIET, "{seen} of {records} records are found; {}", program.output());
        thread::sleep(Duration::from_millis(200));
    };
    let seconds = start.elapsed().as_secs_f64();
    let millions = records as f64 / 1e6;
    let sample = Sample {
        cpu_s: usage.cpu_s / millions,
        records_per_s: records as f64 / seconds,
        peak_mb: usage.peak_mb,
        sink_cpu_s: Some((process::usage(elasticsearch)?.cpu_s - before) / millions),
        ..Sample::default()
    };
    let status = program.stop()?;
    ensure!(status.success(), "it ended with {status}: {}", program.output());
    Ok(sample)
}
