//! The server's rules, applied at the drain to messages whose sender has applied none itself.
//!
//! A dropped record is marked, not cut out, so that the ids of the others stay what they are when the message is read again
//! under other rules. The payload is copied only when a rule redacts or changes a level. The base filter counts only where a
//! document has one: without it, what other senders send is kept whatever its level.

mod rewrite;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use logsink::filter::{Fate, rules::RuleSet};
use tokio::sync::watch;

use self::rewrite::Change;
use crate::{control::Snapshot, otlp, queue::Message};

/// Services whose compiled rules are kept: more than a server sees, unless a sender makes names up.
const SERVICES_MAX: usize = 10_000;

/// Applies the rules in force to messages.
pub struct Sift {
    rules: watch::Receiver<Option<Arc<Snapshot>>>,
    compiled: Mutex<Compiled>,
}

/// Rules compiled from one snapshot, service by service as they are met.
#[derive(Default)]
struct Compiled {
    snapshot: Option<Arc<Snapshot>>,
    sets: HashMap<String, Option<Arc<RuleSet>>>,
}

impl Sift {
    /// Applies what this shows, from the next message after a change on.
    pub fn new(rules: watch::Receiver<Option<Arc<Snapshot>>>) -> Self {
        Self { rules, compiled: Mutex::default() }
    }

    /// The message with its dropped records marked, and redacted where rules say so. What is not OTLP goes on as it is: the
    /// index knows what to do with it.
    pub fn sift(&self, mut message: Message) -> Message {
        if message.headers.rules.is_some() {
            return message;
        }
        let snapshot = self.rules.borrow().clone();
        let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.documents.is_empty()) else { return message };
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let (mut dropped, mut changes) = (Vec::new(), Vec::new());
        // Records of one service follow one another.
        let mut last: Option<(&str, Option<Arc<RuleSet>>)> = None;
        let walked = otlp::for_each_record(&message.payload, &mut |record| {
            let service = record.resource.service;
            if last.as_ref().is_none_or(|(name, _)| *name != service) {
                last = Some((service, self.rules_for(&snapshot, service)));
            }
            let Some((_, Some(rules))) = &last else { return };
            let verdict = rules.decide(&record, now_ns);
            match verdict.fate {
                Fate::Keep if verdict.level.is_none() && verdict.redact.is_empty() => {}
                Fate::Keep => changes.push(Change {
                    index: record.index,
                    level: verdict.level,
                    redact: verdict.redact.fields().map(str::to_owned).collect(),
                }),
                Fate::DropByFilter | Fate::DropByRule(_) => dropped.push(record.index),
            }
        });
        if walked.is_err() {
            return message;
        }
        if !changes.is_empty() {
            match rewrite::rewrite(&message.payload, &changes) {
                Ok(payload) => message.payload = payload.into(),
                // The payload was checked a moment ago. If it happens all the same, what should be redacted must not go on.
                Err(error) => {
                    tracing::error!(%error, "cannot rewrite a checked message: its records that rules change are dropped");
                    dropped.extend(changes.iter().map(|change| change.index));
                    dropped.sort_unstable();
                }
            }
        }
        message.dropped = dropped;
        message
    }

    fn rules_for(&self, snapshot: &Arc<Snapshot>, service: &str) -> Option<Arc<RuleSet>> {
        if !snapshot.concerns(service) {
            return None;
        }
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let current = compiled.snapshot.as_ref().is_some_and(|current| Arc::ptr_eq(current, snapshot));
        if !current || compiled.sets.len() >= SERVICES_MAX {
            *compiled = Compiled { snapshot: Some(Arc::clone(snapshot)), sets: HashMap::new() };
        }
        if let Some(set) = compiled.sets.get(service) {
            return set.clone();
        }
        let set = match snapshot.compile_open(service) {
            Ok(set) => Some(Arc::new(set)),
            Err(error) => {
                tracing::warn!(service, %error, "rules that do not fit together are not applied");
                None
            }
        };
        compiled.sets.insert(service.to_owned(), set.clone());
        set
    }
}

#[cfg(test)]
mod tests;
