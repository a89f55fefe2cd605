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

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tracing_core::{Dispatch, subscriber::NoSubscriber};

use crate::{
    filter::{
        recording::Recording,
        rules::{BaseFilter, Document, RuleError, RuleSet},
    },
    voice::say,
};

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
    /// Those before, while a swap is under way.
    previous: ArcSwapOption<Active>,
    /// The same as in `active`, a little later, for a look without taking the snapshot.
    generation: AtomicU64,
    /// When the next rule expires, `u64::MAX` for never.
    expiry_ns: AtomicU64,
    /// The base filter where no document has one: that of the rules the process started with.
    base: BaseFilter,
    /// What the console shows whatever the rules say; `None`: it shows what they let pass.
    console: Option<BaseFilter>,
    /// What the flight recorder wants of the events that no rule does. No document changes it.
    recording: Option<Recording>,
    /// Held while a swap is under way, so that they come one after the other. The hot path never takes it.
    swapping: Mutex<()>,
    status: Mutex<Status>,
}

impl Reload {
    /// Begins with these rules. Their base filter and service stay for the documents that come later.
    pub fn new(initial: RuleSet) -> Arc<Self> {
        Self::beside(initial, None, None)
    }

    /// As [`Reload::new`], beside a console that has a filter of its own, and a flight recorder.
    pub(crate) fn beside(initial: RuleSet, console: Option<BaseFilter>, recording: Option<Recording>) -> Arc<Self> {
        Arc::new(Self {
            console,
            recording,
            previous: ArcSwapOption::const_empty(),
            base: initial.base().clone(),
            generation: AtomicU64::new(1),
            expiry_ns: AtomicU64::new(initial.next_expiry(unix_now_ns()).unwrap_or(u64::MAX)),
            active: ArcSwap::from_pointee(Active { rules: initial, revision: String::new(), generation: 1 }),
            swapping: Mutex::default(),
            status: Mutex::default(),
        })
    }

    /// The snapshot in force. Load it once per event; never hold it across an `.await`.
    pub fn active(&self) -> Guard<Arc<Active>> {
        self.active.load()
    }

    /// While a swap is under way, the rules before. Callsites that were not judged anew yet go by them: to ask all of the
    /// new rules for each of their events would be felt.
    pub(crate) fn previous(&self) -> Option<Arc<Active>> {
        self.previous.load_full()
    }

    /// The console's own filter.
    pub(crate) fn console(&self) -> Option<&BaseFilter> {
        self.console.as_ref()
    }

    /// What the flight recorder wants; `None` when it is off.
    pub(crate) fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
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
        self.put(documents, revision, None).inspect_err(|error| self.refuse(revision, &error.to_string()))
    }

    /// As [`Reload::apply`], for what is left of a newer revision of which a part was refused. Does not say when it fails.
    pub(crate) fn put(
        &self,
        documents: &[Document],
        revision: &str,
        refused: Option<Refused>,
    ) -> Result<(), RuleError> {
        // Guards no data: a panic under it spoils nothing.
        let _swapping = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.active.load_full();
        let mut rules = RuleSet::compile_over(&self.base, documents, old.rules.service())?;
        rules.adopt(&old.rules);
        let generation = old.generation + 1;
        self.expiry_ns.store(rules.next_expiry(unix_now_ns()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.previous.store(Some(old.clone()));
        self.active.store(Arc::new(Active { rules, revision: revision.to_owned(), generation }));
        rebuild_interest();
        // Every callsite has been judged by now: events need only look it up.
        self.generation.store(generation, Ordering::Release);
        self.previous.store(None);
        // Last: who reads of the new revision may rely on every callsite having been asked.
        let mut status = self.lock();
        if let Some(refused) = refused.as_ref().filter(|refused| status.refused.as_ref() != Some(refused)) {
            say(format_args!("rules {} refused in part, {revision} are in force: {}", refused.revision, refused.error));
        }
        *status = Status { revision: revision.to_owned(), refused };
        Ok(())
    }

    /// Notes that a revision cannot be used, once per revision also on stderr.
    pub fn refuse(&self, revision: &str, error: &str) {
        let refused = Refused { revision: revision.to_owned(), error: error.to_owned() };
        let mut status = self.lock();
        if status.refused.as_ref() != Some(&refused) {
            let kept = if status.revision.is_empty() { "the rules of the start" } else { &status.revision };
            say(format_args!("rules {revision} refused, {kept} stay in force: {error}"));
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
            rebuild_interest();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Plain data, whole after every statement: a panic elsewhere does not spoil it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks every live subscriber anew what it wants of each callsite.
///
/// While a process has had one subscriber only, tracing-core asks the calling thread's default instead of its list. Swaps
/// come from the worker's thread, where a scoped subscriber (`set_default`) is not the default: every callsite would fall
/// silent. A second subscriber, gone at once, makes it use the list.
fn rebuild_interest() {
    drop(Dispatch::new(NoSubscriber::default()));
    tracing_core::callsite::rebuild_interest_cache();
}

/// Unix time; 0 when the clock stands before 1970.
pub(crate) fn unix_now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::filter::{EventView, Fate, expr::tests::Sample};

    fn documents(text: &str) -> [Document; 1] {
        [Document::parse(text).unwrap()]
    }

    fn decide(reload: &Reload, event: &dyn EventView) -> Fate {
        reload.active().rules.decide(event, 0).fate
    }

    #[test]
    fn swaps_whole_and_keeps_the_old_when_refused() {
        let initial = RuleSet::compile(&[Document::of_filter("warn").unwrap()], "app").unwrap();
        let reload = Reload::new(initial);
        assert_eq!((reload.generation(), reload.status()), (1, Status::default()));
        reload.apply(&documents("filter = \"debug\""), "r1").unwrap();
        assert_eq!((reload.generation(), reload.active().generation), (2, 2));
        assert_eq!(reload.active().rules.base().to_string(), "debug");

        let many = "[[rule]]\nname = \"N\"\nthen = { redact = [\"a\"] }\n";
        let many: String = (0..65).map(|number| many.replace('N', &number.to_string())).collect();
        let error = reload.apply(&documents(&many), "r2").unwrap_err();
        assert_eq!(reload.generation(), 2);
        let refused = Refused { revision: "r2".to_owned(), error: error.to_string() };
        assert_eq!(reload.status(), Status { revision: "r1".to_owned(), refused: Some(refused) });

        // Without documents the first filter is back, and the refusal is history.
        reload.apply(&[], "r3").unwrap();
        assert_eq!(reload.active().rules.base().to_string(), "warn");
        assert_eq!(reload.status(), Status { revision: "r3".to_owned(), refused: None });
    }

    #[test]
    fn a_rule_goes_on_counting_under_its_name() {
        let reload = Reload::new(RuleSet::compile(&[], "app").unwrap());
        let rule = "[[rule]]\nname = \"noise\"\nwhen = 'user=x'\nthen = \"drop\"\n";
        let event = Sample {
            severity: crate::Severity::INFO,
            attributes: vec![("user", crate::filter::Value::Text("x".into()))],
            ..Sample::default()
        };
        reload.apply(&documents(rule), "1").unwrap();
        assert_eq!(decide(&reload, &event), Fate::DropByRule(0));
        reload
            .apply(&documents(&format!("[[rule]]\nname = \"new\"\nwhen = 'a=1'\nthen = \"keep\"\n{rule}")), "2")
            .unwrap();
        assert_eq!(decide(&reload, &event), Fate::DropByRule(1));
        assert_eq!(reload.active().rules.counts(), [("new", 0), ("noise", 2)]);
    }

    /// Answers every question about a callsite from the rules in force, counts events, and tells whether the rules before were
    /// there yet when it was asked.
    struct Asking(Arc<Reload>, Arc<AtomicU64>, Arc<AtomicBool>);

    impl tracing_core::Subscriber for Asking {
        fn register_callsite(&self, meta: &'static tracing_core::Metadata<'static>) -> tracing_core::Interest {
            if self.0.previous().is_some_and(|previous| previous.generation < self.0.active().generation) {
                self.2.store(true, Ordering::Relaxed);
            }
            if self.enabled(meta) { tracing_core::Interest::always() } else { tracing_core::Interest::never() }
        }
        fn enabled(&self, meta: &tracing_core::Metadata<'_>) -> bool {
            self.0.active().rules.interest(meta) != crate::filter::rules::Interest::Never
        }
        fn new_span(&self, _: &tracing_core::span::Attributes<'_>) -> tracing_core::span::Id {
            tracing_core::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing_core::span::Id, _: &tracing_core::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing_core::span::Id, _: &tracing_core::span::Id) {}
        fn event(&self, _: &tracing_core::Event<'_>) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing_core::span::Id) {}
        fn exit(&self, _: &tracing_core::span::Id) {}
    }

    #[test]
    fn a_swap_on_another_thread_asks_a_scoped_subscriber() {
        let reload = Reload::new(RuleSet::compile(&[], "app").unwrap());
        let seen = Arc::new(AtomicU64::new(0));
        tracing::subscriber::with_default(Asking(Arc::clone(&reload), Arc::clone(&seen), Arc::default()), || {
            let log = || tracing::info!("wanted before and after");
            log();
            std::thread::scope(|scope| scope.spawn(|| reload.apply(&documents("filter = \"debug\""), "1")).join())
                .unwrap()
                .unwrap();
            log();
        });
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    }

    /// Readers see whole sets only, while writers swap without a pause.
    #[test]
    fn readers_and_writers_at_the_same_time() {
        let reload = Reload::new(RuleSet::compile(&[], "app").unwrap());
        let set = |count: usize| -> String {
            (0..count)
                .map(|number| format!("[[rule]]\nname = \"{number}\"\nthen = {{ set_level = \"warn\" }}\n"))
                .collect()
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = [3, 5]
                .map(|count| {
                    let (reload, text) = (&reload, set(count));
                    scope.spawn(move || {
                        (0..200).for_each(|_| reload.apply(&documents(&text), &count.to_string()).unwrap())
                    })
                })
                .into();
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut last = 0;
                        while last < 401 {
                            let active = reload.active();
                            assert!(active.generation >= last);
                            last = active.generation;
                            let expected = active.revision.parse().unwrap_or(0);
                            assert_eq!(active.rules.rules().len(), expected);
                        }
                    })
                })
                .collect();
            writers.into_iter().chain(readers).for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(reload.generation(), 401);
    }

    #[test]
    fn callsites_are_asked_anew_after_a_swap_and_after_an_expiry() {
        let reload = Reload::new(RuleSet::compile(&[], "app").unwrap());
        let seen = Arc::new(AtomicU64::new(0));
        let had_previous = Arc::new(AtomicBool::new(false));
        let log = || tracing::debug!(target: "reload_test", "a debug event");
        tracing::subscriber::with_default(
            Asking(Arc::clone(&reload), Arc::clone(&seen), Arc::clone(&had_previous)),
            || {
                log();
                assert_eq!(seen.load(Ordering::Relaxed), 0);
                reload.apply(&documents("filter = \"debug\""), "1").unwrap();
                // Callsites that were not asked yet could go by the rules before, which are gone with the swap's end.
                assert!(had_previous.load(Ordering::Relaxed) && reload.previous().is_none());
                log();
                assert_eq!(seen.load(Ordering::Relaxed), 1);
                let keep = "[[rule]]\nname = \"for a while\"\nwhen = 'target=reload_test'\nthen = \"keep\"\nuntil = ";
                reload.apply(&documents(&format!("{keep}2500-01-01T00:00:00Z")), "2").unwrap();
                log();
                assert_eq!(seen.load(Ordering::Relaxed), 2);
                let generation = reload.generation();
                reload.expire(unix_now_ns());
                assert_ne!(reload.expiry_ns.load(Ordering::Relaxed), u64::MAX);
                reload.expire(u64::MAX - 1);
                assert_eq!(reload.expiry_ns.load(Ordering::Relaxed), u64::MAX);
                assert_eq!(reload.generation(), generation);
            },
        );
    }
}
