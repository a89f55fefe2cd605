//! The endpoint: one URL that says where events go and how.

/// Where events go unless told otherwise: an OTLP/gRPC sink on this machine, be it `logsink-server` or a collector.
pub const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:4317";

/// An endpoint URL, read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// `http://host:4317` or `https://host:4317`
    Grpc {
        /// The URL as it goes to the client.
        url: String,
        /// `https`
        tls: bool,
        /// The host is this machine: compression would cost more than the bytes.
        loopback: bool,
    },
    /// `kafka://b1:9092,b2:9092/topic`
    Kafka {
        /// `b1:9092,b2:9092`
        brokers: String,
        /// The topic; `otlp_logs` unless the URL names one.
        topic: String,
    },
    /// `stdout:`: lines for people.
    Stdout,
}

/// The OpenTelemetry Collector's default topic.
const TOPIC_DEFAULT: &str = "otlp_logs";

impl Endpoint {
    /// Reads a URL. The error says what to write instead.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let forms = "write `http://host:4317`, `https://host:4317`, `kafka://host:9092/topic` or `stdout:`";
        let Some((scheme, rest)) = url.trim().split_once(':') else {
            return Err(format!("`{url}` is not a URL: {forms}"));
        };
        let address = rest.strip_prefix("//");
        match (scheme, address) {
            ("stdout", _) if rest.trim_matches('/').is_empty() => Ok(Self::Stdout),
            ("http" | "https", Some(address)) => Self::grpc(scheme, address),
            ("kafka", Some(address)) => Self::kafka(address),
            ("etcd", Some(_)) => {
                Err("finding sinks through etcd is not supported yet: name the sink itself".to_owned())
            }
            _ => Err(format!("`{}` cannot be sent to: {forms}", redacted(url))),
        }
    }

    fn grpc(scheme: &str, address: &str) -> Result<Self, String> {
        if !cfg!(feature = "grpc") {
            return Err("this build has no gRPC: add the cargo feature `grpc` of logsink".to_owned());
        }
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        if authority.contains('@') {
            return Err("credentials in the URL are not sent: put an `authorization` entry into `headers`".to_owned());
        }
        if !path.is_empty() {
            return Err(format!("a gRPC endpoint has no path: write `{scheme}://{authority}`"));
        }
        let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
            // `[::1]` has colons of its own.
            if port.ends_with(']') { authority } else { host }
        });
        if host.is_empty() {
            return Err(format!("no host: write `{scheme}://host:4317`"));
        }
        if let Some(port) = authority.get(host.len() + 1..).filter(|port| port.parse::<u16>().is_err()) {
            return Err(format!("`{port}` is not a port: write `{scheme}://{host}:4317`"));
        }
        // Without a port a gRPC client would go to 80 or 443; OTLP/gRPC lives on 4317.
        let port = if host.len() == authority.len() { ":4317" } else { "" };
        let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        Ok(Self::Grpc { url: format!("{scheme}://{authority}{port}"), tls: scheme == "https", loopback })
    }

    fn kafka(address: &str) -> Result<Self, String> {
        if !cfg!(feature = "kafka") {
            return Err("this build has no Kafka: add the cargo feature `kafka` of logsink".to_owned());
        }
        let (brokers, topic) = address.split_once('/').unwrap_or((address, ""));
        let topic = topic.trim_end_matches('/');
        if brokers.contains('@') {
            return Err(
                "credentials in the URL are not used: put `sasl.username` and its kin into `[kafka]`".to_owned()
            );
        }
        if brokers.split(',').any(|broker| broker.trim().is_empty()) {
            return Err("a broker is missing: write `kafka://b1:9092,b2:9092/topic`".to_owned());
        }
        // A broker without a port is reached at 9092.
        let ports =
            brokers.split(',').filter(|broker| !broker.ends_with(']')).filter_map(|broker| broker.rsplit_once(':'));
        if let Some((host, port)) = ports.into_iter().find(|(_, port)| port.trim().parse::<u16>().is_err()) {
            return Err(format!("`{port}` is not a port: write `kafka://{host}:9092/topic`"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.len() > 249 || !topic.chars().all(legal) {
            return Err(format!("`{topic}` is not a topic name: letters, digits, `.`, `_` and `-`, at most 249"));
        }
        let topic = if topic.is_empty() { TOPIC_DEFAULT } else { topic };
        Ok(Self::Kafka { brokers: brokers.to_owned(), topic: topic.to_owned() })
    }
}

/// The URL without what may be a password.
pub(super) fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
