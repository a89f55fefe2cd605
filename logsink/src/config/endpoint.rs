//! The endpoint: one URL that says where events go and how.

use std::path::PathBuf;

/// Where events go unless told otherwise: an OTLP/gRPC sink on this machine, be it `logsink-server` or a collector.
pub const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:4317";

/// An endpoint URL, read.
///
/// | URL | events go |
/// |---|---|
/// | `http://host:4317`, `https://host:4317` | over OTLP/gRPC; without a port to 4317 |
/// | `http://a:4317,b:4317` | over OTLP/gRPC to any of several, one that fails being left out; each without a port to 4317 |
/// | `etcd://e1:2379,e2:2379`, `etcd://e1:2379/fleet` | over OTLP/gRPC to any of the servers that are registered in etcd (cargo feature `etcd`) |
/// | `grpc://host:4318`, `grpcs://…` | the same, whatever the port is; `grpcs` with TLS |
/// | `http://host:4318`, `https://host/otlp/v1/logs` | over OTLP/HTTP, for the port 4318 or a path says so; without a path to `/v1/logs` |
/// | `otlphttp://host:8080`, `otlphttps://…` | the same, whatever the port is (without one 80 or 443); here a path of `/` is one |
/// | `kafka://b1:9092,b2:9092/topic`, `kafkas://…` | into a Kafka topic; `kafkas` with TLS |
/// | `stdout:`, `stderr:`, `file:/path/to/app.log` | as lines; with `?format=text`, `pretty` or `json`, and `?colour=auto`, `always` or `never` |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// OTLP over gRPC.
    Grpc {
        /// The URL as it goes to the client: `http://host:4317` or `https://host:4317`.
        url: String,
        /// `https`
        tls: bool,
        /// The host is this machine: compression would cost more than the bytes.
        loopback: bool,
    },
    /// OTLP over gRPC, to any of several sinks.
    GrpcAny {
        /// The URLs as they go to the client.
        urls: Vec<String>,
        /// `https`
        tls: bool,
        /// All hosts are this machine.
        loopback: bool,
    },
    /// OTLP over gRPC, to any of the servers that are registered in etcd.
    Etcd {
        /// The URLs of etcd's members.
        members: Vec<String>,
        /// The fleet's name; empty: the one without a name.
        fleet: String,
    },
    /// OTLP over HTTP, in protobuf.
    Http {
        /// The URL that batches are posted to: `http://host:4318/v1/logs`.
        url: String,
        /// `https`
        tls: bool,
        /// The host is this machine: compression would cost more than the bytes.
        loopback: bool,
    },
    /// `kafka://b1:9092,b2:9092/topic` or `kafkas://…`
    Kafka {
        /// `b1:9092,b2:9092`
        brokers: String,
        /// The topic; `otlp_logs` unless the URL names one.
        topic: String,
        /// `kafkas`
        tls: bool,
    },
    /// Lines for people, or for programs that read lines.
    Lines {
        /// Where they are written.
        to: Destination,
        /// How they look.
        format: Format,
        /// Whether levels are coloured.
        colour: Colour,
    },
}

/// Where lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// `stdout:`
    Stdout,
    /// `stderr:`
    Stderr,
    /// `file:/path`: at its end; made when it is missing, and again when it was moved away.
    File(PathBuf),
}

impl Destination {
    /// Whether it is the process's own output.
    pub(crate) fn is_standard(&self) -> bool {
        matches!(self, Self::Stdout | Self::Stderr)
    }
}

/// How a record looks as lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One readable line, much as `tracing_subscriber::fmt` writes it. The default.
    #[default]
    Text,
    /// A line for the message and one for each field.
    Pretty,
    /// One JSON object on a line.
    Json,
}

/// Whether lines are coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Colour {
    /// On a terminal, unless the variable `NO_COLOR` is set. The default.
    #[default]
    Auto,
    /// Anywhere.
    Always,
    /// Nowhere.
    Never,
}

/// The OpenTelemetry Collector's default topic.
const TOPIC_DEFAULT: &str = "otlp_logs";

/// The ports of OTLP over gRPC and over HTTP.
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;

/// Where an OTLP/HTTP receiver takes logs.
pub(super) const LOGS_PATH: &str = "/v1/logs";

/// What to write instead of something that is no endpoint.
const FORMS: &str = "write `http://host:4317` (gRPC), `http://host:4318/v1/logs` (HTTP), `kafka://host:9092/topic`, \
                     `stdout:`, `stderr:` or `file:/path`";

impl Endpoint {
    /// Reads a URL. The error says what to write instead.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(format!("`{url}` is not a URL: {FORMS}"));
        };
        match (scheme, rest.strip_prefix("//")) {
            ("stdout", _) => Self::lines(Destination::Stdout, scheme, rest.trim_start_matches('/')),
            ("stderr", _) => Self::lines(Destination::Stderr, scheme, rest.trim_start_matches('/')),
            ("file", _) => Self::file(rest),
            ("http" | "https" | "grpc" | "grpcs", Some(addresses)) if addresses.contains(',') => {
                Self::any(scheme, addresses)
            }
            ("http" | "https" | "grpc" | "grpcs" | "otlphttp" | "otlphttps", Some(address)) => {
                Self::otlp(scheme, address)
            }
            ("kafka" | "kafkas", Some(address)) => Self::kafka(scheme, address),
            ("etcd", Some(members)) => Self::etcd(members),
            _ => Err(format!("`{}` cannot be sent to: {FORMS}", redacted(url))),
        }
    }

    /// `a:4317,b:4317`: sinks that stand for one another.
    fn any(scheme: &str, addresses: &str) -> Result<Self, String> {
        let (mut all, mut is_tls, mut is_loopback) = (Vec::new(), false, true);
        for address in addresses.trim_end_matches('/').split(',') {
            match Self::otlp(scheme, address.trim())? {
                Self::Grpc { url, tls, loopback } => {
                    if all.contains(&url) {
                        return Err(format!("{url} is named twice"));
                    }
                    all.push(url);
                    is_tls = tls;
                    is_loopback &= loopback;
                }
                _ => return Err("a list is for gRPC: write `http://a:4317,b:4317`".to_owned()),
            }
        }
        Ok(Self::GrpcAny { urls: all, tls: is_tls, loopback: is_loopback })
    }

    /// `e1:2379,e2:2379`
    fn etcd(members: &str) -> Result<Self, String> {
        if !cfg!(all(feature = "etcd", feature = "grpc")) {
            return Err("this build finds no sinks through etcd: add the cargo features `etcd` and `grpc` of logsink"
                .to_owned());
        }
        let (members, fleet) = members.split_once('/').unwrap_or((members, ""));
        let fleet = fleet.trim_end_matches('/');
        if members.contains(['@', '?']) || members.split(',').any(|member| member.trim().is_empty()) {
            return Err("is not a list of etcd's members: write `etcd://e1:2379,e2:2379`".to_owned());
        }
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !fleet.chars().all(is_legal) {
            return Err(format!("`{fleet}` is not a fleet's name: letters, digits, `.`, `_` and `-`"));
        }
        let members = members.split(',').map(|member| format!("http://{}", member.trim())).collect();
        Ok(Self::Etcd { members, fleet: fleet.to_owned() })
    }

    fn otlp(scheme: &str, address: &str) -> Result<Self, String> {
        let (authority, path) = address.split_at(address.find('/').unwrap_or(address.len()));
        if authority.contains('@') {
            return Err("credentials in the URL are not sent: put an `authorization` entry into `headers`".to_owned());
        }
        let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
            // `[::1]` has colons of its own.
            if port.ends_with(']') { authority } else { host }
        });
        if host.is_empty() {
            return Err(format!("no host: write `{scheme}://host:4317`"));
        }
        let port = match authority.get(host.len() + 1..) {
            None => None,
            Some(port) => Some(
                port.parse::<u16>().map_err(|_| format!("`{port}` is not a port: write `{scheme}://{host}:4317`"))?,
            ),
        };
        let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        let tls = scheme.ends_with('s');
        let web = if tls { "https" } else { "http" };
        let over_http = match scheme {
            "http" | "https" => port == Some(HTTP_PORT) || !matches!(path, "" | "/"),
            _ => scheme.starts_with("otlphttp"),
        };
        if over_http {
            if !cfg!(feature = "http") {
                return Err("this build has no OTLP/HTTP: add the cargo feature `http` of logsink".to_owned());
            }
            let explicit = scheme.starts_with("otlphttp");
            let path = if path.is_empty() || (path == "/" && !explicit) { LOGS_PATH } else { path };
            return Ok(Self::Http { url: format!("{web}://{authority}{path}"), tls, loopback });
        }
        if !cfg!(feature = "grpc") {
            return Err("this build has no gRPC: add the cargo feature `grpc` of logsink".to_owned());
        }
        if !matches!(path, "" | "/") {
            return Err(format!("a gRPC endpoint has no path: write `{scheme}://{authority}`"));
        }
        // Without a port a gRPC client would go to 80 or 443; OTLP/gRPC lives on 4317.
        let port = if port.is_none() { format!(":{GRPC_PORT}") } else { String::new() };
        Ok(Self::Grpc { url: format!("{web}://{authority}{port}"), tls, loopback })
    }

    fn kafka(scheme: &str, address: &str) -> Result<Self, String> {
        if !cfg!(feature = "kafka") {
            return Err("this build has no Kafka: add the cargo feature `kafka` of logsink".to_owned());
        }
        let tls = scheme == "kafkas";
        if tls && !cfg!(feature = "kafka-ssl") {
            return Err("this build has no TLS for Kafka: add the cargo feature `kafka-ssl` of logsink".to_owned());
        }
        let (brokers, topic) = address.split_once('/').unwrap_or((address, ""));
        let topic = topic.trim_end_matches('/');
        if brokers.contains('@') {
            return Err("credentials in the URL are not used: put `username` and its kin into `[sasl]`".to_owned());
        }
        if brokers.split(',').any(|broker| broker.trim().is_empty()) {
            return Err(format!("a broker is missing: write `{scheme}://b1:9092,b2:9092/topic`"));
        }
        // A broker without a port is reached at 9092.
        let ports =
            brokers.split(',').filter(|broker| !broker.ends_with(']')).filter_map(|broker| broker.rsplit_once(':'));
        if let Some((host, port)) = ports.into_iter().find(|(_, port)| port.trim().parse::<u16>().is_err()) {
            return Err(format!("`{port}` is not a port: write `{scheme}://{host}:9092/topic`"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.len() > 249 || !topic.chars().all(legal) {
            return Err(format!("`{topic}` is not a topic name: letters, digits, `.`, `_` and `-`, at most 249"));
        }
        let topic = if topic.is_empty() { TOPIC_DEFAULT } else { topic };
        Ok(Self::Kafka { brokers: brokers.to_owned(), topic: topic.to_owned(), tls })
    }

    /// `file:/path`, `file:///path`, `file:path`: the path as it is, up to the options.
    fn file(rest: &str) -> Result<Self, String> {
        let (path, options) = rest.split_once('?').map_or((rest, ""), |(path, _)| (path, &rest[path.len()..]));
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.ends_with('/') {
            return Err("no file is named: write `file:/path/to/app.log`".to_owned());
        }
        Self::lines(Destination::File(path.into()), "file:/path", options)
    }

    /// `json`, `?format=json&colour=never` or nothing.
    fn lines(to: Destination, before: &str, options: &str) -> Result<Self, String> {
        let (mut format, mut colour) = (Format::default(), Colour::default());
        let options = match options.strip_prefix('?') {
            Some(options) => options.split('&').filter(|option| !option.is_empty()).collect(),
            None if options.is_empty() => Vec::new(),
            None => vec![options],
        };
        for option in options {
            match option.split_once('=').unwrap_or(("format", option)) {
                ("format", "text") => format = Format::Text,
                ("format", "pretty") => format = Format::Pretty,
                ("format", "json") => format = Format::Json,
                ("colour" | "color", "auto") => colour = Colour::Auto,
                ("colour" | "color", "always") => colour = Colour::Always,
                ("colour" | "color", "never") => colour = Colour::Never,
                _ => {
                    let before = before.trim_end_matches(':');
                    let colon = if before.contains(':') { "" } else { ":" };
                    return Err(format!(
                        "`{option}` is not known: write `{before}{colon}?format=text`, `pretty` or `json`, \
                         or `{before}{colon}?colour=auto`, `always` or `never`"
                    ));
                }
            }
        }
        Ok(Self::Lines { to, format, colour })
    }
}

/// The URL without what may be a password.
pub(super) fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
