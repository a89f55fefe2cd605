//! This server's entry in etcd's list: under which address others reach it.

use std::net::SocketAddr;

use logsink::discovery::Server;

use super::Addresses;
use crate::{
    config::Config,
    control::registry::{Load, Registration},
};

/// What is entered, once the doors are open.
pub(super) struct Entrant {
    endpoints: Vec<String>,
    fleet: String,
    server: Server,
    load: Load,
}

impl Entrant {
    /// None where there is no etcd, or nothing is taken in. A server that listens on every address and does not say under which
    /// it is reached is not entered: senders could not find it.
    pub(super) fn new(config: &Config, addresses: Addresses, load: Load) -> Option<Self> {
        let (etcd, grpc) = (config.etcd.as_ref()?, addresses.grpc?);
        let server = server(config, grpc, addresses.http);
        if server.is_none() {
            tracing::info!(%grpc, "not in etcd's list of servers: set `listen.advertise` to where others reach this address");
        }
        let fleet = etcd.fleet.clone().unwrap_or_default();
        Some(Self { endpoints: etcd.endpoints.clone(), fleet, server: server?, load })
    }

    pub(super) fn enter(self) -> Registration {
        // As unlikely to be another's as that matters: an entry that is written over comes back with its next change.
        let id = format!("{:016x}", fastrand::u64(..));
        Registration::start(self.endpoints, &self.fleet, &id, self.server, self.load)
    }
}

fn server(config: &Config, grpc: SocketAddr, http: SocketAddr) -> Option<Server> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let (grpc, http) = match &config.listen.advertise {
        Some(advertised) => match advertised.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                (advertised.clone(), format!("{host}:{}", http.port()))
            }
            _ => (format!("{advertised}:{}", grpc.port()), format!("{advertised}:{}", http.port())),
        },
        None if grpc.ip().is_unspecified() => return None,
        None => (grpc.to_string(), http.to_string()),
    };
    Some(Server {
        grpc: format!("{scheme}://{grpc}"),
        http: format!("{scheme}://{http}"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: jiff::Timestamp::now().to_string(),
        load_percent: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_others_reach_is_told() {
        let at = |text: &str, config: &str| {
            let config: Config = toml::from_str(config).unwrap();
            let server = server(&config, text.parse().unwrap(), "0.0.0.0:4318".parse().unwrap());
            server.map(|server| format!("{} {}", server.grpc, server.http))
        };
        assert_eq!(at("0.0.0.0:4317", ""), None);
        assert_eq!(at("[::]:4317", ""), None);
        assert_eq!(at("10.0.0.1:4317", "").unwrap(), "http://10.0.0.1:4317 http://0.0.0.0:4318");
        let host = "[listen]\nadvertise = 'sink-1.example.com'";
        assert_eq!(at("0.0.0.0:4317", host).unwrap(), "http://sink-1.example.com:4317 http://sink-1.example.com:4318");
        let port = "[listen]\nadvertise = 'lb.example.com:443'\n[tls]\ncert = 'c'\nkey = 'k'";
        assert_eq!(at("0.0.0.0:4317", port).unwrap(), "https://lb.example.com:443 https://lb.example.com:4318");
        let six = "[listen]\nadvertise = '[2001:db8::1]'";
        assert_eq!(at("[::]:4317", six).unwrap(), "http://[2001:db8::1]:4317 http://[2001:db8::1]:4318");
    }
}
