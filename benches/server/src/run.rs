//! The parent: topics, then every case in rounds, then the report.

use std::{collections::BTreeMap, fs, process::Command, time::Instant};

use anyhow::{Context as _, bail, ensure};

use crate::{
    cases::{CASES, Case, Work},
    drain::{self, Sink},
    figures::Figures,
    ingest,
    limits::LIMITS,
    plan::Plan,
    plot, report, topic,
};

/// One measurement. CPU is user and system time in seconds per million records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Of the program.
    pub(crate) cpu_s: f64,
    pub(crate) records_per_s: f64,
    pub(crate) peak_mb: f64,
    /// Of a request.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Requests that were answered "try again".
    pub(crate) refused: f64,
    /// Of what stands around it.
    pub(crate) sink_cpu_s: Option<f64>,
    pub(crate) broker_cpu_s: Option<f64>,
    pub(crate) load_cpu_s: Option<f64>,
    /// Records a bulk, and bytes a record, as JSON and as sent.
    pub(crate) bulk_records: Option<f64>,
    pub(crate) body_bytes: Option<f64>,
    pub(crate) wire_bytes: Option<f64>,
    /// Records that came more than once.
    pub(crate) doubled: f64,
    /// Memory without a sink: after a third of that time and at its end, MB.
    pub(crate) while_down: Option<(f64, f64)>,
}

/// Of one case, all rounds; or why there are none.
pub(crate) struct Measured {
    pub(crate) case: &'static Case,
    pub(crate) samples: Vec<Sample>,
    pub(crate) failed: Option<String>,
}

/// Of one limit, all rounds: CPU s per million, records per second.
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) samples: Vec<(f64, f64)>,
}

/// Measures what the plan says.
///
/// # Errors
/// When nothing could be measured, and after the report when a case of the server's own failed.
pub(crate) fn all(plan: &Plan) -> anyhow::Result<()> {
    let known = |word: &String| {
        CASES.iter().any(|case| case.names().contains(&word.as_str()))
            || LIMITS.iter().any(|(name, _)| name == word)
            || word == "limits"
    };
    if let Some(word) = plan.only.iter().find(|word| !known(word)) {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!("CASE: there is no `{word}`; there are drains, ingests, ours, peers, limits, {}", names.join(", "));
    }
    let start = Instant::now();
    let say = |text: &str| eprintln!("bench-server: {:>4} s  {text}", start.elapsed().as_secs());
    let mut measured: Vec<_> = CASES
        .iter()
        .filter(|case| plan.wants(&case.names()))
        .map(|case| Measured { case, samples: Vec::new(), failed: case.program.missing(plan) })
        .collect();
    let mut limits: Vec<_> = LIMITS
        .iter()
        .filter(|(name, _)| plan.wants(&["limits", name]))
        .map(|(name, what)| (*name, Limit { what, samples: Vec::new() }))
        .collect();
    let mut topics = Topics { plan, filled: BTreeMap::new() };

    for round in 1..=plan.rounds {
        for Measured { case, samples, failed } in measured.iter_mut().filter(|measured| measured.failed.is_none()) {
            // These take long and say the same every time.
            let is_long =
                matches!(case.work, Work::Elasticsearch) || matches!(case.work, Work::Drain(drain) if drain.is_backlog);
            if is_long && round > 1 {
                continue;
            }
            match once(plan, case, round, &mut topics) {
                Ok(sample) => {
                    say(&format!("round {round} of {}  {}", plan.rounds, report::brief(case, &sample)));
                    samples.push(sample);
                }
                Err(error) => {
                    say(&format!("NOT MEASURED: {}: {error:#}", case.name));
                    *failed = Some(format!("{error:#}").lines().next().unwrap_or_default().chars().take(300).collect());
                }
            }
        }
        for (name, limit) in &mut limits {
            let sample = limit_once(plan, name, &mut topics).with_context(|| format!("the limit {name}"))?;
            say(&format!("round {round} of {}  {name}: {:.3} CPU s per million", plan.rounds, sample.0));
            limit.samples.push(sample);
        }
    }

    let limits: Vec<_> = limits.into_iter().map(|(_, limit)| limit).collect();
    let text = report::tables(&measured, &limits);
    fs::create_dir_all(&plan.out).with_context(|| plan.out.display().to_string())?;
    fs::write(plan.out.join("server.md"), &text)?;
    fs::write(plan.out.join("server.svg"), plot::svg(&measured, &limits))?;
    println!("{text}\n{}", plot::characters(&measured, &limits));
    say(&format!("written: {0}/server.md and {0}/server.svg", plan.out.display()));
    let ours = |measured: &&Measured| measured.failed.is_some() && measured.case.groups.contains(&"ours");
    let failed: Vec<_> = measured.iter().filter(ours).map(|measured| measured.case.name).collect();
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn once(plan: &Plan, case: &Case, round: u32, topics: &mut Topics<'_>) -> anyhow::Result<Sample> {
    match case.work {
        Work::Drain(work) => {
            let format = if case.program.wants_json() { "json" } else { "otlp" };
            let records = if work.is_backlog { plan.backlog } else { plan.records };
            let topic = topics.filled(format, records)?;
            drain::measure(plan, case, work, &topic, records)
        }
        Work::Elasticsearch => {
            ensure!(!plan.elasticsearch.is_empty(), "no Elasticsearch was started");
            // It takes some thirty times what a drain takes.
            let records = plan.records / 5;
            let topic = topics.filled("otlp", records)?;
            drain::into_elasticsearch(plan, case, &topic, records)
        }
        Work::Ingest(work) => ingest::measure(plan, case, work, round),
    }
}

/// The topics of this run, filled once each.
struct Topics<'p> {
    plan: &'p Plan,
    filled: BTreeMap<(String, u64), String>,
}

impl Topics<'_> {
    fn filled(&mut self, format: &str, records: u64) -> anyhow::Result<String> {
        let key = (format.to_owned(), records);
        if let Some(topic) = self.filled.get(&key) {
            return Ok(topic.clone());
        }
        let topic = format!("bench-{format}-{records}-{}", std::process::id());
        eprintln!("bench-server: filling the topic {topic}");
        topic::filled(&self.plan.brokers, &topic, records, format)?;
        self.filled.insert(key, topic.clone());
        Ok(topic)
    }
}

fn limit_once(plan: &Plan, name: &str, topics: &mut Topics<'_>) -> anyhow::Result<(f64, f64)> {
    let topic = topics.filled("otlp", plan.records)?;
    let body = drain::kept_body(plan);
    let needs_body = matches!(name, "send" | "memcpy");
    ensure!(!needs_body || body.exists(), "its bodies are those of the case `drain`, which was not measured");
    let sink = if name == "send" { Some(Sink::start(plan, 0)?) } else { None };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["limit", "--which", name, "--brokers", &plan.brokers, "--topic", &topic]);
    command.args(["--records", &plan.records.to_string(), "--sink", &drain::address(plan), "--body"]).arg(body);
    let output = command.output()?;
    drop(sink);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures = Figures::parse(&String::from_utf8_lossy(&output.stdout)).context("it told no figures")?;
    let records = figures.get("records")?;
    Ok((figures.get("cpu_s")? / records * 1e6, records / figures.get("seconds")?))
}
