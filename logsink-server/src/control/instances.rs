//! Which processes are subscribed, and how they stand with their rules.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use logsink::proto::v1::SubscribeRequest;
use serde::{Deserialize, Serialize};

/// Instances listed. A server serves fewer connections than this; beyond it a process still gets its rules.
const INSTANCES_MAX: usize = 50_000;
/// Of each text that a process reports.
const TEXT_BYTES_MAX: usize = 2_000;

/// One process, as it reported last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `service.name`.
    pub service: String,
    /// `service.instance.id`.
    pub instance: String,
    /// The library's version.
    pub version: String,
    /// The revision in force; empty for the rules that the process started with.
    pub revision: String,
    /// The revision that it refused, when its newest is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Since when it is subscribed, RFC 3339.
    pub since: String,
}

/// What a process refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The revision.
    pub revision: String,
    /// Why, with line and column.
    pub error: String,
}

/// The list. A process is in it while its subscription lasts.
#[derive(Debug, Default)]
pub struct Instances {
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    /// By subscription: after a broken connection the new subscription may begin before the end of the old one is seen.
    by_subscription: BTreeMap<u64, Instance>,
    next: u64,
}

impl Instances {
    /// By service, then instance; of a process that is listed twice, the newer subscription.
    pub fn list(&self) -> Vec<Instance> {
        let by_name: BTreeMap<_, _> = self
            .lock()
            .by_subscription
            .values()
            .map(|instance| ((instance.service.clone(), instance.instance.clone()), instance.clone()))
            .collect();
        by_name.into_values().collect()
    }

    /// Lists a subscription under a number of its own.
    pub(super) fn enter(&self, report: SubscribeRequest) -> u64 {
        let mut listed = self.lock();
        listed.next += 1;
        let number = listed.next;
        if listed.by_subscription.len() < INSTANCES_MAX {
            listed.by_subscription.insert(number, Instance::of(report, jiff::Timestamp::now().to_string()));
        }
        number
    }

    pub(super) fn update(&self, number: u64, report: SubscribeRequest) {
        if let Some(instance) = self.lock().by_subscription.get_mut(&number) {
            *instance = Instance::of(report, std::mem::take(&mut instance.since));
        }
    }

    pub(super) fn leave(&self, number: u64) {
        self.lock().by_subscription.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        // Plain data, whole after every statement.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    fn of(report: SubscribeRequest, since: String) -> Self {
        let refused = Refused { revision: short(report.refused_revision), error: short(report.error) };
        Self {
            service: short(report.service),
            instance: short(report.instance),
            version: short(report.version),
            revision: short(report.revision),
            refused: (!refused.error.is_empty()).then_some(refused),
            since,
        }
    }
}

fn short(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        // A character has at most four bytes, so a boundary is near.
        let end = (TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
