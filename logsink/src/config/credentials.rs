//! Who we are for a sink, whom we trust, and what must not be shown.

use std::{fmt, path::PathBuf};

use serde::Deserialize;

/// Who we are for a Kafka cluster that asks, and how we prove it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` and whatever else librdkafka was built with. SCRAM needs the cargo feature
    /// `kafka-ssl`. Default: none, the cluster does not ask.
    pub mechanism: Option<String>,
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A file that holds the password instead, read at the start.
    pub password_file: Option<PathBuf>,
}

/// TLS of an `https://` or `kafkas://` endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// PEM file of authorities to trust. Default: the Mozilla roots compiled in; for Kafka those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate chain, for mTLS.
    pub certificate: Option<PathBuf>,
    /// PEM file of the client's key, for mTLS.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate is checked against, except by Kafka. Default: the endpoint's host.
    pub server_name: Option<String>,
}

/// A value that may be a credential: its debug form does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
