//! What is to be measured, from the environment; and the arguments of children.

use std::{env, path::PathBuf, str::FromStr};

use anyhow::Context as _;

/// How much is measured, with what, and where the results go.
pub(crate) struct Plan {
    /// `CASE`: only these, names separated by commas; all when empty.
    pub(crate) only: Vec<String>,
    /// `ROUNDS`: each case so many times.
    pub(crate) rounds: u32,
    /// `RECORDS` of a drain and of an ingest with 100 records a request.
    pub(crate) records: u64,
    /// `BACKLOG`: records of the case `backlog`.
    pub(crate) backlog: u64,
    /// `DOWN_S`: how long the sink is away in the case `sink-down`.
    pub(crate) down_s: u64,
    /// `LOGSINK_SERVER_BIN`: the server.
    pub(crate) server: PathBuf,
    /// `STACK_HOME`: where the peers are installed.
    pub(crate) stack_home: PathBuf,
    /// `STACK_WORK`: where the stack keeps the process ids of Kafka and Elasticsearch.
    pub(crate) stack_work: PathBuf,
    /// `KAFKA_BROKERS`
    pub(crate) brokers: String,
    /// `ELASTICSEARCH_URL`
    pub(crate) elasticsearch: String,
    /// `BENCH_PORT`: the first of four ports of the bench's own.
    pub(crate) port: u16,
    /// `OUT`: where `server.md` and `server.svg` are written.
    pub(crate) out: PathBuf,
    /// Configurations, logs and certificates of the run.
    pub(crate) work: PathBuf,
}

impl Plan {
    /// Every variable has a default but the addresses, which `dev/bench-server` gives.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let quick = env::var_os("QUICK").is_some_and(|value| !value.is_empty() && value != "0");
        let only = env::var("CASE").unwrap_or_default();
        let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
        let work: PathBuf = env::var_os("BENCH_WORK").context("BENCH_WORK: run dev/bench-server")?.into();
        Ok(Self {
            only: only.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            rounds: number("ROUNDS", if quick { 1 } else { 3 })?,
            records: number("RECORDS", if quick { 400_000 } else { 2_000_000 })?,
            backlog: number("BACKLOG", if quick { 1_000_000 } else { 5_000_000 })?,
            down_s: number("DOWN_S", if quick { 6 } else { 30 })?,
            server: env::var_os("LOGSINK_SERVER_BIN").context("LOGSINK_SERVER_BIN: run dev/bench-server")?.into(),
            stack_home: env::var_os("STACK_HOME").map_or_else(|| home.join(".cache/logsink-stack"), PathBuf::from),
            stack_work: env::var_os("STACK_WORK").context("STACK_WORK: run dev/bench-server")?.into(),
            brokers: env::var("KAFKA_BROKERS").context("KAFKA_BROKERS: run dev/bench-server")?,
            elasticsearch: env::var("ELASTICSEARCH_URL").unwrap_or_default(),
            port: number("BENCH_PORT", 0)?,
            out: env::var_os("OUT").map_or_else(|| work.clone(), PathBuf::from),
            work,
        })
    }

    /// Whether a case of these names (its own, and its groups') is to be measured.
    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| names.contains(&only.as_str()))
    }
}

fn number<T: FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().ok().with_context(|| format!("{name}: `{text}` is not a number that fits"))
        }
        _ => Ok(default),
    }
}

/// `--name value` of a child.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        Self(arguments)
    }

    /// The word behind `--name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().skip_while(|argument| *argument != name).nth(1).map(String::as_str)
    }

    /// The word behind `--name`, which has to be there.
    pub(crate) fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.get(name).with_context(|| format!("{name} is missing"))
    }

    /// The number behind `--name`, which has to be there.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> anyhow::Result<T> {
        let text = self.text(name)?;
        text.parse().ok().with_context(|| format!("{name}: `{text}` is not a number that fits"))
    }
}
