//! Documents → one compiled snapshot behind an `ArcSwap`; the only swapper.
//!
//! A set is compiled in full, outside the hot path, before it replaces the old one; a document that does not compile
//! changes nothing. After a swap the interest of every callsite is asked anew, so an event that no rule wants costs what a
//! disabled `tracing` event costs.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, Guard};

use crate::filter::rules::{BaseFilter, Document, RuleError, RuleSet};

/// The rules that are in force.
#[derive(Debug)]
pub struct Active {
    /// The compiled rules.
    pub rules: RuleSet,
    /// The source's name for them; empty for those the process started with.
    pub revision: String,
    /// From 1, by one for each swap.
    pub generation: u64,
}

/// Which rules are in force, and why newer ones are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The revision in force; empty for the rules that the process started with.
    pub revision: String,
    /// The newest revision, when it was refused.
    pub refused: Option<Refused>,
}

/// A refused revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The source's name for it.
    pub revision: String,
    /// What is wrong with it, with line and column.
    pub error: String,
}

/// Holds the rules in force and replaces them.
#[derive(Debug)]
pub struct Reload {
    active: ArcSwap<Active>,
    /// The same as in `active`, for a look without taking the snapshot.
    generation: AtomicU64,
    /// When the next rule expires, `u64::MAX` for never.
    expiry_ns: AtomicU64,
    /// The base filter where no document has one: that of the rules the process started with.
    base: BaseFilter,
    /// Also orders the swaps: held while one is under way. The hot path never takes it.
    status: Mutex<Status>,
}

impl Reload {
    /// Begins with these rules. Their base filter and service stay for the documents that come later.
    pub fn new(initial: RuleSet) -> Arc<Self> {
        Arc::new(Self {
            base: initial.base().clone(),
            generation: AtomicU64::new(1),
            expiry_ns: AtomicU64::new(initial.next_expiry(unix_now_ns()).unwrap_or(u64::MAX)),
            active: ArcSwap::from_pointee(Active { rules: initial, revision: String::new(), generation: 1 }),
            status: Mutex::default(),
        })
    }

    /// The snapshot in force. Load it once per event; never hold it across an `.await`.
    pub fn active(&self) -> Guard<Arc<Active>> {
        self.active.load()
    }

    /// Rises with each swap: what was derived from an older snapshot is out of date.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Compiles documents, the global one first, and swaps them in whole. No documents bring the first base filter back.
    ///
    /// # Errors
    /// When they do not compile; the rules in force stay, and the status says why.
    pub fn apply(&self, documents: &[Document], revision: &str) -> Result<(), RuleError> {
        let mut status = self.lock();
        let old = self.active.load_full();
        let mut rules = match RuleSet::compile_over(&self.base, documents, old.rules.service()) {
            Ok(rules) => rules,
            Err(error) => {
                drop(status);
                self.refuse(revision, &error.to_string());
                return Err(error);
            }
        };
        rules.adopt_counts(&old.rules);
        let generation = old.generation + 1;
        self.expiry_ns.store(rules.next_expiry(unix_now_ns()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.active.store(Arc::new(Active { rules, revision: revision.to_owned(), generation }));
        self.generation.store(generation, Ordering::Release);
        *status = Status { revision: revision.to_owned(), refused: None };
        // Not under the lock: subscribers are asked, and one of them may look at the status.
        drop(status);
        tracing_core::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Notes that a revision cannot be used, once per revision also on stderr.
    pub fn refuse(&self, revision: &str, error: &str) {
        let refused = Refused { revision: revision.to_owned(), error: error.to_owned() };
        let mut status = self.lock();
        if status.refused.as_ref() != Some(&refused) {
            let kept = if status.revision.is_empty() { "the rules of the start" } else { &status.revision };
            eprintln!("logsink: rules {revision} refused, {kept} stay in force: {error}");
            status.refused = Some(refused);
        }
    }

    /// Which revision is in force, and which was refused.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// To be called now and then: when a rule has expired since the last call, callsites are asked anew, so that what the
    /// rule had enabled costs nothing again. (Events are judged by their own time: no call is needed for correctness.)
    pub fn expire(&self, now_ns: u64) {
        let expiry_ns = self.expiry_ns.load(Ordering::Relaxed);
        if now_ns < expiry_ns {
            return;
        }
        let next = self.active.load().rules.next_expiry(now_ns).unwrap_or(u64::MAX);
        if self.expiry_ns.compare_exchange(expiry_ns, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing_core::callsite::rebuild_interest_cache();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Plain data, whole after every statement: a panic elsewhere does not spoil it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix time; 0 when the clock stands before 1970.
pub(crate) fn unix_now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
