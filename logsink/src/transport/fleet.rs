//! gRPC sinks that stand for one another: a list, or those that are registered in etcd.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::transport::Channel;

use super::{
    Connected,
    balance::{Balanced, Member, Members},
    grpc,
};
use crate::{Config, ConfigError, config::Compression};

/// A sink of its own for each of these URLs.
pub(super) fn listed(urls: &[String], config: &Config, compression: Compression) -> Result<Connected, ConfigError> {
    let members = urls.iter().map(|url| member(url, config, compression)).collect::<Result<_, _>>()?;
    Ok(connected(Arc::new(ArcSwap::from_pointee(members)), "no sink is named".to_owned(), None))
}

/// Those that stand in etcd, as long as they do.
#[cfg(feature = "etcd")]
pub(super) fn discovered(
    members_of_etcd: &[String],
    fleet: &str,
    config: &Config,
    compression: Compression,
) -> Connected {
    use crate::{
        discovery::{prefix, urls},
        source::etcd::{Range, Readings},
        voice::say,
    };
    /// Servers listed; of more, the first are used.
    const SERVERS_MAX: usize = 1_024;
    let none = format!("no server is registered in etcd at {} yet", members_of_etcd.join(","));
    let members: Members<Channel> = Arc::default();
    let (shared, config) = (members.clone(), config.clone());
    let prefix = prefix(fleet);
    let mut readings = Readings::new(members_of_etcd.to_vec(), Range::Prefix(prefix.clone()));
    let watch = tokio::spawn(async move {
        loop {
            let found = urls(&readings.next().await, &prefix, SERVERS_MAX);
            if found.is_empty() {
                continue;
            }
            let known = shared.load_full();
            let mut next = Vec::with_capacity(found.len());
            for url in found {
                match known.iter().find(|member| member.url == url) {
                    Some(member) => next.push(member.clone()),
                    None => match member(&url, &config, compression) {
                        Ok(member) => next.push(member),
                        Err(error) => say(format_args!("a server registered in etcd cannot be used, {url}: {error}")),
                    },
                }
            }
            shared.store(Arc::new(next));
        }
    });
    connected(members, none, Some(watch))
}

fn member(url: &str, config: &Config, compression: Compression) -> Result<Arc<Member<Channel>>, ConfigError> {
    let channel = grpc::channel(url, config)?;
    let transport = grpc::GrpcTransport::new(channel.clone(), config, compression)?;
    Ok(Arc::new(Member::new(url.to_owned(), Arc::new(transport), channel)))
}

fn connected(members: Members<Channel>, none: String, watch: Option<tokio::task::JoinHandle<()>>) -> Connected {
    let channels = members.clone();
    Connected {
        transport: Arc::new(Balanced::new(members, none, watch)),
        // Any will do: all of them push the same rules.
        channel: Some(Arc::new(move || {
            let members = channels.load();
            (!members.is_empty()).then(|| members[fastrand::usize(..members.len())].connection.clone())
        })),
    }
}
