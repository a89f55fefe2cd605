//! Which sinks there are: servers that take events in stand in etcd, below `/logsink/servers/`, under a lease. Servers of a fleet
//! that has a name stand below `/logsink/servers/<name>/`: one etcd may serve several.
//!
//! A server that ends removes itself first; one that is killed is gone when its lease ends. A list that is empty changes
//! nothing: that etcd has lost or not yet got its entries is likelier than that nobody wants events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::etcd::Reading;

/// What the keys of servers begin with; an id follows, or the fleet's name and then an id.
pub const SERVERS_PREFIX: &str = "/logsink/servers/";

/// The longest name of a fleet.
pub const FLEET_BYTES_MAX: usize = 64;

/// What the keys of a fleet's servers begin with; an empty name is the fleet without one.
pub fn prefix(fleet: &str) -> String {
    if fleet.is_empty() { SERVERS_PREFIX.to_owned() } else { format!("{SERVERS_PREFIX}{fleet}/") }
}

/// Whether a fleet may be called so: letters, digits, `.`, `_` and `-`.
pub fn is_fleet(name: &str) -> bool {
    let is_legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=FLEET_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_legal)
}

/// A server that takes events in. In etcd it is TOML; keys that are not known are passed over, so that newer servers may say
/// more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Where it takes OTLP over gRPC: `http://10.0.0.1:4317`, or `https://…`.
    pub grpc: String,
    /// Where everything else is, over HTTP.
    pub http: String,
    /// Its version.
    pub version: String,
    /// Since when it is registered, RFC 3339.
    pub since: String,
    /// How much of what it may have under way is in use, in per cent; told in steps of 25.
    pub load_percent: u8,
}

impl Server {
    /// As it stands in etcd.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }
}

/// The servers of a reading whose keys begin with a fleet's [`prefix`], by id; the error says what is wrong with an entry.
pub fn servers(reading: &Reading, prefix: &str) -> BTreeMap<String, Result<Server, String>> {
    let entries = reading.entries.iter().filter_map(|(key, entry)| Some((key.strip_prefix(prefix)?, entry)));
    entries
        // Those of other fleets, seen from the one without a name.
        .filter(|(id, _)| !id.contains('/'))
        .map(|(id, entry)| {
            let text = std::str::from_utf8(&entry.value).map_err(|_| "is not UTF-8".to_owned());
            let server =
                text.and_then(|text| toml::from_str::<Server>(text).map_err(|error| error.message().to_owned()));
            let server = server.and_then(|server| match server.grpc.is_empty() {
                true => Err("names no address for gRPC".to_owned()),
                false => Ok(server),
            });
            (id.to_owned(), server)
        })
        .collect()
}

/// The URLs of a reading's servers, each once, as many as are used.
#[cfg(feature = "grpc")]
pub(crate) fn urls(reading: &Reading, prefix: &str, max: usize) -> Vec<String> {
    let all: std::collections::BTreeSet<_> =
        servers(reading, prefix).into_values().flatten().map(|server| server.grpc).collect();
    all.into_iter().take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::etcd::Entry;

    #[test]
    fn servers_are_read_one_by_one() {
        let entry = |text: &str| Entry { value: text.as_bytes().to_vec(), revision: 1 };
        let own = Server { grpc: "http://10.0.0.1:4317".into(), load_percent: 25, ..Server::default() };
        let mut reading = Reading::default();
        for (id, text) in [
            ("a", own.to_toml().unwrap()),
            ("b", "grpc = \"http://10.0.0.2:4317\"\nof_a_newer_version = 1".to_owned()),
            ("c", "rubbish".to_owned()),
            ("d", "http = \"http://10.0.0.2:4318\"".to_owned()),
        ] {
            reading.entries.insert(format!("{SERVERS_PREFIX}{id}"), entry(&text));
        }
        reading.entries.insert("/logsink/rules/global".into(), entry(""));
        reading.entries.insert(format!("{}e", prefix("eu")), entry("grpc = \"http://10.9.9.9:4317\""));
        let of_fleet = servers(&reading, &prefix("eu"));
        assert_eq!(of_fleet["e"].as_ref().unwrap().grpc, "http://10.9.9.9:4317");
        assert_eq!(of_fleet.len(), 1);
        let servers = servers(&reading, SERVERS_PREFIX);
        assert_eq!(servers["a"], Ok(own));
        assert_eq!(servers["b"].as_ref().unwrap().grpc, "http://10.0.0.2:4317");
        assert!(servers["c"].is_err() && servers["d"].is_err() && servers.len() == 4);
        #[cfg(feature = "grpc")]
        assert_eq!(urls(&reading, SERVERS_PREFIX, 9), ["http://10.0.0.1:4317", "http://10.0.0.2:4317"]);
    }
}
