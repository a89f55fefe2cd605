//! What the types cannot say: that sections, roles and bounds go together. Each refusal names the setting and what to write
//! instead.

use logsink::ConfigError;

use super::{
    Config, Format, Mode, Role,
    units::{Bytes, Span},
};

impl Config {
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
        ensure(self.listen.connections_max != Some(0), "listen.connections_max", || {
            "is 0, and nobody could connect: write 1 at least, or leave it out".into()
        })?;
        if let Some(host) = &self.listen.advertise {
            let is_host = !host.is_empty() && !host.starts_with(':') && !host.contains(['/', '@', ' ', ',']);
            ensure(is_host, "listen.advertise", || {
                format!(
                    "`{host}` is not a host, or a host and a port: write it like sink-1.example.com or 10.0.0.1:4317"
                )
            })?;
        }
        if let Some(tls) = &self.tls {
            ensure(!tls.cert.as_os_str().is_empty(), "tls.cert", || "is missing: name the PEM file".into())?;
            ensure(!tls.key.as_os_str().is_empty(), "tls.key", || "is missing: name the PEM file".into())?;
        }
        Ok(())
    }

    fn validate_bounds(&self) -> Result<(), ConfigError> {
        // A request travels whole through the queue and the drain: each step must have room for the largest.
        let request = self.ingest.request_bytes_max;
        let bytes = self.ingest.pending_bytes_max;
        ensure(bytes >= request, "ingest.pending_bytes_max", || {
            format!("{bytes} is less than ingest.request_bytes_max ({request}): one request would not fit")
        })?;
        // Beside what was read stands what is made of it.
        let bytes = self.drain.pending_bytes_max;
        ensure(self.drain.read_bytes_max() >= request.0, "drain.pending_bytes_max", || {
            format!("{bytes} is less than 2.5 times ingest.request_bytes_max ({request}): one request would not fit")
        })?;
        ensure(request >= Bytes::kib(64), "ingest.request_bytes_max", || {
            format!("{request} is too little for one event: write 64KiB at least")
        })?;
        ensure(request <= Bytes::mib(512), "ingest.request_bytes_max", || {
            format!("{request} is more than a request may have: write 512MiB at most")
        })?;
        self.ingest.limits.validate()?;
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
            kafka.validate()?;
            ensure(kafka.format == Format::Otlp || !self.has(Role::Ingest), "kafka.format", || {
                "is \"json\", and ingest would write OTLP into the same topic: write roles = [\"drain\"], or another topic".into()
            })?;
        }
        if let Some(elasticsearch) = &self.elasticsearch {
            elasticsearch.validate()?;
        }
        if let Some(etcd) = &self.etcd {
            urls("etcd.endpoints", &etcd.endpoints, "http://127.0.0.1:2379")?;
            ensure(etcd.fleet.as_deref().is_none_or(logsink::discovery::is_fleet), "etcd.fleet", || {
                "is not a name: write letters, digits, `.`, `_` and `-`, 64 at most".into()
            })?;
        }
        Ok(())
    }
}

pub(super) fn urls(field: &str, urls: &[String], example: &str) -> Result<(), ConfigError> {
    ensure(!urls.is_empty(), field, || format!("is empty: write a URL, such as [\"{example}\"]"))?;
    for url in urls {
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        ensure(host.is_some_and(|host| !host.is_empty()), field, || {
            // A password may stand before the `@`.
            let shown = url.rsplit_once('@').map_or_else(|| url.clone(), |(_, host)| format!("…@{host}"));
            format!("`{shown}` is not an http:// or https:// URL: write it like {example}")
        })?;
    }
    Ok(())
}

pub(super) fn ensure(holds: bool, field: &str, message: impl FnOnce() -> String) -> Result<(), ConfigError> {
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
            ("[etcd]\nendpoints=['http://e']\nfleet='a/b'", "etcd.fleet: is not a name"),
            ("[listen]\nadvertise='http://a:1'", "listen.advertise: `http://a:1` is not a host"),
            ("[listen]\nhttp='127.0.0.1:4317'", "listen.http: 127.0.0.1:4317 is the address of listen.grpc as well"),
            (
                "[drain]\npending_bytes_max='1MiB'",
                "drain.pending_bytes_max: 1MiB is less than 2.5 times ingest.request_bytes_max",
            ),
            ("[ingest.limits]\nrecords_per_second=0", "ingest.limits.records_per_second: 0 would take nothing"),
            (
                "[ingest.limits.services.a]\nbytes_per_second=0",
                "ingest.limits.services.a.bytes_per_second: 0 would take nothing",
            ),
            ("[ingest.limits]\nburst='0s'", "ingest.limits.burst: 0 would take nothing"),
            ("[queue]\ndisk_bytes_max='64MiB'", "queue.disk_bytes_max: 64MiB is too little"),
            (
                "[ingest]\nrequest_bytes_max='32MiB'\n[drain]\npending_bytes_max='80MiB'",
                "ingest.request_bytes_max: 32MiB is more than the on-disk log takes",
            ),
            ("[kafka]\nbrokers=['k']\n[elasticsearch]\nurls=['http://e']", "kafka.brokers: `k` is not host:port"),
            ("[kafka]\nbrokers=['k:1']\n[elasticsearch]\nurls=['e']", "elasticsearch.urls: `e` is not an http:// or"),
            (
                "[kafka]\nbrokers=['k:1']\n[elasticsearch]\nurls=['HTTPS://elastic:secret@e:9200']",
                "elasticsearch.urls: `…@e:9200` is not an http:// or",
            ),
            (
                "roles=['query']\n[elasticsearch]\nurls=['http://e']\napi_key='a'\nbearer_token='b'",
                "elasticsearch.api_key: is set together with `elasticsearch.bearer_token`",
            ),
            ("roles=['query']\n[elasticsearch]\ncloud_id='x'", "elasticsearch.cloud_id: is not a cloud id: copy it"),
            ("roles=['query']\n[elasticsearch]\n", "elasticsearch.urls: is empty"),
            (
                "roles=['query']\n[elasticsearch]\nurls=['http://e']\nrequest_bytes_max='1KiB'",
                "elasticsearch.request_bytes_max: 1KiB is not between 256KiB and 64MiB",
            ),
        ] {
            let message = refused(text);
            assert!(message.starts_with(begins), "{text}\n  {message}");
        }
    }

    #[test]
    fn a_role_needs_only_its_own_servers() {
        let config: Config = toml::from_str("roles=['ingest']\n[kafka]\nbrokers=['k:9092']").unwrap();
        config.validate().unwrap();
        for nodes in ["urls=['http://e']", "cloud_id='name:aG9zdCR1dWlk'"] {
            let config: Config = toml::from_str(&format!("roles=['query']\n[elasticsearch]\n{nodes}")).unwrap();
            config.validate().unwrap();
        }
        let config: Config = toml::from_str("roles=['query']\n[elasticsearch]\nurls=['http://e']").unwrap();
        config.validate().unwrap();
    }
}
