//! What talks to the outside: the sinks' transports and the source of rules, made within the worker's runtime.

use std::sync::Arc;
#[cfg(any(feature = "etcd", feature = "grpc"))]
use std::{env, path::PathBuf};

use crate::{
    Config, InitError,
    config::Rules,
    metrics::Metrics,
    reload::Reload,
    source::{self, RuleSource},
    transport::{self, Transport},
    worker,
};

/// The directory of the cache below the user's.
#[cfg(any(feature = "etcd", feature = "grpc"))]
const CACHE_DIR: &str = "logsink";

/// What is needed for it.
#[allow(dead_code, reason = "which clients need what depends on the cargo features")]
pub(super) struct Outside {
    /// The main sink's first.
    pub(super) sinks: Vec<(Config, Arc<Metrics>)>,
    pub(super) config: Config,
    pub(super) service: String,
    pub(super) instance: String,
    /// In the main sink's stead.
    pub(super) transport: Option<Arc<dyn Transport>>,
    pub(super) reload: Arc<Reload>,
}

impl Outside {
    pub(super) fn build(self) -> Result<worker::Outside, InitError> {
        let rules = self.config.rule_source()?;
        let mut given = self.transport.clone();
        let mut transports = Vec::new();
        #[cfg(feature = "grpc")]
        let mut channel = None;
        for (index, (config, metrics)) in self.sinks.iter().enumerate() {
            #[cfg(not(feature = "grpc"))]
            let _ = index;
            transports.push(match given.take() {
                Some(transport) => transport,
                None => {
                    let connected = transport::connect(&config.endpoint()?, config, metrics)?;
                    #[cfg(feature = "grpc")]
                    if index == 0 {
                        channel = connected.channel;
                    }
                    connected.transport
                }
            });
        }
        let source: Option<Box<dyn RuleSource>> = match rules {
            Rules::None => None,
            Rules::File(path) => Some(Box::new(source::file::FileSource::new(path))),
            #[cfg(feature = "etcd")]
            Rules::Etcd(urls) => {
                let cache_dir = self.cache_dir();
                Some(Box::new(source::etcd::EtcdSource::new(urls, self.service.clone(), cache_dir)))
            }
            #[cfg(not(feature = "etcd"))]
            Rules::Etcd(_) => unreachable!("`rule_source` has refused it"),
            #[cfg(feature = "grpc")]
            Rules::Push => channel.map(|channel| {
                let cache_dir = self.cache_dir();
                let (service, instance) = (self.service.clone(), self.instance.clone());
                Box::new(source::push::PushSource::over(channel, service, instance, cache_dir)) as Box<dyn RuleSource>
            }),
            #[cfg(not(feature = "grpc"))]
            Rules::Push => None,
        };
        Ok(worker::Outside { transports, rules: source.map(|source| (source, self.reload)) })
    }

    /// Where the last good rules are kept; `None` when the process has no home.
    #[cfg(any(feature = "etcd", feature = "grpc"))]
    fn cache_dir(&self) -> Option<PathBuf> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.config.cache_dir.clone().or_else(|| {
            variable("XDG_CACHE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".cache")))
                .map(|dir| dir.join(CACHE_DIR))
        })
    }
}
