//! The programs under measurement: how each is told what to do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    cases::{Drain, Ingest},
    plan::Plan,
};

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `logsink-server`.
    Server,
    /// The OpenTelemetry Collector from gRPC to Kafka, without a queue of its own.
    Collector,
    /// The OpenTelemetry Collector from Kafka to bulks that it gathers in memory: what it has gathered is lost in a crash.
    CollectorQueue,
    /// The same without gathering: a message is marked when its bulk is answered.
    CollectorDirect,
    /// Debian's rsyslog.
    Rsyslog,
}

/// What a drain is to move.
pub(crate) struct Route<'r> {
    pub(crate) topic: &'r str,
    pub(crate) group: &'r str,
    /// `http://host:port`
    pub(crate) sink: &'r str,
    /// The data stream or index.
    pub(crate) index: &'r str,
}

/// Ports on which it listens, where it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) grpc: u16,
    pub(crate) http: u16,
}

/// Certificate and key of the server.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Program {
    /// Why it cannot be run here, if so.
    pub(crate) fn missing(self, plan: &Plan) -> Option<String> {
        let path = self.path(plan);
        (!path.exists()).then(|| match self {
            Self::Server => format!("{} is missing", path.display()),
            _ => format!("{} is missing: `make bench-peers` installs it", path.display()),
        })
    }

    fn path(self, plan: &Plan) -> PathBuf {
        match self {
            Self::Server => plan.server.clone(),
            Self::Collector => plan.stack_home.join("collector/otelcol"),
            Self::CollectorQueue | Self::CollectorDirect => plan.stack_home.join("collector-drain/otelcol"),
            Self::Rsyslog => plan.stack_home.join("rsyslog/usr/sbin/rsyslogd"),
        }
    }

    /// Whether its topic has lines of JSON in place of OTLP.
    pub(crate) fn wants_json(self) -> bool {
        self == Self::Rsyslog
    }

    /// Whether what it has committed is in the sink: then that is checked.
    pub(crate) fn commits_after(self) -> bool {
        self == Self::Server
    }

    /// A command that drains.
    pub(crate) fn drain(self, plan: &Plan, route: &Route<'_>, drain: Drain, ports: Ports) -> anyhow::Result<Command> {
        match self {
            Self::Server => {
                let compression = drain.compression.map_or(String::new(), |name| format!("compression = \"{name}\"\n"));
                let text = format!(
                    "mode = \"cluster\"\nroles = [\"drain\"]\n\n[listen]\ngrpc = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n\n\
                     [kafka]\nbrokers = [{:?}]\ntopic = {:?}\ngroup = {:?}\npartitions = 4\n\n\
                     [elasticsearch]\nurls = [{:?}]\ndata_stream = {:?}\n{compression}",
                    ports.grpc, ports.http, plan.brokers, route.topic, route.group, route.sink, route.index
                );
                self.server(plan, &text)
            }
            Self::Collector | Self::CollectorQueue | Self::CollectorDirect => {
                self.collector(plan, &self.collector_drain(plan, route))
            }
            Self::Rsyslog => self.rsyslog(plan, route),
        }
    }

    /// A command that takes requests in and appends them to the topic.
    pub(crate) fn ingest(
        self,
        plan: &Plan,
        topic: &str,
        ingest: Ingest,
        identity: &Identity,
        ports: Ports,
    ) -> anyhow::Result<Command> {
        if self != Self::Server {
            return self.collector(plan, &collector_ingest(plan, topic, ports));
        }
        let tls = if ingest.has_tls {
            format!("[tls]\ncert = {:?}\nkey = {:?}\n", identity.certificate, identity.key)
        } else {
            String::new()
        };
        let text = format!(
            "mode = \"cluster\"\nroles = [\"ingest\"]\n\n[listen]\ngrpc = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n\n\
             [kafka]\nbrokers = [{:?}]\ntopic = {topic:?}\npartitions = 4\n\n{tls}",
            ports.grpc, ports.http, plan.brokers
        );
        self.server(plan, &text)
    }

    fn server(self, plan: &Plan, text: &str) -> anyhow::Result<Command> {
        let mut command = clean(&self.path(plan));
        command.arg("--config").arg(written(&plan.work.join("server.toml"), text)?);
        command.arg("--data-dir").arg(plan.work.join("data"));
        // `EXTRA`: lines for its configuration, to try a setting without a case of its own.
        if let Ok(extra) = std::env::var("EXTRA") {
            written(&plan.work.join("server.toml"), &format!("{text}{extra}\n"))?;
        }
        Ok(command)
    }

    fn collector(self, plan: &Plan, text: &str) -> anyhow::Result<Command> {
        let mut command = clean(&self.path(plan));
        command.arg("--config").arg(written(&plan.work.join("collector.yaml"), text)?);
        Ok(command)
    }

    /// Receiver 0.119 and exporter 0.120, whose settings these are.
    fn collector_drain(self, plan: &Plan, route: &Route<'_>) -> String {
        let Route { topic, group, sink, index } = route;
        let (marking, gathering) = match self {
            // With any word about its batcher the exporter answers when the bulk is answered.
            Self::CollectorDirect => ("{after: true, on_error: false}", "batcher: {enabled: false}"),
            _ => ("{after: false}", "flush: {bytes: 5000000, interval: 1s}"),
        };
        format!(
            "receivers:\n  kafka:\n    brokers: [{:?}]\n    protocol_version: 3.0.0\n    topic: {topic}\n    encoding: otlp_proto\n    \
             group_id: {group}\n    initial_offset: earliest\n    default_fetch_size: 8388608\n    \
             autocommit: {{enable: true, interval: 1s}}\n    message_marking: {marking}\n\
             exporters:\n  elasticsearch:\n    endpoints: [{sink:?}]\n    logs_index: {index}\n    compression: none\n    \
             mapping: {{mode: otel}}\n    num_workers: 4\n    {gathering}\n\
             service:\n  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}\n  pipelines:\n    \
             logs: {{receivers: [kafka], exporters: [elasticsearch]}}\n",
            plan.brokers
        )
    }

    /// Debian's package, unpacked: modules and libraries are found by path.
    fn rsyslog(self, plan: &Plan, route: &Route<'_>) -> anyhow::Result<Command> {
        let home = plan.stack_home.join("rsyslog");
        let (host, port) =
            route.sink.trim_start_matches("http://").split_once(':').context("the sink's URL has no port")?;
        let text = format!(
            "global(workDirectory=\"{work}\")\n\
             module(load=\"imkafka\")\nmodule(load=\"omelasticsearch\")\n\
             template(name=\"document\" type=\"string\" string=\"%msg%\")\n\
             main_queue(queue.type=\"LinkedList\" queue.size=\"100000\" queue.dequeueBatchSize=\"5000\" queue.workerThreads=\"4\" \
             queue.workerThreadMinimumMessages=\"5000\")\n\
             ruleset(name=\"index\" queue.type=\"LinkedList\" queue.size=\"100000\" queue.dequeueBatchSize=\"5000\" \
             queue.workerThreads=\"4\" queue.workerThreadMinimumMessages=\"5000\") {{\n  \
             action(type=\"omelasticsearch\" server=\"{host}\" serverport=\"{port}\" template=\"document\" searchIndex=\"{index}\" \
             searchType=\"\" bulkmode=\"on\" maxbytes=\"10m\" skipverifyhost=\"on\" action.resumeRetryCount=\"-1\")\n}}\n\
             input(type=\"imkafka\" topic=\"{topic}\" broker=[\"{brokers}\"] consumergroup=\"{group}\" ruleset=\"index\" \
             confParam=[\"auto.offset.reset=earliest\", \"enable.partition.eof=false\"])\n",
            work = plan.work.display(),
            index = route.index,
            topic = route.topic,
            brokers = plan.brokers,
            group = route.group,
        );
        let mut command = clean(&self.path(plan));
        command.env("LD_LIBRARY_PATH", home.join("libraries"));
        command.args(["-n", "-i", "NONE", "-M"]).arg(home.join("modules"));
        command.arg("-f").arg(written(&plan.work.join("rsyslog.conf"), &text)?);
        Ok(command)
    }
}

fn collector_ingest(plan: &Plan, topic: &str, ports: Ports) -> String {
    format!(
        "receivers:\n  otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{}\"}}}}}}\n\
         exporters:\n  kafka:\n    brokers: [{:?}]\n    logs: {{topic: {topic}, encoding: otlp_proto}}\n    \
         producer: {{required_acks: -1, compression: none, max_message_bytes: 10000000}}\n    \
         sending_queue: {{enabled: false}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}\n  pipelines:\n    \
         logs: {{receivers: [otlp], exporters: [kafka]}}\n",
        ports.grpc, plan.brokers
    )
}

/// Untouched by what the environment of the one who runs the bench says about logsink.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("LOGSINK_") || text.starts_with("OTEL_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

fn written(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    Ok(path.to_owned())
}
