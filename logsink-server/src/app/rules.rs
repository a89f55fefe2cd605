//! Where the rules are kept: in etcd where there is one, else in a directory. The same for both modes.

use std::sync::Arc;

use super::data;
use crate::{
    config::Config,
    control::{RuleStore, etcd::EtcdStore, file::FileStore},
    error::Error,
};

pub(super) fn store(config: &Config) -> Result<Arc<dyn RuleStore>, Error> {
    if let Some(etcd) = &config.etcd {
        return Ok(Arc::new(EtcdStore::start(etcd.endpoints.clone())));
    }
    let dir = match &config.rules.dir {
        Some(dir) => dir.clone(),
        None => data::open(config)?.join("rules"),
    };
    let store =
        FileStore::open(&dir).map_err(|source| Error::File { action: "use the rules directory", path: dir, source })?;
    Ok(Arc::new(store))
}
