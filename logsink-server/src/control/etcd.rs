//! Rules in etcd, under the keys that the library's own etcd source reads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use etcd_client::{Txn, TxnOp};
use logsink::source::etcd::{GLOBAL_KEY, PREFIX, Range, Reading, Readings, SERVICE_PREFIX, connect};
use tokio::{sync::watch, time::timeout};

use super::{ControlError, RuleStore, Scope, Snapshot, Stored, Task};
use crate::queue::BoxFuture;

/// How long a write waits for the watch to show it: a watch lags by milliseconds.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// For the answer that readiness waits for.
const ANSWERED_WITHIN: Duration = Duration::from_millis(700);
/// For the write itself.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);

/// Keeps the documents in etcd.
pub struct EtcdStore {
    endpoints: Vec<String>,
    snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    /// etcd's revision of what `snapshot` shows.
    read: watch::Receiver<i64>,
    _task: Task,
}

impl EtcdStore {
    /// A store in the etcd at these URLs. Does not wait for it: a task of the current runtime connects, and comes back after
    /// every outage. Until the first contact the snapshot is none.
    pub fn start(endpoints: Vec<String>) -> Self {
        let snapshot = watch::Sender::new(None);
        let (reading, read) = watch::channel(0);
        let (show, mut readings) =
            (snapshot.clone(), Readings::new(endpoints.clone(), Range::Prefix(PREFIX.to_owned())));
        let task = tokio::spawn(async move {
            let mut warned = BTreeMap::new();
            loop {
                let found = readings.next().await;
                let revision = found.revision;
                let before: Option<Arc<Snapshot>> = show.borrow().clone();
                let next = before.as_deref().cloned().unwrap_or_default().advance(documents(found), &mut warned);
                if before.as_deref() != Some(&next) {
                    show.send_replace(Some(Arc::new(next)));
                }
                reading.send_replace(revision);
            }
        });
        Self { endpoints, snapshot, read, _task: Task(task) }
    }
}

impl RuleStore for EtcdStore {
    fn write<'a>(&'a self, scope: &'a Scope, text: Option<String>) -> BoxFuture<'a, Result<String, ControlError>> {
        Box::pin(async move {
            let (revision, written) = write(&self.endpoints, scope, text).await?;
            // A watch that lags or is broken shows it later: it is written all the same.
            let mut read = self.read.clone();
            let _ = timeout(SHOWN_WITHIN, read.wait_for(|read| *read >= revision)).await;
            Ok(written)
        })
    }

    fn watch(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshot.subscribe()
    }
}

/// Writes a checked document, or removes it, in one transaction. Answers with etcd's revision, and the document's.
pub(crate) async fn write(
    endpoints: &[String],
    scope: &Scope,
    text: Option<String>,
) -> Result<(i64, String), ControlError> {
    let removal = text.is_none();
    let operation = match text {
        Some(text) => TxnOp::put(key(scope), text, None),
        None => TxnOp::delete(key(scope), None),
    };
    let mut client = connect(endpoints).await.map_err(ControlError::Unavailable)?;
    let answer = timeout(WRITTEN_WITHIN, client.txn(Txn::new().and_then([operation]))).await;
    let answer = answer
        .map_err(|_| ControlError::Unavailable(format!("etcd did not answer within {} s", WRITTEN_WITHIN.as_secs())))?
        .map_err(|error| match error {
            etcd_client::Error::GRpcStatus(status) => ControlError::Unavailable(format!("etcd: {}", status.message())),
            other => ControlError::Unavailable(format!("etcd: {other}")),
        })?;
    let revision = answer.header().map_or(0, |header| header.revision());
    Ok((revision, if removal { String::new() } else { revision.to_string() }))
}

/// Asks a member for a key, within readiness's time.
///
/// # Errors
/// Why there was no answer.
pub async fn answers(endpoints: &[String]) -> Result<(), String> {
    let asked = async {
        let mut client = connect(endpoints).await?;
        client.get(GLOBAL_KEY, None).await.map_err(|error| match error {
            etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
            other => other.to_string(),
        })
    };
    let away = |why: String| format!("etcd at {} does not answer: {why}", endpoints.join(","));
    match timeout(ANSWERED_WITHIN, asked).await {
        Ok(answer) => answer.map(drop).map_err(away),
        Err(_) => Err(away(format!("nothing within {} ms", ANSWERED_WITHIN.as_millis()))),
    }
}

/// Reads all documents once, good or not.
pub(crate) async fn read(endpoints: &[String]) -> Result<BTreeMap<Scope, Stored>, ControlError> {
    let mut readings = Readings::new(endpoints.to_vec(), Range::Prefix(PREFIX.to_owned()));
    match timeout(WRITTEN_WITHIN, readings.next()).await {
        Ok(reading) => Ok(documents(reading)),
        Err(_) => Err(ControlError::Unavailable(format!("etcd at {} does not answer", endpoints.join(",")))),
    }
}

fn key(scope: &Scope) -> String {
    match scope {
        Scope::Global => GLOBAL_KEY.to_owned(),
        Scope::Service(name) => format!("{SERVICE_PREFIX}{name}"),
    }
}

fn documents(reading: Reading) -> BTreeMap<Scope, Stored> {
    let scope = |key: &str| match key.strip_prefix(SERVICE_PREFIX) {
        Some("") => None,
        Some(name) => Some(Scope::Service(name.to_owned())),
        None => (key == GLOBAL_KEY).then_some(Scope::Global),
    };
    let stored = |(key, entry): (String, logsink::source::etcd::Entry)| {
        // What is not UTF-8 is a broken document: the parser meets the replacement characters.
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        Some((scope(&key)?, Stored { text, revision: entry.revision.to_string() }))
    };
    reading.entries.into_iter().filter_map(stored).collect()
}
