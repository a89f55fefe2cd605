//! Where rules come from: a file, etcd, or the server that takes the events.
//!
//! A source hands over documents; [`crate::reload`] judges them. Sources reconnect by themselves and for ever: a source
//! that is down changes nothing for a running process.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;

use crate::reload::Reload;

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod file;
#[cfg(feature = "grpc")]
pub mod push;

/// Feeds rules to a process until it is told to stop.
pub trait RuleSource: Send {
    /// Runs until `stop` turns true or its sender is gone.
    fn run(
        self: Box<Self>,
        reload: Arc<Reload>,
        stop: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
