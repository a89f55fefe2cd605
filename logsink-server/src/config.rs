//! The server's settings as plain data: every key of `logsink-server.toml`, its default and its bounds.
//!
//! Three forms: text (file, environment, flags; put together in [`load`]) → this data, checked by [`Config::validate`] →
//! the running steps that [`crate::app`] builds from it. Nothing here opens a file or a socket, but [`load`] reads the
//! configuration file.

mod elasticsearch;
mod ingest;
mod json;
pub mod kafka;
pub mod load;
pub mod units;
mod validate;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use logsink::ConfigError;
use serde::Deserialize;

use self::units::{Address, Bytes, Span};
pub use self::{
    elasticsearch::{Elasticsearch, ElasticsearchRetention, LayoutChoice, RetentionBy},
    ingest::{Ingest, IngestLimits, ServiceLimits},
    json::{Format, JsonFields},
    kafka::Kafka,
};

/// The port of OTLP over gRPC, as registered for OpenTelemetry.
pub const PORT_GRPC: u16 = 4317;
/// The port of OTLP over HTTP, as registered for OpenTelemetry; also of searches, the page, metrics and health.
pub const PORT_HTTP: u16 = 4318;

/// All settings. Every key may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `standalone` or `cluster`. Follows from the sections when left out: `[kafka]` or `[elasticsearch]` make a cluster.
    pub mode: Option<Mode>,
    /// What this process does in a cluster; everything when left out. Standalone servers do everything.
    pub roles: Option<Vec<Role>>,
    /// Where the server keeps its files. Default: `$XDG_DATA_HOME/logsink`, else `~/.local/share/logsink`.
    pub data_dir: Option<PathBuf>,
    /// Allows listening beyond this machine without TLS.
    pub insecure: bool,
    /// What the server logs about itself, to stderr, in the syntax of `RUST_LOG`. Default: `$RUST_LOG`, else `info`.
    pub log: Option<String>,
    /// How long a graceful stop may take. Default: 30 s, what Kubernetes gives.
    pub stop_timeout: Option<Span>,
    /// Addresses.
    pub listen: Listen,
    /// Certificates for both listeners.
    pub tls: Option<Tls>,
    /// Bounds on what comes in.
    pub ingest: Ingest,
    /// The on-disk log of standalone mode.
    pub queue: Queue,
    /// From the queue to the index.
    pub drain: Drain,
    /// How long the embedded store keeps events.
    pub retention: Retention,
    /// Rules of servers without etcd.
    pub rules: Rules,
    /// The queue of cluster mode.
    pub kafka: Option<Kafka>,
    /// The index of cluster mode.
    pub elasticsearch: Option<Elasticsearch>,
    /// Rules and discovery of cluster mode.
    pub etcd: Option<Etcd>,
}

/// Which composition of the steps runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// On-disk log, embedded store, rules file: needs nothing else.
    Standalone,
    /// Kafka, Elasticsearch, etcd.
    Cluster,
}

/// What a process of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes events in and appends them to the queue.
    Ingest,
    /// Moves events from the queue to the index.
    Drain,
    /// Answers searches.
    Query,
}

/// `[listen]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// OTLP over gRPC. Default: `127.0.0.1:4317`. Port 0: the system chooses.
    pub grpc: Option<Address>,
    /// OTLP over HTTP, searches, the page, metrics and health. Default: `127.0.0.1:4318`. Port 0: the system chooses.
    pub http: Option<Address>,
    /// Where others reach `grpc`, for the list of servers in etcd: `host` or `host:port`. Default: the address itself; a server
    /// that listens on every address and has no `advertise` is not in the list.
    pub advertise: Option<String>,
    /// Connections of each of the two at a time; a further one is closed at once. Default: 4,096, or a third of the files that
    /// the process may have open where that is less.
    pub connections_max: Option<usize>,
}

/// `[tls]`: PEM files.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients: with it, a client without a certificate from one of them is refused.
    pub client_ca: Option<PathBuf>,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// What the on-disk log may hold; when it is full, senders are told to try again. Default: 4 GiB: a quarter of an hour
    /// of trouble with the store, at a million events a minute.
    pub disk_bytes_max: Bytes,
}

/// `[drain]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Bytes of what was read from the queue and is not yet indexed; reading pauses above. In a cluster, two fifths of it are for
    /// what was read, and three for the requests made of it. Default: 40 MiB, which keeps the whole process within 130 MB.
    pub pending_bytes_max: Bytes,
    /// Writes to the index under way at a time, at most; a cluster gets as many as it takes. Default: 8.
    pub concurrency: usize,
}

/// `[retention]` of the embedded store: the first bound reached counts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Events older than this are removed. Default: 30 days.
    pub age: Span,
    /// Above this size on disk the oldest events are removed. Default: 20 GiB.
    pub bytes: Bytes,
}

/// `[rules]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// The directory of the rule documents where there is no `[etcd]`. Default: `rules` in the data directory.
    pub dir: Option<PathBuf>,
}

/// `[etcd]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Etcd {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// The name under which this server and others like it are found, where one etcd serves several fleets: the library's
    /// endpoint is `etcd://host:2379/name` then. Default: none, and `etcd://host:2379`.
    pub fleet: Option<String>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { disk_bytes_max: Bytes::gib(4) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { pending_bytes_max: Bytes::mib(40), concurrency: 8 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Span::days(30), bytes: Bytes::gib(20) }
    }
}

impl Drain {
    /// The part of the budget that what was read has in a cluster: a request is twice what it was made of, and two writes' worth
    /// are kept ready.
    pub(crate) fn read_bytes_max(&self) -> u64 {
        self.pending_bytes_max.0 / 5 * 2
    }

    /// The part that is for requests.
    pub(crate) fn request_bytes_max(&self) -> u64 {
        self.pending_bytes_max.0 - self.read_bytes_max()
    }
}

// === impl Config ===

impl Config {
    /// The mode asked for, or the one that follows from the sections.
    pub fn mode(&self) -> Mode {
        let implied =
            if self.kafka.is_some() || self.elasticsearch.is_some() { Mode::Cluster } else { Mode::Standalone };
        self.mode.unwrap_or(implied)
    }

    /// Whether this process does that.
    pub fn has(&self, role: Role) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.contains(&role))
    }

    /// Where OTLP over gRPC is taken.
    pub fn listen_grpc(&self) -> SocketAddr {
        self.listen.grpc.map_or((Ipv4Addr::LOCALHOST, PORT_GRPC).into(), |address| address.0)
    }

    /// Where everything over HTTP is taken.
    pub fn listen_http(&self) -> SocketAddr {
        self.listen.http.map_or((Ipv4Addr::LOCALHOST, PORT_HTTP).into(), |address| address.0)
    }

    /// Where the server keeps its files: as set, else `$XDG_DATA_HOME/logsink`, else `~/.local/share/logsink`.
    ///
    /// # Errors
    /// When none of these is there to go by.
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let variable = |name| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let home = || variable("HOME").map(|home| home.join(".local/share"));
        let default = || variable("XDG_DATA_HOME").or_else(home).map(|dir| dir.join("logsink"));
        self.data_dir.clone().or_else(default).ok_or_else(|| ConfigError {
            field: "data_dir".into(),
            message: "is not set and there is no home directory: name a directory".into(),
        })
    }

    /// How long a graceful stop may take.
    pub fn stop_timeout(&self) -> Duration {
        self.stop_timeout.map_or(Duration::from_secs(30), |span| span.0)
    }
}
