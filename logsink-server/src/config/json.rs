//! `[kafka.json]`: where the fields of a JSON log line are found.

use logsink::ConfigError;
use serde::Deserialize;

use super::validate::ensure;

/// What the messages of the topic are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `ExportLogsServiceRequest`, as the server's own ingest and the Collector's `otlp_proto` write it.
    #[default]
    Otlp,
    /// A log line as one JSON object, as rsyslog, Vector, Filebeat and Fluent Bit write it.
    Json,
}

/// `[kafka.json]`: names that are tried in order; the first that is there with a value that can be used wins. A name with
/// dots is that key, or a path through objects: `log.level` finds `{"log.level": …}` and `{"log": {"level": …}}`. What no
/// name takes becomes an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonFields {
    /// The event's time: RFC 3339, or a number since 1970 whose size tells seconds, ms, µs and ns apart.
    pub time: Vec<String>,
    /// How bad it is: a name, a number of syslog (0 to 7) or one of pino (10 to 60).
    pub level: Vec<String>,
    /// The text.
    pub message: Vec<String>,
    /// Becomes the resource's `service.name`.
    pub service: Vec<String>,
    /// Becomes the resource's `host.name`.
    pub host: Vec<String>,
    /// 32 hexadecimal digits.
    pub trace_id: Vec<String>,
    /// 16 hexadecimal digits.
    pub span_id: Vec<String>,
    /// W3C's `traceparent`, for both ids at once where they are not there by themselves.
    pub traceparent: Vec<String>,
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

impl Default for JsonFields {
    /// ECS first, then what rsyslog, Vector and Fluent Bit call them.
    fn default() -> Self {
        Self {
            time: names(&["@timestamp", "timestamp", "timereported", "time", "ts", "timegenerated", "date"]),
            level: names(&[
                "log.level",
                "level",
                "severity",
                "severity_text",
                "log.syslog.severity.name",
                "log.syslog.severity.code",
                "syslogseverity-text",
                "syslogseverity",
                "pri",
                "PRIORITY",
            ]),
            message: names(&["message", "msg", "log", "MESSAGE", "event.original"]),
            service: names(&[
                "service.name",
                "service",
                "app-name",
                "appname",
                "programname",
                "SYSLOG_IDENTIFIER",
                "kubernetes.container_name",
                "kubernetes.container.name",
                "container_name",
            ]),
            host: names(&["host.name", "host.hostname", "hostname", "host", "kubernetes.host", "_HOSTNAME"]),
            trace_id: names(&["trace.id", "trace_id", "traceId", "traceid"]),
            span_id: names(&["span.id", "span_id", "spanId", "spanid"]),
            traceparent: names(&["traceparent"]),
        }
    }
}

impl JsonFields {
    /// What the types cannot say.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let all = [
            ("time", &self.time),
            ("level", &self.level),
            ("message", &self.message),
            ("service", &self.service),
            ("host", &self.host),
            ("trace_id", &self.trace_id),
            ("span_id", &self.span_id),
            ("traceparent", &self.traceparent),
        ];
        for (key, names) in all {
            ensure(names.iter().all(|name| !name.is_empty()), &format!("kafka.json.{key}"), || {
                "has an empty name: write the name of a field, such as \"log.level\", or [] for none".into()
            })?;
        }
        Ok(())
    }
}
