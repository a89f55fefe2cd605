//! Sends documents until each is stored or dead-lettered, however often it takes.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use elasticsearch::http::Method;
use tokio::time::{Instant, sleep};

use super::{
    Elasticsearch, Failed,
    body::{Body, Item},
    bulk::{self, Answer},
    repeats,
    setup::SetUp,
    streams,
};
use crate::{index::Written, queue::Message};

/// Bytes of one `_bulk` request: where Elasticsearch's throughput is flat, and a twelfth of what it takes by default.
const BULK_BYTES_MAX: usize = 8 << 20;
/// The first pause after an answer such as 429; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause while the cluster is away.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The pause while a person has to act: they should see it taken up while still looking.
const STOPPED_PAUSE: Duration = Duration::from_secs(5);
/// Failures in a row after which the trouble is worth a word: a full queue of the cluster passes sooner.
const QUIET_FAILURES: u32 = 3;
/// How often a lasting trouble is logged again.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// Writes the records of `messages`. Ends only when all of them are dealt with.
pub(super) async fn write(elasticsearch: &Elasticsearch, set_up: SetUp, messages: &[Message]) -> Written {
    let body = streams::body(elasticsearch, set_up, messages).await;
    let before = repeats::before(elasticsearch, set_up, &body).await;
    let mut writing = Writing {
        elasticsearch,
        messages,
        body: &body,
        path: elasticsearch.bulk_path(set_up.layout),
        written: Written { dropped: body.dropped, stored: before.stored.len() as u64, ..Written::default() },
        backoff: Backoff::default(),
    };
    for (index, error) in &body.bad {
        let message = &messages[*index];
        writing.bury(message, None, "not_otlp", &error.to_string(), &message.payload).await;
    }
    let mut work = requests(&body.items);
    if !before.stored.is_empty() {
        elasticsearch.metrics.index_duplicates.inc_by(before.stored.len() as u64);
        work.iter_mut().for_each(|items| items.retain(|item| !before.stored.contains(item)));
        work.retain(|items| !items.is_empty());
    }
    while let Some(items) = work.pop_front() {
        writing.send(items, &mut work).await;
    }
    let doubles = repeats::after(elasticsearch, set_up, &body, &before).await;
    elasticsearch.metrics.index_duplicates.inc_by(doubles);
    elasticsearch.trouble.over();
    writing.written
}

struct Writing<'a> {
    elasticsearch: &'a Elasticsearch,
    messages: &'a [Message],
    body: &'a Body<'a>,
    path: String,
    written: Written,
    backoff: Backoff,
}

impl Writing<'_> {
    /// Sends some items, once, and puts into `work` what has to be sent again.
    async fn send(&mut self, items: Vec<usize>, work: &mut VecDeque<Vec<usize>>) {
        let metrics = &self.elasticsearch.metrics;
        let query = [("filter_path", bulk::FILTER_PATH)];
        let lines = self.body.lines(&items);
        let client = &self.elasticsearch.client;
        let answer = client.call(Method::Post, &self.path, &query, Some(lines), "application/x-ndjson", None).await;
        let (answer, after) = match answer {
            Ok(answer) => (bulk::judge(answer.status, &answer.body, items.len()), answer.retry_after),
            Err(Failed::Retry { reason, message, after }) => (Answer::Retry { reason, message }, after),
            Err(Failed::Stop { message } | Failed::BadRequest { message }) => (Answer::Stop { message }, None),
        };
        let failed = match answer {
            Answer::Judged(judged) => {
                self.written.stored += judged.stored as u64;
                metrics.index_duplicates.inc_by(judged.duplicates as u64);
                if judged.stored + judged.dead.len() > 0 {
                    self.backoff = Backoff::default();
                }
                for (index, reason) in &judged.dead {
                    self.bury_item(items[*index], "refused", reason).await;
                }
                let failed = judged.stop.map(|message| Failed::Stop { message }).or_else(|| {
                    let reason = judged.retry_reason?;
                    let message = format!("{} of {} documents were refused for now", judged.retry.len(), items.len());
                    Some(Failed::Retry { reason, message, after })
                });
                let Some(failed) = failed else {
                    self.elasticsearch.trouble.over();
                    return;
                };
                let mut again: Vec<usize> = judged.retry.iter().chain(&judged.stopped).map(|&at| items[at]).collect();
                again.sort_unstable();
                work.push_front(again);
                failed
            }
            Answer::Halve { reason, message } => {
                metrics.retried(reason);
                match &items[..] {
                    [only] => self.bury_item(*only, reason, &message).await,
                    _ => {
                        let (first, second) = items.split_at(items.len() / 2);
                        work.push_front(second.to_vec());
                        work.push_front(first.to_vec());
                    }
                }
                return;
            }
            Answer::Retry { reason, message } => {
                work.push_front(items);
                Failed::Retry { reason, message, after }
            }
            Answer::Stop { message } => {
                work.push_front(items);
                Failed::Stop { message }
            }
        };
        metrics.retried(if let Failed::Retry { reason, .. } = failed { reason } else { "stopped" });
        if self.backoff.failures >= QUIET_FAILURES || matches!(failed, Failed::Stop { .. }) {
            self.elasticsearch.trouble.failed(&failed, "cannot write to the index");
        }
        self.backoff.wait(&failed).await;
    }

    async fn bury_item(&mut self, item: usize, kind: &'static str, reason: &str) {
        let body = self.body;
        let Item { message, record, raw, .. } = &body.items[item];
        let messages = self.messages;
        self.bury(&messages[*message], Some(*record), kind, reason, raw).await;
    }

    /// Puts a record among the dead letters, however often it takes: it must not be lost and not hold back the others.
    async fn bury(&mut self, message: &Message, record: Option<u32>, kind: &'static str, reason: &str, bytes: &[u8]) {
        let reason = format!("{kind}: {reason}");
        let mut backoff = Backoff::default();
        while let Err(error) = self.elasticsearch.dead.put(message, record, &reason, bytes).await {
            let failed = Failed::retry("dead_letters", error.to_string());
            self.elasticsearch.metrics.retried("dead_letters");
            self.elasticsearch.trouble.failed(&failed, "cannot write to the dead letters");
            backoff.wait(&failed).await;
        }
        self.elasticsearch.metrics.dead(kind, 1);
        self.written.dead += 1;
        let at = message.position;
        tracing::warn!(partition = at.partition, offset = at.offset, ?record, %reason, "put a record among the dead letters");
    }
}

/// Runs of items, each within [`BULK_BYTES_MAX`] or of one item.
fn requests(items: &[Item<'_>]) -> VecDeque<Vec<usize>> {
    let mut requests = VecDeque::new();
    let (mut request, mut bytes) = (Vec::new(), 0);
    for (index, item) in items.iter().enumerate() {
        if bytes > 0 && bytes + item.lines.len() > BULK_BYTES_MAX {
            requests.push_back(std::mem::take(&mut request));
            bytes = 0;
        }
        bytes += item.lines.len();
        request.push(index);
    }
    if !request.is_empty() {
        requests.push_back(request);
    }
    requests
}

/// Pauses that grow with each failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before the next attempt.
    fn next(&mut self, failed: &Failed) -> Duration {
        let growing = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures += 1;
        let (pause, least) = match failed {
            Failed::Retry { after, .. } => (growing, after.unwrap_or_default()),
            Failed::Stop { .. } | Failed::BadRequest { .. } => (STOPPED_PAUSE, Duration::ZERO),
        };
        // Several writes do not come back all at once.
        pause.mul_f64(0.5 + 0.5 * fastrand::f64()).max(least)
    }

    pub(super) async fn wait(&mut self, failed: &Failed) {
        sleep(self.next(failed)).await;
    }
}

/// What keeps writes from going on, for people: logged when it begins and every minute, shown by the readiness check.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<(String, Instant)>>);

impl Trouble {
    pub(super) fn failed(&self, failed: &Failed, what: &str) {
        let message = format!("{what}: {}", failed.message());
        let mut trouble = self.lock();
        match &mut *trouble {
            Some((last, logged)) if *last == message && logged.elapsed() < REMIND_EVERY => return,
            _ => *trouble = Some((message.clone(), Instant::now())),
        }
        drop(trouble);
        match failed {
            Failed::Retry { .. } => tracing::warn!("{message}; retrying"),
            _ => tracing::error!("{message}; nothing is indexed until this is mended, the queue keeps the events"),
        }
    }

    pub(super) fn over(&self) {
        if self.lock().take().is_some() {
            tracing::info!("the index takes writes again");
        }
    }

    pub(super) fn message(&self) -> Option<String> {
        self.lock().as_ref().map(|(message, _)| message.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant)>> {
        // A panic while it is held leaves nothing half done.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
