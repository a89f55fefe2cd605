//! Where rules come from: a file, etcd, or the server that takes the events.
//!
//! A source hands over documents; [`crate::reload`] judges them. Sources reconnect by themselves and for ever: a source
//! that is down changes nothing for a running process.

#[cfg(any(feature = "etcd", feature = "grpc"))]
mod cache;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod file;
#[cfg(any(feature = "etcd", feature = "grpc"))]
mod follower;
#[cfg(feature = "grpc")]
pub mod push;

use std::{future::Future, pin::Pin, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

#[cfg(any(feature = "etcd", feature = "grpc"))]
use self::{cache::Cache, follower::Follower};
use crate::{filter::rules::Document, reload::Reload};

/// Feeds rules to a process until it is told to stop.
pub trait RuleSource: Send {
    /// Runs until `stop` turns true or its sender is gone.
    fn run(
        self: Box<Self>,
        reload: Arc<Reload>,
        stop: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The documents of one revision, as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Documents {
    /// The source's name for them.
    pub revision: String,
    /// For every service; none when there is no such document.
    pub global: Option<String>,
    /// For this service, asked after the global one.
    pub service: Option<String>,
}

impl Documents {
    /// Checks them and puts them in force, both or none.
    ///
    /// # Errors
    /// What is wrong, with line and column. The rules in force stay, and the status says why.
    pub fn apply(&self, reload: &Reload) -> Result<(), String> {
        let mut documents = Vec::with_capacity(2);
        for (scope, text) in [("global", &self.global), ("service", &self.service)] {
            let Some(text) = text else { continue };
            match Document::parse(text) {
                Ok(document) => documents.push(document),
                Err(error) => {
                    let error = format!("{scope} {error}");
                    reload.refuse(&self.revision, &error);
                    return Err(error);
                }
            }
        }
        reload.apply(&documents, &self.revision).map_err(|error| error.to_string())
    }
}

/// Waits longer after each failure in a row; a little by chance, so that a thousand processes do not come back as one.
#[cfg(any(feature = "etcd", feature = "grpc"))]
struct Pause {
    next: std::time::Duration,
    first: std::time::Duration,
    max: std::time::Duration,
}

#[cfg(any(feature = "etcd", feature = "grpc"))]
impl Pause {
    fn new(first: std::time::Duration, max: std::time::Duration) -> Self {
        Self { next: first, first, max }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    async fn wait(&mut self) {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.max);
        tokio::time::sleep(pause).await;
    }
}

/// Resolves when the source is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
