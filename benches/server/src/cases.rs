//! The cases: which program does what.

use crate::program::Program;

/// One row of the tables.
pub(crate) struct Case {
    /// Its word in `CASE`.
    pub(crate) name: &'static str,
    /// Its row's name.
    pub(crate) label: &'static str,
    /// Words in `CASE` that mean it too.
    pub(crate) groups: &'static [&'static str],
    /// Who does it.
    pub(crate) program: Program,
    /// What.
    pub(crate) work: Work,
}

/// What a program is given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A topic into the counting sink.
    Drain(Drain),
    /// A topic into a real Elasticsearch.
    Elasticsearch,
    /// Requests over gRPC into a topic.
    Ingest(Ingest),
}

/// From Kafka to `_bulk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Before each answer of the sink.
    pub(crate) delay_ms: u32,
    /// Of the bodies.
    pub(crate) compression: Option<&'static str>,
    /// A topic of so many records as `BACKLOG` says.
    pub(crate) is_backlog: bool,
    /// The sink is away at first.
    pub(crate) is_down: bool,
}

/// From gRPC to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ingest {
    /// Records a request.
    pub(crate) per_request: u32,
    /// Of the requests.
    pub(crate) encoding: &'static str,
    pub(crate) has_tls: bool,
}

const DRAIN: Drain = Drain { delay_ms: 0, compression: None, is_backlog: false, is_down: false };
const INGEST: Ingest = Ingest { per_request: 100, encoding: "none", has_tls: false };

const fn drain(name: &'static str, label: &'static str, drain: Drain) -> Case {
    Case { name, label, groups: &["drains", "ours"], program: Program::Server, work: Work::Drain(drain) }
}

const fn ingest(name: &'static str, label: &'static str, ingest: Ingest) -> Case {
    Case { name, label, groups: &["ingests", "ours"], program: Program::Server, work: Work::Ingest(ingest) }
}

const fn peer(name: &'static str, label: &'static str, program: Program, work: Work) -> Case {
    Case { name, label, groups: &["peers"], program, work }
}

/// All of them, in the order of the tables.
pub(crate) const CASES: &[Case] = &[
    drain("drain", "**logsink**", DRAIN),
    drain("drain-20ms", "**logsink**, a bulk takes 20 ms", Drain { delay_ms: 20, ..DRAIN }),
    drain("drain-zstd", "**logsink**, zstd bodies", Drain { compression: Some("zstd"), ..DRAIN }),
    drain("drain-gzip", "**logsink**, gzip bodies", Drain { compression: Some("gzip"), ..DRAIN }),
    drain("backlog", "**logsink**, a long backlog", Drain { is_backlog: true, ..DRAIN }),
    drain(
        "sink-down",
        "**logsink**, a long backlog, sink away at first",
        Drain { is_backlog: true, is_down: true, ..DRAIN },
    ),
    peer("collector-drain", "Collector 0.120, gathers in memory", Program::CollectorQueue, Work::Drain(DRAIN)),
    peer("collector-drain-direct", "Collector 0.120, commits after", Program::CollectorDirect, Work::Drain(DRAIN)),
    peer(
        "collector-drain-direct-20ms",
        "Collector 0.120, commits after, a bulk takes 20 ms",
        Program::CollectorDirect,
        Work::Drain(Drain { delay_ms: 20, ..DRAIN }),
    ),
    peer("rsyslog-drain", "rsyslog 8.2302, JSON lines, never parsed", Program::Rsyslog, Work::Drain(DRAIN)),
    Case {
        name: "elasticsearch",
        label: "**logsink**, into Elasticsearch",
        groups: &["ours"],
        program: Program::Server,
        work: Work::Elasticsearch,
    },
    ingest("ingest", "**logsink**, 100 a request", INGEST),
    ingest("ingest-1000", "**logsink**, 1,000 a request", Ingest { per_request: 1_000, ..INGEST }),
    ingest("ingest-10", "**logsink**, 10 a request", Ingest { per_request: 10, ..INGEST }),
    ingest("ingest-1", "**logsink**, 1 a request", Ingest { per_request: 1, ..INGEST }),
    ingest("ingest-tls", "**logsink**, 100 a request, TLS", Ingest { has_tls: true, ..INGEST }),
    ingest("ingest-zstd", "**logsink**, 100 a request, zstd", Ingest { encoding: "zstd", ..INGEST }),
    ingest("ingest-gzip", "**logsink**, 100 a request, gzip", Ingest { encoding: "gzip", ..INGEST }),
    peer("collector-ingest", "Collector 0.165, 100 a request", Program::Collector, Work::Ingest(INGEST)),
];

impl Case {
    /// Its name and its groups'.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.groups.iter().copied().chain([self.name]).collect()
    }
}
