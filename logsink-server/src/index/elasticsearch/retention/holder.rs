//! Which of several processes looks after the indices: the one that etcd has elected, by a lease and a campaign.
//!
//! A process that dies or is cut off loses its lease after [`LEASE`], and the next one in the queue is elected. One that stood
//! still and does not know yet that it lost it stops by its own clock, some seconds earlier: [`Holder::still_holds`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper};
use logsink::source::etcd::connect;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// A process that is gone is missed for so long: nothing about retention is urgent.
const LEASE: Duration = Duration::from_secs(15);
/// The lease is renewed three times in its length.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// For each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// By so much a holder gives up before its lease ends: clocks' rates differ by far less, and one request takes that long.
const MARGIN: Duration = Duration::from_secs(4);
/// Between attempts while etcd is away.
const PAUSE: Duration = Duration::from_secs(3);

/// This process's place among those that look after the indices.
pub(super) struct Holder {
    /// None: alone, or without etcd.
    election: Option<Election>,
}

struct Election {
    /// Until when this process is the one; none while it is not.
    held_until: Arc<Mutex<Held>>,
    task: JoinHandle<()>,
    endpoints: Vec<String>,
}

#[derive(Default)]
struct Held {
    until: Option<Instant>,
    lease: Option<i64>,
}

impl Holder {
    pub(super) fn new(endpoints: Vec<String>, stream: &str) -> Self {
        if endpoints.is_empty() {
            return Self { election: None };
        }
        let held_until = Arc::<Mutex<Held>>::default();
        let name = format!("/logsink/retention/{stream}");
        let task = tokio::spawn(stand(endpoints.clone(), name, Arc::clone(&held_until)));
        Self { election: Some(Election { held_until, task, endpoints }) }
    }

    /// Whether this process is the one now; where it is not, after a moment, so that a caller may ask in a loop.
    pub(super) async fn holds(&self) -> bool {
        let first = self.still_holds();
        if !first {
            sleep(Duration::from_millis(500)).await;
        }
        self.still_holds()
    }

    pub(super) fn still_holds(&self) -> bool {
        self.election
            .as_ref()
            .is_none_or(|election| lock(&election.held_until).until.is_some_and(|until| Instant::now() < until))
    }

    /// Lets another process be elected at once.
    pub(super) async fn resign(&mut self) {
        let Some(election) = self.election.take() else { return };
        election.task.abort();
        let Some(lease) = lock(&election.held_until).lease.take() else { return };
        let revoke = async { connect(&election.endpoints).await.ok()?.lease_revoke(lease).await.ok() };
        // Without an answer the lease ends by itself.
        let _ = timeout(ANSWER_WITHIN, revoke).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(held: &Mutex<Held>) -> std::sync::MutexGuard<'_, Held> {
    // Plain data, whole after every statement.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for election for ever.
async fn stand(endpoints: Vec<String>, name: String, held: Arc<Mutex<Held>>) {
    let mut told = false;
    loop {
        let error = match term(&endpoints, &name, &held).await {
            Ok(()) => "the lease has ended".to_owned(),
            Err(error) => error,
        };
        let was_elected = lock(&held).until.take().is_some();
        if was_elected || !told {
            told = true;
            tracing::info!(reason = %error, "another process may look after old indices, or none while etcd is away");
        }
        sleep(PAUSE).await;
    }
}

/// Stands for election once, and holds the office while the lease can be renewed.
async fn term(endpoints: &[String], name: &str, held: &Mutex<Held>) -> Result<(), String> {
    let mut client = connect(endpoints).await?;
    let granted = answer(client.lease_grant(LEASE.as_secs() as i64, None)).await?;
    let lease = granted.id();
    lock(held).lease = Some(lease);
    let (mut keeper, mut kept) = answer(client.lease_keep_alive(lease)).await?;
    let value = format!("{}:{}", hostname(), std::process::id());
    let elected = {
        let campaign = campaign(client.clone(), name.to_owned(), value, lease);
        tokio::pin!(campaign);
        loop {
            // The lease is kept while others are in office: it is this process's place in the queue.
            let renewed_from = Instant::now();
            renew(&mut keeper, &mut kept).await?;
            tokio::select! {
                elected = &mut campaign => {
                    elected?;
                    break renewed_from;
                }
                () = sleep(RENEW_EVERY) => {}
            }
        }
    };
    lock(held).until = Some(elected + LEASE - MARGIN);
    tracing::info!("this process looks after old indices");
    loop {
        let from = Instant::now();
        renew(&mut keeper, &mut kept).await?;
        lock(held).until = Some(from + LEASE - MARGIN);
        sleep(RENEW_EVERY).await;
    }
}

async fn campaign(mut client: Client, name: String, value: String, lease: i64) -> Result<(), String> {
    client.campaign(name, value, lease).await.map(drop).map_err(|error| error.to_string())
}

async fn renew(keeper: &mut LeaseKeeper, kept: &mut LeaseKeepAliveStream) -> Result<(), String> {
    answer(keeper.keep_alive()).await?;
    match answer(kept.message()).await? {
        Some(kept) if kept.ttl() > 0 => Ok(()),
        _ => Err("the lease has ended".into()),
    }
}

async fn answer<T>(call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, call).await {
        Ok(answer) => answer.map_err(|error| format!("etcd: {error}")),
        Err(_) => Err(format!("etcd did not answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}

/// For people who look into etcd.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}
