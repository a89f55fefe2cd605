//! Settings as plain data: text → [`Config`], validated. Opens no file and no socket; `init.rs` does.
//!
//! Later layers win: defaults, `logsink.toml`, `OTEL_*` variables, `LOGSINK_*` variables, builder calls.

mod capture;
mod console;
mod credentials;
mod endpoint;
mod env;
mod queue;
mod recorder;
mod send;
mod sink;
mod spool;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::Deserialize;

pub use capture::{Capture, SpanFieldsFrom};
pub use console::Console;
pub use credentials::{Sasl, Secret, Tls};
pub use endpoint::{Colour, Destination, ENDPOINT_DEFAULT, Endpoint, Format};
pub use queue::{Level, LevelOverflow, Overflow, Queue, Threshold};
pub use recorder::Recorder;
pub(crate) use send::ProxyEnv;
pub use send::{Batch, Compression, Retry, Send};
pub use sink::Sink;
pub use spool::Spool;

use crate::{ConfigError, batch, retry};

/// All settings of the library. Every key may be left out.
///
/// ```toml
/// endpoint = "kafka://b1:9092,b2:9092/otlp_logs"
/// service = "checkout"
/// filter = "info,hyper=warn"
/// rules = "file:/etc/logsink/rules.toml"
///
/// [resource]
/// "deployment.environment.name" = "production"
///
/// [batch]
/// bytes_max = 1000000
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Where events go, as [`Endpoint`] lists it: `http://host:4317` (gRPC), `http://host:4318/v1/logs` (HTTP),
    /// `kafka://b1:9092,b2:9092/topic`, `stdout:`, `stderr:` or `file:/path`. Default: [`ENDPOINT_DEFAULT`].
    pub endpoint: Option<String>,
    /// `service.name`. Default: the name of the executable.
    pub service: Option<String>,
    /// The base filter, in `EnvFilter` directive syntax. Default: `info`.
    pub filter: Option<String>,
    /// What `init()` writes to stderr for people. Default: `auto`.
    pub console: Console,
    /// What the console shows, in `EnvFilter` directive syntax; the rules have no say in it then. Default: `RUST_LOG`, and
    /// without it what the sinks get.
    pub console_filter: Option<String>,
    /// Where rules come from. Default: `push` for a gRPC endpoint, else `none`.
    pub rules: Option<RulesFrom>,
    /// Where the last good rules are kept. Default: `$XDG_CACHE_HOME/logsink`, else `~/.cache/logsink`.
    pub cache_dir: Option<PathBuf>,
    /// Fields whose values are replaced by `[redacted]` before anything else is made of them, whatever the rules say: names, each
    /// with all below it, in which `*` stands for any text: `["password", "*secret*"]`. `message` is the message. Default: none.
    pub redact: Vec<String>,
    /// What is sent beside an event's own fields.
    pub capture: Capture,
    /// Further resource attributes; they win over what the library finds out by itself.
    pub resource: BTreeMap<String, String>,
    /// gRPC metadata or HTTP headers sent with every batch, such as `authorization`.
    pub headers: BTreeMap<String, Secret>,
    /// Memory for events that wait, and what happens when it is spent.
    pub queue: Queue,
    /// Where events wait on disk, with `queue.overflow = "spill"`.
    pub spool: Spool,
    /// The flight recorder, which is off unless it has a filter.
    pub recorder: Recorder,
    /// When a batch is cut.
    pub batch: Batch,
    /// How a batch is sent.
    pub send: Send,
    /// What happens when sending fails.
    pub retry: Retry,
    /// TLS of an `https://` or `kafkas://` endpoint.
    pub tls: Tls,
    /// Who we are for a Kafka cluster that asks.
    pub sasl: Sasl,
    /// Whether what is buffered is sent when a thread panics, see [`install_panic_hook`](crate::install_panic_hook).
    /// Default: with `init`, but not with `layer`.
    pub panic_hook: Option<bool>,
    /// Whether panics become events: level `ERROR`, target `panic`, in the span of the panicking thread, with `exception.type`,
    /// `exception.message`, `exception.stacktrace` (16 KiB at most), `code.file.path`, `code.line.number` and `thread.name`.
    /// Includes the panic hook. Default: no.
    pub crash_report: bool,
    /// Whether SIGTERM and SIGINT flush before they end the process, where the application does not handle them at the start
    /// (Unix). Default: no.
    pub flush_on_signals: bool,
    /// What the library's own threads and the clients on them log is said on stderr from this level on, 100 lines a second at
    /// most: for whoever looks into trouble with the sink. It never becomes an event. Default: `off`.
    pub diagnostics: Option<Threshold>,
    /// Further librdkafka properties, such as `security.protocol`; they win over the library's own.
    pub kafka: BTreeMap<String, Secret>,
    /// Further sinks, each with a filter of its own. Default: none.
    pub sink: Vec<Sink>,
}

/// Where rules come from, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"push\", \"none\", \"file:/path\", \"etcd://host:2379\", { file = … } or { etcd = [ … ] }"
)]
pub enum RulesFrom {
    /// `file:/path`, `etcd://e1:2379,e2:2379`, `push` (the server of a gRPC endpoint) or `none`.
    Text(String),
    /// `{ file = "/path" }`
    File {
        /// The file, watched.
        file: PathBuf,
    },
    /// `{ etcd = ["http://e1:2379", "http://e2:2379"] }`
    Etcd {
        /// URLs of the members.
        etcd: Vec<String>,
    },
}

/// A chunk of the queue: what its largest record needs.
const BATCH_BYTES_MIN: usize = 64 << 10;
/// What a gRPC server takes by default, less room for the frame around the payload.
const BATCH_BYTES_MAX: usize = (4 << 20) - (4 << 10);
/// Sends beyond this gain nothing and cost memory: each holds a batch.
const IN_FLIGHT_MAX: usize = 64;

impl Config {
    /// Reads the text of a `logsink.toml`.
    ///
    /// # Errors
    /// When it is not TOML, or has a key that is not known or a value of a wrong type. `name` says where the text is from.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            // The error's own text shows the line over several lines; one sentence with the place is enough.
            let place = error.span().map(|span| place(text, span.start)).unwrap_or_default();
            ConfigError { field: name.to_owned(), message: format!("{place}{}", error.message()) }
        })
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.rule_source()?;
        self.console_filter()?;
        self.capture(None)?;
        self.queue.validate()?;
        self.spool.validate()?;
        self.validate_own()?;
        self.validate_sinks()
    }

    /// Checks what each sink has for itself.
    fn validate_own(&self) -> Result<(), ConfigError> {
        self.endpoint()?;
        if self.service.as_deref().is_some_and(|service| service.trim().is_empty()) {
            return refuse("service", "is empty: write the service's name or leave it out");
        }
        self.recorder.validate()?;
        within("batch.bytes_max", self.batch.bytes_max, BATCH_BYTES_MIN, BATCH_BYTES_MAX)?;
        within("batch.records_max", self.batch.records_max, 1, u32::MAX)?;
        within("batch.age_ms_max", self.batch.age_ms_max, 1, 60_000)?;
        within("send.in_flight_max", self.send.in_flight_max, 1, IN_FLIGHT_MAX)?;
        within("send.timeout_ms", self.send.timeout_ms, 1, 600_000)?;
        if self.send.token_file.is_some() && self.headers.keys().any(|key| key.eq_ignore_ascii_case("authorization")) {
            return refuse("send.token_file", "`headers` has an `authorization` entry too: write one of them");
        }
        within("retry.delay_ms_min", self.retry.delay_ms_min, 1, 600_000)?;
        within("retry.delay_ms_max", self.retry.delay_ms_max, self.retry.delay_ms_min, 600_000)?;
        if self.sasl.mechanism.is_none() && self.sasl != Sasl::default() {
            return refuse("sasl.mechanism", "is missing: write `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`");
        }
        if self.sasl.password.is_some() && self.sasl.password_file.is_some() {
            return refuse("sasl", "`password` and `password_file` are both given: write one of them");
        }
        if self.crash_report && self.panic_hook == Some(false) {
            return refuse("crash_report", "needs the panic hook: leave `panic_hook` out or turn it on");
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return refuse("tls", "`certificate` and `key` go together: give both or neither");
        }
        Ok(())
    }

    /// The endpoint, read.
    ///
    /// # Errors
    /// When it is not a URL that the library can send to, or needs a cargo feature that is off.
    pub fn endpoint(&self) -> Result<Endpoint, ConfigError> {
        let url = self.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT);
        Endpoint::parse(url).map_err(|message| ConfigError { field: "endpoint".to_owned(), message })
    }

    /// Where rules come from.
    ///
    /// # Errors
    /// When `rules` is none of the known forms, or needs a cargo feature that is off.
    pub fn rule_source(&self) -> Result<Rules, ConfigError> {
        let endpoint = self.endpoint()?;
        let grpc = matches!(endpoint, Endpoint::Grpc { .. } | Endpoint::GrpcAny { .. } | Endpoint::Etcd { .. });
        let text = match &self.rules {
            None => return Ok(if grpc { Rules::Push } else { Rules::None }),
            Some(RulesFrom::File { file }) => return Ok(Rules::File(file.clone())),
            Some(RulesFrom::Etcd { etcd }) => return etcd_source(etcd.clone()),
            Some(RulesFrom::Text(text)) => text,
        };
        Ok(match text.split_once(':') {
            None if text == "none" => Rules::None,
            None if text == "push" && grpc => Rules::Push,
            None if text == "push" => {
                return refuse("rules", "`push` needs a gRPC endpoint: name a file or etcd instead");
            }
            Some(("file", path)) if !path.is_empty() => {
                // `file:///path` is the URL of `/path`.
                Rules::File(path.strip_prefix("//").unwrap_or(path).into())
            }
            Some(("etcd", hosts)) if hosts.starts_with("//") => {
                let hosts = hosts[2..].trim_end_matches('/').split(',').filter(|host| !host.is_empty());
                etcd_source(hosts.map(|host| format!("http://{host}")).collect())?
            }
            _ => {
                let forms = "`file:/path`, `etcd://host:2379`, `push` or `none`";
                return refuse("rules", &format!("`{text}` is not a source of rules: write {forms}"));
            }
        })
    }

    /// The compression for this endpoint.
    #[cfg(any(feature = "_connect", feature = "kafka"))]
    pub(crate) fn compression(&self, endpoint: &Endpoint) -> Compression {
        self.send.compression.unwrap_or(match endpoint {
            Endpoint::Kafka { .. } => Compression::Zstd,
            Endpoint::Grpc { loopback: false, .. }
            | Endpoint::GrpcAny { loopback: false, .. }
            | Endpoint::Http { loopback: false, .. }
            | Endpoint::Etcd { .. } => Compression::Gzip,
            Endpoint::Grpc { .. } | Endpoint::GrpcAny { .. } | Endpoint::Http { .. } | Endpoint::Lines { .. } => {
                Compression::None
            }
        })
    }

    pub(crate) fn limits(&self) -> batch::Limits {
        let Batch { bytes_max, records_max, age_ms_max } = self.batch;
        batch::Limits { bytes_max, records_max, age_max: Duration::from_millis(age_ms_max) }
    }

    /// How often the main sink is told what was lost.
    pub(crate) fn losses_every(&self) -> Option<Duration> {
        (self.send.losses_ms > 0).then(|| Duration::from_millis(self.send.losses_ms))
    }

    pub(crate) fn retry_policy(&self) -> retry::Policy {
        retry::Policy {
            delay_min: Duration::from_millis(self.retry.delay_ms_min),
            delay_max: Duration::from_millis(self.retry.delay_ms_max),
            elapsed_max: self.retry.elapsed_ms_max.map(Duration::from_millis),
        }
    }

    #[cfg(feature = "_connect")]
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.send.timeout_ms)
    }
}

/// Where rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rules {
    /// Nowhere: only the base filter decides.
    None,
    /// A file, watched.
    File(PathBuf),
    /// etcd at these URLs.
    Etcd(Vec<String>),
    /// The server of the gRPC endpoint.
    Push,
}

/// `line 3, column 7: ` of a byte offset, the column in characters.
fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: ")
}

fn etcd_source(urls: Vec<String>) -> Result<Rules, ConfigError> {
    if !cfg!(feature = "etcd") {
        return refuse("rules", "this build has no etcd: add the cargo feature `etcd` of logsink");
    }
    if urls.is_empty() {
        return refuse("rules", "no member of etcd is named: write `etcd://host:2379`");
    }
    Ok(Rules::Etcd(urls))
}

fn refuse<T>(field: &str, message: &str) -> Result<T, ConfigError> {
    Err(ConfigError { field: field.to_owned(), message: message.to_owned() })
}

fn within<T: PartialOrd + fmt::Display>(field: &str, value: T, min: T, max: T) -> Result<(), ConfigError> {
    if value < min || value > max {
        return refuse(field, &format!("{value} is out of range: write a number from {min} to {max}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
