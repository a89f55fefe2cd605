//! Sends documents until each is stored or dead-lettered, however often it takes.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    Elasticsearch, Failed,
    body::{Body, Item, Part},
    bulk::{self, Answer, Judged},
    http,
    limit::{BYTES_MIN, Took},
    nodes::Sign,
    repeats,
    setup::SetUp,
    streams,
};
use crate::{index::Written, metrics::ItemResult, queue::Message};

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
    let payload: usize = messages.iter().map(|message| message.payload.len()).sum();
    // A little more than a request: two of them are sent where one and a bit would be.
    let bytes_max = elasticsearch.client.nodes.appetite().1.max(BYTES_MIN) / 4 * 5;
    let (lease, mut buffers) = elasticsearch.bodies.take(elasticsearch.growth.of(payload).min(bytes_max)).await;
    let mut written = Written::default();
    let (mut part, mut bytes) = (Some(Part::first(bytes_max)), 0);
    while let Some(wanted) = part {
        let body = streams::body(elasticsearch, set_up, messages, buffers, wanted).await;
        bytes += body.bytes.len();
        write_body(elasticsearch, set_up, messages, &body, &mut written).await;
        part = body.rest(bytes_max);
        buffers = body.into_buffers();
    }
    elasticsearch.growth.learn(payload, bytes);
    elasticsearch.bodies.give(lease, buffers);
    written
}

async fn write_body(
    elasticsearch: &Elasticsearch,
    set_up: SetUp,
    messages: &[Message],
    body: &Body<'_>,
    written: &mut Written,
) {
    let before = repeats::before(elasticsearch, set_up, body).await;
    let path = elasticsearch.bulk_path(set_up.layout);
    let mut writing = Writing { elasticsearch, messages, body, path, written, backoff: Backoff::default() };
    writing.written.dropped += body.dropped;
    writing.written.stored += before.stored.len() as u64;
    for (index, error) in &body.bad {
        let message = &messages[*index];
        writing.bury(message, None, "not_otlp", &error.to_string(), &message.payload).await;
    }
    let items = if before.stored.is_empty() {
        Items::Run(0..body.items.len())
    } else {
        elasticsearch.metrics.index_duplicates.inc_by(before.stored.len() as u64);
        Items::Some((0..body.items.len()).filter(|item| !before.stored.contains(item)).collect())
    };
    let mut work = VecDeque::from([items]);
    while let Some(items) = work.pop_front() {
        if !items.is_empty() {
            writing.send(items, &mut work).await;
        }
    }
    let doubles = repeats::after(elasticsearch, set_up, body, &before).await;
    elasticsearch.metrics.index_duplicates.inc_by(doubles);
    elasticsearch.trouble.over();
}

/// Indexes of documents in the body, ascending.
#[derive(Debug, Clone, PartialEq)]
enum Items {
    /// All of a range.
    Run(Range<usize>),
    /// Some, as answers have left them over.
    Some(Vec<usize>),
}

struct Writing<'a> {
    elasticsearch: &'a Elasticsearch,
    messages: &'a [Message],
    body: &'a Body<'a>,
    path: String,
    written: &'a mut Written,
    backoff: Backoff,
}

impl Writing<'_> {
    /// Sends some documents, once, and puts into `work` what has to be sent again.
    async fn send(&mut self, mut items: Items, work: &mut VecDeque<Items>) {
        let client = &self.elasticsearch.client;
        let metrics = &self.elasticsearch.metrics;
        // What a request may have can have changed since these were put together.
        if let Some(rest) = items.split_off(self.body, client.nodes.appetite().1) {
            work.push_front(rest);
        }
        let lines = items.lines(self.body);
        metrics.index_request_bytes.observe(lines.len() as f64);
        let sent = items.len();
        let (answer, after) = client.bulk(&self.path, lines, |answer| judge(answer, sent)).await;
        let failed = match answer {
            Answer::Judged(judged) => {
                let Some((again, failed)) = self.follow(&items, judged, after).await else {
                    self.elasticsearch.trouble.over();
                    return;
                };
                work.push_front(again);
                failed
            }
            Answer::Halve { reason, message } => {
                metrics.retried(reason);
                if sent == 1 {
                    return self.bury_item(items.get(0), reason, &message).await;
                }
                let rest = items.split_at(sent / 2);
                work.push_front(rest);
                work.push_front(items);
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
        // An index that was rolled over is closed to writes (see `repeats`): the next attempt goes to the new one. Should that be
        // closed as well, a person has done so.
        let failed = match failed {
            Failed::Stop { message } if self.backoff.failures == 0 && message.contains(repeats::CLOSED) => {
                Failed::retry("closed", message)
            }
            other => other,
        };
        metrics.retried(if let Failed::Retry { reason, .. } = failed { reason } else { "stopped" });
        if self.backoff.failures >= QUIET_FAILURES || matches!(failed, Failed::Stop { .. }) {
            self.elasticsearch.trouble.failed(&failed, "cannot write to the index");
        }
        // A node that failed is left out; as long as there are others, nothing speaks against asking them at once.
        let is_the_nodes = matches!(failed, Failed::Retry { reason, .. } if reason != "http_429");
        if is_the_nodes && client.nodes.has_others() && self.backoff.failures < QUIET_FAILURES {
            self.backoff.failures += 1;
        } else {
            self.backoff.wait(&failed).await;
        }
    }

    /// Deals with answers by document. Returns what is to be sent again, and why.
    async fn follow(&mut self, items: &Items, judged: Judged, after: Option<Duration>) -> Option<(Items, Failed)> {
        let metrics = &self.elasticsearch.metrics;
        self.written.stored += judged.stored as u64;
        metrics.index_duplicates.inc_by(judged.duplicates as u64);
        metrics.items(ItemResult::Created, judged.stored - judged.duplicates);
        metrics.items(ItemResult::Duplicate, judged.duplicates);
        metrics.items(ItemResult::Retry, judged.retry.len());
        metrics.items(ItemResult::Dead, judged.dead.len());
        metrics.items(ItemResult::Stopped, judged.stopped.len());
        if judged.stored + judged.dead.len() > 0 {
            self.backoff = Backoff::default();
        }
        for (index, reason) in &judged.dead {
            self.bury_item(items.get(*index), "refused", reason).await;
        }
        let failed = judged.stop.map(|message| Failed::Stop { message }).or_else(|| {
            let reason = judged.retry_reason?;
            let message = format!("{} of {} documents were refused for now", judged.retry.len(), items.len());
            Some(Failed::Retry { reason, message, after })
        })?;
        let mut again: Vec<usize> = judged.retry.iter().chain(&judged.stopped).map(|&at| items.get(at)).collect();
        again.sort_unstable();
        Some((Items::Some(again), failed))
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

/// What an answer means for the documents, for the node's limits and for the node.
fn judge(answer: Result<http::Answer, Failed>, documents: usize) -> ((Answer, Option<Duration>), Option<Took>, Sign) {
    let (answer, after) = match answer {
        Ok(answer) => (bulk::judge(answer.status, &answer.body, documents), answer.retry_after),
        Err(Failed::Retry { reason, message, after }) => (Answer::Retry { reason, message }, after),
        Err(Failed::Stop { message } | Failed::BadRequest { message }) => (Answer::Stop { message }, None),
    };
    let (took, sign) = match &answer {
        Answer::Judged(judged) if judged.retry_reason.is_some() => (Some(Took::Refused), Sign::Well),
        Answer::Judged(judged) if judged.stop.is_none() => (Some(Took::All), Sign::Well),
        Answer::Halve { reason: "too_large", .. } => (Some(Took::TooLarge), Sign::Well),
        Answer::Retry { reason: "http_429", .. } => (Some(Took::Refused), Sign::Well),
        Answer::Retry { reason: "timeout", .. } => (Some(Took::Lost), Sign::Failed),
        // The pause that the node gets is enough.
        Answer::Retry { .. } => (None, Sign::Failed),
        Answer::Judged(_) | Answer::Halve { .. } | Answer::Stop { .. } => (None, Sign::Well),
    };
    ((answer, after), took, sign)
}

// === impl Items ===

impl Items {
    fn len(&self) -> usize {
        match self {
            Self::Run(run) => run.len(),
            Self::Some(items) => items.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index in the body of the `at`-th of them.
    fn get(&self, at: usize) -> usize {
        match self {
            Self::Run(run) => run.start + at,
            Self::Some(items) => items[at],
        }
    }

    /// Keeps the first `at` and returns the others.
    fn split_at(&mut self, at: usize) -> Self {
        match self {
            Self::Run(run) => {
                let rest = run.start + at..run.end;
                run.end = rest.start;
                Self::Run(rest)
            }
            Self::Some(items) => Self::Some(items.split_off(at)),
        }
    }

    /// Keeps as many as `bytes_max` takes, one at least; returns the others when there are any.
    fn split_off(&mut self, body: &Body<'_>, bytes_max: usize) -> Option<Self> {
        if let Self::Run(run) = self
            && let [first, .., last] = &body.items[run.clone()]
            && last.lines.end - first.lines.start <= bytes_max
        {
            return None;
        }
        let mut bytes = 0;
        let over = (0..self.len()).find(|&at| {
            bytes += body.items[self.get(at)].lines.len();
            at > 0 && bytes > bytes_max
        })?;
        Some(self.split_at(over))
    }

    /// Their lines; without a copy when they follow one another.
    fn lines(&self, body: &Body<'_>) -> Bytes {
        match self {
            Self::Run(run) if run.is_empty() => Bytes::new(),
            Self::Run(run) => body.bytes.slice(body.items[run.start].lines.start..body.items[run.end - 1].lines.end),
            Self::Some(items) => body.lines(items),
        }
    }
}

/// How many bytes of body a byte of payload becomes: what recent ones say, the larger counting more.
#[derive(Debug)]
pub(super) struct Growth {
    /// In thousandths.
    factor: AtomicU32,
}

impl Default for Growth {
    fn default() -> Self {
        // What the JSON of a usual service's records takes.
        Self { factor: AtomicU32::new(2_500) }
    }
}

impl Growth {
    /// The body to expect of so much payload.
    pub(super) fn of(&self, payload: usize) -> usize {
        payload.saturating_mul(self.factor.load(Relaxed) as usize) / 1_000
    }

    /// The payload whose body has so many bytes.
    pub(super) fn payload(&self, body: usize) -> usize {
        body.saturating_mul(1_000) / self.factor.load(Relaxed) as usize
    }

    fn learn(&self, payload: usize, body: usize) {
        // Small ones are mostly resource.
        if payload < 16 << 10 {
            return;
        }
        let seen = u32::try_from(body.saturating_mul(1_000) / payload).unwrap_or(u32::MAX).clamp(500, 100_000);
        let last = self.factor.load(Relaxed);
        let next = if seen > last { seen } else { last - (last - seen).div_ceil(16) };
        // Two that learn at once: one of them is forgotten.
        self.factor.store(next, Relaxed);
    }
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
