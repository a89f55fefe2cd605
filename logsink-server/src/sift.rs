//! The server's rules, applied to what a sender has not applied any to itself: at the drain, or before, at ingest.
//!
//! At the drain a dropped record is marked, not cut out, so that the ids of the others stay what they are when the message is read again
//! under other rules; at ingest it is cut out. The message says which rules it has been sifted by, so that they are not applied again: a
//! record that no index takes has passed a limit or a window, and passes it when it is sent again from the dead letters. The payload is copied only when a rule
//! changes something in a record, or takes one away. The base filter counts only where a document has one: without it, what
//! other senders send is kept whatever its level. How many repeats a `dedup` rule has dropped is told by the next record that passes;
//! the server adds no records of its own.

mod ahead;
mod rewrite;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use logsink::{
    Severity,
    filter::{
        Fate,
        rules::{Document, Matched, RuleSet},
    },
};
use tokio::sync::watch;

pub use self::ahead::Unread;
use self::rewrite::Change;
use crate::{
    control::{SERVICE_BYTES_MAX, Snapshot},
    metrics::Metrics,
    otlp::{self, Limits, WireError},
    queue::Message,
};

/// Services whose compiled rules are kept: more than a server sees, unless a sender makes names up.
const SERVICES_MAX: usize = 10_000;

/// Applies the rules in force to messages.
pub struct Sift {
    rules: watch::Receiver<Option<Arc<Snapshot>>>,
    compiled: Arc<Mutex<Compiled>>,
    metrics: Arc<Metrics>,
}

/// Rules compiled from one snapshot, service by service as they are met.
#[derive(Default)]
struct Compiled {
    snapshot: Option<Arc<Snapshot>>,
    /// The document for all services, read once for all that there are.
    global: Option<Arc<Document>>,
    /// By names of [`SERVICE_BYTES_MAX`] bytes at most. A longer one may be as long as a message: rules for it are compiled for each
    /// message, so that their limits and windows begin anew. A document of its own is not taken for such a service.
    sets: HashMap<String, Option<Arc<Applied>>>,
}

/// The rules of a service, which count what they match, and what they dropped, rule by rule. When the last one lets go of them, the
/// metrics get what they have not been shown.
struct Applied {
    rules: RuleSet,
    counts: Box<[Count]>,
    metrics: Arc<Metrics>,
}

/// What one rule has counted.
#[derive(Default)]
struct Count {
    dropped: AtomicU64,
    /// What the metrics have of it already.
    matched_shown: AtomicU64,
    dropped_shown: AtomicU64,
}

/// What the rules want of a request.
#[derive(Default)]
struct Judged<'p> {
    /// Records that it has.
    records: u32,
    /// Indexes, ascending.
    dropped: Vec<u32>,
    changes: Vec<Wanted>,
    /// The first service to which rules were applied.
    service: Option<&'p str>,
}

/// What the rules want changed in one record.
struct Wanted {
    index: u32,
    level: Option<Severity>,
    repeated: u64,
    applied: Arc<Applied>,
    edits: Matched,
}

impl Wanted {
    fn change(&self) -> Change<'_> {
        let Self { index, level, repeated, applied, edits } = self;
        Change { index: *index, level: *level, repeated: *repeated, edits: applied.rules.edits(*edits) }
    }
}

impl Judged<'_> {
    /// The request as the rules want it, without the records in `removed`; none when it is that already.
    fn edited(&self, payload: &[u8], removed: &[u32]) -> Result<Option<Bytes>, WireError> {
        if self.changes.is_empty() && removed.is_empty() {
            return Ok(None);
        }
        let changes: Vec<_> = self.changes.iter().map(Wanted::change).collect();
        Ok(Some(rewrite::rewrite(payload, &changes, removed)?.into()))
    }
}

impl Sift {
    /// Applies what this shows, from the next message after a change on.
    pub fn new(rules: watch::Receiver<Option<Arc<Snapshot>>>, metrics: Arc<Metrics>) -> Self {
        let compiled = Arc::<Mutex<Compiled>>::default();
        // Weak: the metrics must not keep the rules.
        let counting = Arc::downgrade(&compiled);
        metrics.ask_before_showing(move |_| {
            if let Some(compiled) = counting.upgrade() {
                lock(&compiled).show();
            }
        });
        Self { rules, compiled, metrics }
    }

    /// At the drain: the message with its dropped records marked, redacted where rules say so, and with the revision of the rules
    /// that judged it. What is not OTLP goes on as it is: the index knows what to do with it.
    pub fn sift(&self, mut message: Message) -> Message {
        if message.headers.rules.is_some() {
            return message;
        }
        let Some(snapshot) = self.in_force().filter(|snapshot| !snapshot.documents.is_empty()) else { return message };
        // What is not OTLP is told by looking at all of it.
        let concern = otlp::any_resource(&message.payload, |resource| snapshot.concerns(resource.service));
        if !concern.unwrap_or(true) {
            return message;
        }
        if otlp::check(&message.payload, &Limits::UNLIMITED).is_err() {
            return message;
        }
        let Ok(judged) = self.judge(&snapshot, &message.payload) else { return message };
        let revision = judged.service.map(|service| snapshot.revision(service));
        let edited = judged.edited(&message.payload, &[]);
        let Judged { mut dropped, changes, .. } = judged;
        match edited {
            Ok(Some(payload)) => message.payload = payload,
            Ok(None) => {}
            // It was checked a moment ago. If it happens all the same, what should be redacted must not go on.
            Err(error) => {
                tracing::error!(%error, "cannot rewrite a checked message: its records that rules change are dropped");
                dropped.extend(changes.iter().map(|change| change.index));
                dropped.sort_unstable();
            }
        }
        message.dropped = dropped;
        message.headers.rules = revision;
        message
    }

    /// None until they have been read.
    fn in_force(&self) -> Option<Arc<Snapshot>> {
        self.rules.borrow().clone()
    }

    /// What the rules want of each record of a request, which was checked.
    fn judge<'p>(&self, snapshot: &Arc<Snapshot>, payload: &'p [u8]) -> Result<Judged<'p>, WireError> {
        let now_ns = now_ns();
        let mut judged = Judged::default();
        // Records of one service follow one another.
        let mut last: Option<(&str, Option<Arc<Applied>>)> = None;
        otlp::walk(payload, &mut |record| {
            judged.records += 1;
            let service = record.resource.service;
            if last.as_ref().is_none_or(|(name, _)| *name != service) {
                last = Some((service, self.rules_for(snapshot, service)));
            }
            let Some((_, Some(applied))) = &last else { return };
            judged.service.get_or_insert(service);
            let verdict = applied.rules.decide(&record, now_ns);
            match verdict.fate {
                Fate::Keep if !verdict.changes() => {}
                Fate::Keep => judged.changes.push(Wanted {
                    index: record.index,
                    level: verdict.level,
                    repeated: verdict.repeated,
                    applied: applied.clone(),
                    edits: verdict.edits.matched(),
                }),
                Fate::DropByFilter => {
                    self.metrics.filter_dropped.inc();
                    judged.dropped.push(record.index);
                }
                Fate::DropByRule(rule) => {
                    if let Some(count) = applied.counts.get(usize::from(rule)) {
                        count.dropped.fetch_add(1, Relaxed);
                    }
                    judged.dropped.push(record.index);
                }
            }
        })?;
        Ok(judged)
    }

    fn rules_for(&self, snapshot: &Arc<Snapshot>, service: &str) -> Option<Arc<Applied>> {
        if !snapshot.concerns(service) {
            return None;
        }
        let is_kept = service.len() <= SERVICE_BYTES_MAX;
        // Who began with rules that are no longer in force must not take the place of those that are.
        let is_in_force = self.in_force().is_some_and(|latest| Arc::ptr_eq(&latest, snapshot));
        let global = if is_in_force {
            let mut compiled = lock(&self.compiled);
            compiled.follow(snapshot);
            if is_kept && let Some(known) = compiled.sets.get(service) {
                return known.clone();
            }
            compiled.global.clone()
        } else {
            snapshot.global().map(Arc::new)
        };
        // It takes a while, and others are not kept waiting for it.
        let set = match snapshot.compile_open(global.as_deref(), service) {
            Ok(rules) => Some(Arc::new(Applied::new(rules, Arc::clone(&self.metrics)))),
            Err(error) => {
                tracing::warn!(service, %error, "rules that do not fit together are not applied");
                None
            }
        };
        if !is_kept {
            return set;
        }
        let mut compiled = lock(&self.compiled);
        if !compiled.is_of(snapshot) {
            return set;
        }
        // Someone may have been faster: then the limits and windows that count already are theirs.
        compiled.sets.entry(service.to_owned()).or_insert(set).clone()
    }
}

impl Compiled {
    fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        self.snapshot.as_ref().is_some_and(|current| Arc::ptr_eq(current, snapshot))
    }

    /// Begins anew with another snapshot, and when there are too many sets.
    fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        if !self.is_of(snapshot) || self.sets.len() >= SERVICES_MAX {
            let global = snapshot.global().map(Arc::new);
            *self = Self { snapshot: Some(Arc::clone(snapshot)), global, sets: HashMap::new() };
        }
    }

    /// Brings the metrics up to what the rules have counted.
    fn show(&self) {
        self.sets.values().flatten().for_each(|applied| applied.show());
    }
}

impl Applied {
    fn new(rules: RuleSet, metrics: Arc<Metrics>) -> Self {
        let counts = rules.rules().iter().map(|_| Count::default()).collect();
        Self { rules, counts, metrics }
    }

    /// One at a time: under the lock of the sets, or at the end.
    fn show(&self) {
        for (rule, count) in self.rules.rules().iter().zip(&self.counts) {
            let more = |now: u64, shown: &AtomicU64| now - shown.swap(now, Relaxed);
            let matched = more(rule.matched(), &count.matched_shown);
            let dropped = more(count.dropped.load(Relaxed), &count.dropped_shown);
            if (matched, dropped) != (0, 0) {
                self.metrics.ruled(rule.name(), matched, dropped);
            }
        }
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        self.show();
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn lock(compiled: &Mutex<Compiled>) -> MutexGuard<'_, Compiled> {
    // A panic elsewhere leaves a whole map.
    compiled.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
