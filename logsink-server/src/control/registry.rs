//! This server in etcd's list of those that take events in, under a lease: the library finds it there (`etcd://…` as endpoint).
//!
//! A server that is killed is gone when its lease ends; one that stops removes itself before it closes its doors. While etcd is
//! away nothing changes but the list, and the server is in it again when etcd is back.

use std::{sync::Arc, time::Duration};

use etcd_client::{Client, PutOptions};
use logsink::{
    discovery::{Server, prefix, servers},
    source::etcd::{Range, Readings, connect},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::error::Error;

/// How long a server that was killed stays in the list. The library leaves it out by itself at the first failure, so that this
/// is for those that start meanwhile.
const LEASE_SECONDS: i64 = 10;
/// How often the lease is renewed: two may be lost.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// For each answer of etcd.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// After a failure; the lease is half over when it has been tried again a few times.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Leaving must not hold up the end: the lease does the same.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// The load is told in such steps: each change wakes every process that watches.
const LOAD_STEP: u8 = 25;

/// Answers with the share of the room for requests that is in use, in per cent.
pub type Load = Arc<dyn Fn() -> u8 + Send + Sync>;

/// An entry in the list, kept there by a task of the current runtime.
pub struct Registration {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Registration {
    /// Enters `server` under `id` into the list of `fleet`, now and whenever etcd is back.
    pub fn start(endpoints: Vec<String>, fleet: &str, id: &str, server: Server, load: Load) -> Self {
        let (stop, stopped) = watch::channel(false);
        let entry = Entry { endpoints, key: format!("{}{id}", prefix(fleet)), server, load };
        Self { stop, task: tokio::spawn(entry.run(stopped)) }
    }

    /// Removes the entry.
    pub async fn end(self) {
        self.stop.send_replace(true);
        if timeout(LEAVE_WITHIN, self.task).await.is_err() {
            tracing::info!("etcd did not answer in time: this server leaves its list with its lease");
        }
    }
}

struct Entry {
    endpoints: Vec<String>,
    key: String,
    server: Server,
    load: Load,
}

impl Entry {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut is_told = false;
        loop {
            let error = match self.stay(&mut stop, &mut is_told).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if !std::mem::replace(&mut is_told, true) {
                let etcd = self.endpoints.join(",");
                tracing::warn!(error, etcd, "not in etcd's list of servers: trying again until it works");
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_DELAY) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    /// Enters, and stays until it is stopped, which removes the entry, or something fails.
    async fn stay(&mut self, stop: &mut watch::Receiver<bool>, is_told: &mut bool) -> Result<(), String> {
        let mut client = connect(&self.endpoints).await?;
        let lease = within(client.lease_grant(LEASE_SECONDS, None)).await?.id();
        self.put(&mut client, lease).await?;
        let (mut keeper, mut answers) = within(client.lease_keep_alive(lease)).await?;
        *is_told = false;
        tracing::info!(key = self.key, grpc = self.server.grpc, "in etcd's list of servers");
        let mut tick = interval(RENEW_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = told(stop) => {
                    // Ends the entry with it.
                    within(client.lease_revoke(lease)).await?;
                    return Ok(());
                }
                _ = tick.tick() => {
                    within(keeper.keep_alive()).await?;
                    let answer = within(answers.message()).await?;
                    if answer.is_none_or(|answer| answer.ttl() <= 0) {
                        return Err("the lease has ended".into());
                    }
                    if self.load() != self.server.load_percent {
                        self.put(&mut client, lease).await?;
                    }
                }
            }
        }
    }

    async fn put(&mut self, client: &mut Client, lease: i64) -> Result<(), String> {
        self.server.load_percent = self.load();
        let options = PutOptions::new().with_lease(lease);
        within(client.put(self.key.as_str(), self.server.to_toml()?, Some(options))).await.map(drop)
    }

    fn load(&self) -> u8 {
        let load = (self.load)().min(100);
        load - load % LOAD_STEP
    }
}

/// The list, as etcd has it; the error says what is wrong with an entry.
///
/// # Errors
/// When etcd does not answer.
pub async fn list(endpoints: &[String], fleet: &str) -> Result<Vec<(String, Result<Server, String>)>, Error> {
    let prefix = prefix(fleet);
    let mut readings = Readings::new(endpoints.to_vec(), Range::Prefix(prefix.clone()));
    match timeout(ANSWER_WITHIN, readings.next()).await {
        Ok(reading) => Ok(servers(&reading, &prefix).into_iter().collect()),
        Err(_) => Err(Error::Failed(format!("etcd at {} does not answer", endpoints.join(",")))),
    }
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn within<T>(answer: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(etcd_client::Error::GRpcStatus(status))) => Err(status.message().to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}
