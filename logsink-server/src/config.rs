//! The server's settings as plain data: every key of `logsink-server.toml`, its default and its bounds.
//!
//! Three forms: text (file, environment, flags; put together in [`load`]) → this data, checked by [`Config::validate`] →
//! the running steps that [`crate::app`] builds from it. Nothing here opens a file or a socket, but [`load`] reads the
//! configuration file.

pub mod load;
pub mod units;

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use logsink::ConfigError;
use serde::Deserialize;

use self::units::{Address, Bytes, Secret, Span};

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

/// `[ingest]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// The largest request, after decompression. Default: 16 MiB: four times what a client sends by default.
    pub request_bytes_max: Bytes,
    /// Bytes of requests under way at a time; more are answered "try again". Default: 256 MiB.
    pub pending_bytes_max: Bytes,
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
    /// Bytes read from the queue and not yet indexed; reading pauses above. Default: 64 MiB.
    pub pending_bytes_max: Bytes,
    /// Writes to the index under way at a time. Default: 4.
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

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port` of some of the brokers.
    pub brokers: Vec<String>,
    /// Default: `otlp_logs`, the OpenTelemetry Collector's.
    pub topic: String,
    /// The consumer group of all drains. Default: `logsink`.
    pub group: String,
    /// Partitions of the topic when the server has to create it. Default: 6.
    pub partitions: i32,
    /// Copies of each partition when the server has to create the topic. Default: the brokers' own.
    pub replication: Option<i32>,
    /// Further properties of librdkafka, such as `security.protocol`; they win over the server's own.
    pub properties: BTreeMap<String, String>,
}

/// `[elasticsearch]`; an OpenSearch cluster is told apart by itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elasticsearch {
    /// URLs of some of the nodes.
    pub urls: Vec<String>,
    /// The data stream that events go to. Default: `logs-logsink-default`.
    pub data_stream: String,
    /// An API key, as Elasticsearch shows it ("encoded").
    pub api_key: Option<Secret>,
    /// The user of basic authentication.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// A PEM file with the authority that signed the nodes' certificates, beside the well-known ones.
    pub ca: Option<PathBuf>,
    /// Whether to put the index template and the data stream in place. Default: true.
    pub setup: bool,
    /// Primary shards of each backing index. Default: the cluster's.
    pub shards: Option<u32>,
    /// Copies of each shard. Default: the cluster's.
    pub replicas: Option<u32>,
}

/// `[etcd]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Etcd {
    /// URLs of the members.
    pub endpoints: Vec<String>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { request_bytes_max: Bytes::mib(16), pending_bytes_max: Bytes::mib(256) }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { disk_bytes_max: Bytes::gib(4) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { pending_bytes_max: Bytes::mib(64), concurrency: 4 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Span::days(30), bytes: Bytes::gib(20) }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "otlp_logs".into(),
            group: "logsink".into(),
            partitions: 6,
            replication: None,
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Elasticsearch {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            data_stream: "logs-logsink-default".into(),
            api_key: None,
            username: None,
            password: None,
            ca: None,
            setup: true,
            shards: None,
            replicas: None,
        }
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

    /// Checks what the types cannot: that the sections, roles and bounds go together.
    ///
    /// # Errors
    /// The first setting that cannot be used, by its path, with what to write instead.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_mode()?;
        self.validate_listen()?;
        self.validate_bounds()?;
        self.validate_servers()
    }

    fn validate_mode(&self) -> Result<(), ConfigError> {
        if self.mode() == Mode::Standalone {
            for (section, set) in [("kafka", self.kafka.is_some()), ("elasticsearch", self.elasticsearch.is_some())] {
                ensure(!set, "mode", || {
                    format!("`standalone` uses no [{section}]: take the section out, or write mode = \"cluster\"")
                })?;
            }
            return ensure(self.roles.is_none(), "roles", || {
                "a standalone server does everything by itself: take `roles` out, or add [kafka] and [elasticsearch]"
                    .into()
            });
        }
        ensure(self.roles.as_ref().is_none_or(|roles| !roles.is_empty()), "roles", || {
            "is empty: write one or more of \"ingest\", \"drain\" and \"query\", or leave it out for all".into()
        })?;
        let needs = [
            (Role::Ingest, "ingest", "kafka", self.kafka.is_some()),
            (Role::Drain, "drain", "kafka", self.kafka.is_some()),
            (Role::Drain, "drain", "elasticsearch", self.elasticsearch.is_some()),
            (Role::Query, "query", "elasticsearch", self.elasticsearch.is_some()),
        ];
        for (role, name, section, set) in needs {
            ensure(set || !self.has(role), section, || {
                format!(
                    "the section is missing and the role \"{name}\" needs it in cluster mode: add [{section}], or set `roles` without \"{name}\""
                )
            })?;
        }
        Ok(())
    }

    fn validate_listen(&self) -> Result<(), ConfigError> {
        let grpc = self.has(Role::Ingest).then(|| ("listen.grpc", self.listen_grpc()));
        for (field, address) in grpc.into_iter().chain([("listen.http", self.listen_http())]) {
            ensure(address.ip().is_loopback() || self.tls.is_some() || self.insecure, field, || {
                format!(
                    "{address} can be reached from other machines and there is no TLS: add [tls] with `cert` and `key`, or write insecure = true if the network is trusted"
                )
            })?;
        }
        let (grpc, http) = (self.listen_grpc(), self.listen_http());
        ensure(grpc != http || grpc.port() == 0 || !self.has(Role::Ingest), "listen.http", || {
            format!("{http} is the address of listen.grpc as well: gRPC and HTTP need a port each")
        })?;
        if let Some(tls) = &self.tls {
            ensure(!tls.cert.as_os_str().is_empty(), "tls.cert", || "is missing: name the PEM file".into())?;
            ensure(!tls.key.as_os_str().is_empty(), "tls.key", || "is missing: name the PEM file".into())?;
        }
        Ok(())
    }

    fn validate_bounds(&self) -> Result<(), ConfigError> {
        // A request travels whole through the queue and the drain: each step must have room for the largest.
        let request = self.ingest.request_bytes_max;
        for (field, bytes) in [
            ("ingest.pending_bytes_max", self.ingest.pending_bytes_max),
            ("drain.pending_bytes_max", self.drain.pending_bytes_max),
        ] {
            ensure(bytes >= request, field, || {
                format!("{bytes} is less than ingest.request_bytes_max ({request}): one request would not fit")
            })?;
        }
        ensure(request >= Bytes::kib(64), "ingest.request_bytes_max", || {
            format!("{request} is too little for one event: write 64KiB at least")
        })?;
        ensure(request <= Bytes::mib(512), "ingest.request_bytes_max", || {
            format!("{request} is more than a request may have: write 512MiB at most")
        })?;
        ensure(self.queue.disk_bytes_max >= Bytes::mib(128), "queue.disk_bytes_max", || {
            format!(
                "{} is too little for the events that wait for their block: write 128MiB at least",
                self.queue.disk_bytes_max
            )
        })?;
        // A frame of the on-disk log takes a little more than that.
        ensure(self.mode() == Mode::Cluster || request <= Bytes::mib(16), "ingest.request_bytes_max", || {
            format!("{request} is more than the on-disk log takes: write 16MiB at most")
        })?;
        ensure((1..=64).contains(&self.drain.concurrency), "drain.concurrency", || {
            format!("{} is not between 1 and 64", self.drain.concurrency)
        })?;
        ensure(self.retention.age >= Span::minutes(1), "retention.age", || {
            format!("{} is too short: write 1m at least", self.retention.age)
        })?;
        ensure(self.retention.bytes >= Bytes::mib(64), "retention.bytes", || {
            format!("{} is too little for one block: write 64MiB at least", self.retention.bytes)
        })
    }

    fn validate_servers(&self) -> Result<(), ConfigError> {
        if let Some(kafka) = &self.kafka {
            ensure(!kafka.brokers.is_empty(), "kafka.brokers", || {
                "is empty: write the address of a broker, such as brokers = [\"127.0.0.1:9092\"]".into()
            })?;
            for broker in &kafka.brokers {
                let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
                ensure(port.is_some_and(|port| port.parse::<u16>().is_ok()), "kafka.brokers", || {
                    format!("`{broker}` is not host:port: write it like 127.0.0.1:9092")
                })?;
            }
            ensure(!kafka.topic.is_empty(), "kafka.topic", || "is empty".into())?;
            ensure(!kafka.group.is_empty(), "kafka.group", || "is empty".into())?;
            ensure((1..=10_000).contains(&kafka.partitions), "kafka.partitions", || {
                "is not between 1 and 10000".into()
            })?;
            ensure(kafka.replication.is_none_or(|copies| (1..=32).contains(&copies)), "kafka.replication", || {
                "is not between 1 and 32".into()
            })?;
        }
        if let Some(elastic) = &self.elasticsearch {
            urls("elasticsearch.urls", &elastic.urls, "http://127.0.0.1:9200")?;
            ensure(!elastic.data_stream.is_empty(), "elasticsearch.data_stream", || "is empty".into())?;
            ensure(elastic.username.is_some() == elastic.password.is_some(), "elasticsearch.username", || {
                "`username` and `password` go together: set both or neither".into()
            })?;
            ensure(elastic.api_key.is_none() || elastic.username.is_none(), "elasticsearch.api_key", || {
                "is set together with `username`: choose one way to log in".into()
            })?;
        }
        if let Some(etcd) = &self.etcd {
            urls("etcd.endpoints", &etcd.endpoints, "http://127.0.0.1:2379")?;
        }
        Ok(())
    }
}

fn urls(field: &str, urls: &[String], example: &str) -> Result<(), ConfigError> {
    ensure(!urls.is_empty(), field, || format!("is empty: write a URL, such as [\"{example}\"]"))?;
    for url in urls {
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        ensure(host.is_some_and(|host| !host.is_empty()), field, || {
            format!("`{url}` is not an http:// or https:// URL: write it like {example}")
        })?;
    }
    Ok(())
}

fn ensure(holds: bool, field: &str, message: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { field: field.into(), message: message() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        toml::from_str::<Config>(text).unwrap().validate().unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_is_a_standalone_server_on_loopback() {
        let config = Config::default();
        config.validate().unwrap();
        assert_eq!(config.mode(), Mode::Standalone);
        assert_eq!(config.listen_grpc().to_string(), "127.0.0.1:4317");
        assert_eq!(config.listen_http().to_string(), "127.0.0.1:4318");
        assert!(config.has(Role::Ingest) && config.has(Role::Drain) && config.has(Role::Query));
    }

    #[test]
    fn sections_imply_the_mode() {
        let cluster =
            "[kafka]\nbrokers=['k:9092']\n[elasticsearch]\nurls=['http://e:9200']\n[etcd]\nendpoints=['http://t:2379']";
        let config: Config = toml::from_str(cluster).unwrap();
        config.validate().unwrap();
        assert_eq!(config.mode(), Mode::Cluster);
    }

    #[test]
    fn refuses_what_does_not_go_together() {
        for (text, begins) in [
            ("mode='standalone'\n[kafka]\nbrokers=['k:9092']", "mode: `standalone` uses no [kafka]"),
            ("roles=['ingest']", "roles: a standalone server does everything"),
            ("mode='cluster'", "kafka: the section is missing and the role \"ingest\""),
            ("[kafka]\nbrokers=['k:9092']", "elasticsearch: the section is missing and the role \"drain\""),
            ("[listen]\nhttp='0.0.0.0:4318'", "listen.http: 0.0.0.0:4318 can be reached from other machines"),
            ("[listen]\nhttp='127.0.0.1:4317'", "listen.http: 127.0.0.1:4317 is the address of listen.grpc as well"),
            (
                "[drain]\npending_bytes_max='1MiB'",
                "drain.pending_bytes_max: 1MiB is less than ingest.request_bytes_max",
            ),
            ("[queue]\ndisk_bytes_max='64MiB'", "queue.disk_bytes_max: 64MiB is too little"),
            (
                "[ingest]\nrequest_bytes_max='32MiB'",
                "ingest.request_bytes_max: 32MiB is more than the on-disk log takes",
            ),
            ("[kafka]\nbrokers=['k']\n[elasticsearch]\nurls=['http://e']", "kafka.brokers: `k` is not host:port"),
            ("[kafka]\nbrokers=['k:1']\n[elasticsearch]\nurls=['e']", "elasticsearch.urls: `e` is not an http:// or"),
        ] {
            let message = refused(text);
            assert!(message.starts_with(begins), "{text}\n  {message}");
        }
    }

    #[test]
    fn a_role_needs_only_its_own_servers() {
        let config: Config = toml::from_str("roles=['ingest']\n[kafka]\nbrokers=['k:9092']").unwrap();
        config.validate().unwrap();
        let config: Config = toml::from_str("roles=['query']\n[elasticsearch]\nurls=['http://e']").unwrap();
        config.validate().unwrap();
    }
}
