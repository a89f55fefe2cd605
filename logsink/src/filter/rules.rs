//! Rules: documents (TOML) compiled for one service, and the decision about one event.
//!
//! The rules are asked in order, those of the global document first. The first `keep`, `drop`, `sample` or `rate_limit`
//! whose condition holds decides; where none does, the base filter decides. Only `keep` lets an event pass that the base
//! filter does not want: sampling and rate limits thin out, they never add. Every matching `redact`, `set_level` and
//! `release` applies, whether it stands before or after the rule that decided, so that the order of rules cannot leak a
//! secret. Conditions see the event as it was emitted: `set_level` does not change what later rules match.

mod base;
mod document;
mod limit;
mod verdict;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tracing_core::{LevelFilter, Metadata};

use self::limit::Limiter;
pub use self::{
    base::BaseFilter,
    document::{DOCUMENT_BYTES_MAX, Document, RuleDefinition, RuleError, Then},
    verdict::{REDACTED, Redactions, Verdict},
};
use super::{
    EventView, Fate,
    expr::{Expr, Facts},
};
use crate::Severity;

/// Rules in one compiled set: a thousand are swapped in without a caller noticing, and people stop reading far earlier.
pub const RULES_MAX: usize = 2_000;
/// `redact` rules in one compiled set: which of them match is kept in one word per event.
pub const REDACT_RULES_MAX: usize = 64;

/// What a callsite can expect of the rules, decided from its level, target and the service alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// No event of it can pass: it may be disabled.
    Never,
    /// Every event of it passes unchanged: the rules need not be asked.
    Always,
    /// It depends on the event: ask [`RuleSet::decide`].
    Sometimes,
}

/// One compiled rule.
#[derive(Debug)]
pub struct Rule {
    name: String,
    when: Expr,
    action: Action,
    until_ns: Option<u64>,
    /// Shared with the rule of the same name in the set that replaces this one, so that a reload loses no count.
    matched: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Action {
    Keep,
    Drop,
    /// Passes when a hash is below this.
    Sample(u64),
    RateLimit(Limiter),
    /// The bit in [`Redactions::matched`], and the fields.
    Redact(u8, Vec<String>),
    SetLevel(Severity),
    Release,
}

/// Rules compiled for one service.
#[derive(Debug)]
pub struct RuleSet {
    service: String,
    base: BaseFilter,
    rules: Vec<Rule>,
    /// Whether a rule can let pass what the base filter does not want.
    keeps: bool,
    max_level: LevelFilter,
}

impl RuleSet {
    /// Compiles documents, the global one first, for a service. Where no document has a `filter`, the base is `info`.
    ///
    /// # Errors
    /// When the documents together are over a limit.
    pub fn compile(documents: &[Document], service: &str) -> Result<Self, RuleError> {
        Self::compile_over(&BaseFilter::at(Severity::INFO), documents, service)
    }

    /// As [`RuleSet::compile`], with this base filter where no document has one. Of several, the last document's counts.
    ///
    /// # Errors
    /// When the documents together are over a limit.
    pub fn compile_over(base: &BaseFilter, documents: &[Document], service: &str) -> Result<Self, RuleError> {
        let base = documents.iter().rev().find_map(|document| document.filter.as_ref()).unwrap_or(base).clone();
        let mut rules = Vec::new();
        let mut redact_rules = 0;
        for definition in documents.iter().flat_map(|document| &document.rules) {
            if !definition.services.is_empty() && !definition.services.iter().any(|name| name == service) {
                continue;
            }
            if rules.len() == RULES_MAX {
                return Err(definition.error(format!("more than {RULES_MAX} rules concern service `{service}`")));
            }
            let action = match &definition.then {
                Then::Keep => Action::Keep,
                Then::Drop => Action::Drop,
                Then::Sample { rate } => Action::Sample(threshold(*rate)),
                Then::RateLimit { per_second, burst } => Action::RateLimit(Limiter::new(*per_second, *burst)),
                Then::SetLevel(level) => Action::SetLevel(*level),
                Then::Release => Action::Release,
                Then::Redact { fields } => {
                    if redact_rules == REDACT_RULES_MAX {
                        return Err(definition
                            .error(format!("more than {REDACT_RULES_MAX} redact rules concern service `{service}`")));
                    }
                    redact_rules += 1;
                    Action::Redact(redact_rules as u8 - 1, fields.clone())
                }
            };
            rules.push(Rule {
                name: definition.name.clone(),
                when: definition.when.clone(),
                action,
                until_ns: definition.until_ns,
                matched: Arc::default(),
            });
        }
        let keeps = rules.iter().any(|rule| matches!(rule.action, Action::Keep));
        let mut set = Self { service: service.to_owned(), base, rules, keeps, max_level: LevelFilter::OFF };
        set.max_level = set.find_max_level();
        Ok(set)
    }

    /// What to expect for a callsite of an event. Asks the clock whether a rule has expired.
    ///
    /// An attribute decides nothing here, whether the callsite has such a field or not: an enclosing span or the resource
    /// may bring it.
    pub fn interest(&self, meta: &Metadata<'_>) -> Interest {
        self.plan(meta).interest
    }

    /// As [`RuleSet::interest`], with the rules that can concern the callsite, so that [`RuleSet::decide_by`] asks no others.
    pub fn plan(&self, meta: &Metadata<'_>) -> Plan {
        self.plan_over(&self.base, meta)
    }

    /// As [`RuleSet::plan`], with another filter in the base filter's place.
    pub(crate) fn plan_over(&self, base: &BaseFilter, meta: &Metadata<'_>) -> Plan {
        let severity = Some(Severity::from(meta.level()));
        self.plan_facts(base, &Facts { severity, target: target_known(meta), service: Some(&self.service) })
    }

    #[cfg(test)]
    fn plan_for(&self, facts: &Facts<'_>) -> Plan {
        self.plan_facts(&self.base, facts)
    }

    fn plan_facts(&self, base: &BaseFilter, facts: &Facts<'_>) -> Plan {
        let now_ns = crate::reload::unix_now_ns();
        let wanted = match (facts.target, facts.severity) {
            (Some(target), Some(severity)) => Some(base.wants(target, severity)),
            (None, Some(severity)) => base.wants_any_target(severity),
            _ => None,
        };
        let mut concerned = Vec::new();
        let (mut may_keep, mut may_drop, mut may_change) = (false, false, false);
        let mut undecided = true;
        for (index, rule) in self.rules.iter().enumerate() {
            let holds = rule.when.decide(facts);
            if holds == Some(false) || rule.expired(now_ns) || (!undecided && rule.decides()) {
                continue;
            }
            concerned.push(index as u16);
            match rule.action {
                Action::Keep => may_keep = true,
                Action::Drop => may_drop = true,
                Action::Sample(_) | Action::RateLimit(_) => {
                    may_drop = true;
                    may_keep |= wanted != Some(false);
                }
                Action::Redact(..) | Action::SetLevel(_) | Action::Release => may_change = true,
            }
            // A rule that expires decides for good only while it lasts, which the event's time tells.
            if rule.decides() && holds == Some(true) && rule.until_ns.is_none() {
                undecided = false;
            }
        }
        if undecided {
            may_keep |= wanted != Some(false);
            may_drop |= wanted != Some(true);
        }
        let interest = match (may_keep, may_drop || may_change) {
            (false, _) => Interest::Never,
            (true, false) => Interest::Always,
            (true, true) => Interest::Sometimes,
        };
        Plan { interest, rules: concerned.into_boxed_slice() }
    }

    /// Decides about one event. `now_ns` is Unix time: it moves rate limits and ends rules that have an `until`.
    pub fn decide<'a>(&'a self, event: &dyn EventView, now_ns: u64) -> Verdict<'a> {
        self.decide_over(&self.base, event, now_ns)
    }

    /// As [`RuleSet::decide`], with another filter in the base filter's place.
    pub(crate) fn decide_over<'a>(&'a self, base: &BaseFilter, event: &dyn EventView, now_ns: u64) -> Verdict<'a> {
        self.decide_among(base, 0..self.rules.len(), event, now_ns)
    }

    /// As [`RuleSet::decide`], for an event whose callsite has this plan. The plan must come from this very set.
    pub fn decide_by<'a>(&'a self, plan: &Plan, event: &dyn EventView, now_ns: u64) -> Verdict<'a> {
        self.decide_among(&self.base, plan.rules.iter().map(|&index| usize::from(index)), event, now_ns)
    }

    fn decide_among<'a>(
        &'a self,
        base: &BaseFilter,
        candidates: impl Iterator<Item = usize>,
        event: &dyn EventView,
        now_ns: u64,
    ) -> Verdict<'a> {
        let redact = Redactions { rules: &self.rules, matched: 0 };
        let mut verdict = Verdict { fate: Fate::DropByFilter, level: None, redact, release: false };
        let wanted = base.wants(event.target(), event.severity());
        if !wanted && !self.keeps {
            return verdict;
        }
        let mut decided = None;
        for index in candidates {
            let Some(rule) = self.rules.get(index) else { continue };
            // Unwanted events can only be rescued, and rescued ones no longer be judged.
            if decided.is_some() && rule.decides() || rule.expired(now_ns) || !rule.when.matches(event) {
                continue;
            }
            if !wanted && matches!(rule.action, Action::Drop | Action::Sample(_) | Action::RateLimit(_)) {
                return verdict;
            }
            let before = rule.matched.fetch_add(1, Relaxed);
            let passes = match &rule.action {
                Action::Redact(bit, _) => {
                    verdict.redact.matched |= 1 << bit;
                    continue;
                }
                Action::SetLevel(level) => {
                    verdict.level = Some(*level);
                    continue;
                }
                Action::Release => {
                    verdict.release = true;
                    continue;
                }
                Action::Keep => true,
                Action::Drop => false,
                Action::Sample(below) => {
                    let hash = match event.trace_id() {
                        Some(trace) => mix(&trace),
                        // Multiples of the golden ratio spread evenly, also over every second, third, … of them.
                        None => before.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    };
                    *below == u64::MAX || hash < *below
                }
                Action::RateLimit(limiter) => limiter.admit(now_ns),
            };
            if !passes {
                verdict.fate = Fate::DropByRule(index as u16);
                return verdict;
            }
            decided = Some(Fate::Keep);
        }
        verdict.fate = match decided {
            Some(fate) => fate,
            None if wanted => Fate::Keep,
            None => Fate::DropByFilter,
        };
        verdict
    }

    /// The rules in the order in which they are asked; [`Fate::DropByRule`] counts from 0 in it.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How many events each rule matched. What [`Interest::Never`] and [`Interest::Always`] settle is not in it: such events
    /// are not shown to the rules.
    pub fn counts(&self) -> Vec<(&str, u64)> {
        self.rules.iter().map(|rule| (rule.name(), rule.matched())).collect()
    }

    /// The most verbose level that can pass, for `tracing`'s own shortcut.
    pub fn max_level(&self) -> LevelFilter {
        self.max_level
    }

    /// The service that the rules were compiled for.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The base filter.
    pub fn base(&self) -> &BaseFilter {
        &self.base
    }

    /// When the next rule expires after `now_ns`.
    pub fn next_expiry(&self, now_ns: u64) -> Option<u64> {
        self.rules.iter().filter_map(|rule| rule.until_ns).filter(|until| *until > now_ns).min()
    }

    /// Whether it does nothing but apply its base filter.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Goes on counting where the rules of the same names in `old` stand.
    pub(crate) fn adopt_counts(&mut self, old: &Self) {
        for rule in &mut self.rules {
            if let Some(before) = old.rules.iter().find(|before| before.name == rule.name) {
                rule.matched = Arc::clone(&before.matched);
            }
        }
    }

    fn find_max_level(&self) -> LevelFilter {
        [
            (Severity::TRACE, LevelFilter::TRACE),
            (Severity::DEBUG, LevelFilter::DEBUG),
            (Severity::INFO, LevelFilter::INFO),
            (Severity::WARN, LevelFilter::WARN),
            (Severity::ERROR, LevelFilter::ERROR),
        ]
        .into_iter()
        .find(|(severity, _)| {
            let facts = Facts { severity: Some(*severity), target: None, service: Some(&self.service) };
            self.base.least().is_some_and(|least| least <= *severity)
                || self
                    .rules
                    .iter()
                    .any(|rule| matches!(rule.action, Action::Keep) && rule.when.decide(&facts) != Some(false))
        })
        .map_or(LevelFilter::OFF, |(_, filter)| filter)
    }
}

/// What a callsite needs of the rules, worked out once. Valid for the set that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whether the rules have to be asked at all.
    pub interest: Interest,
    rules: Box<[u16]>,
}

impl Rule {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many events it matched.
    pub fn matched(&self) -> u64 {
        self.matched.load(Relaxed)
    }

    fn expired(&self, now_ns: u64) -> bool {
        self.until_ns.is_some_and(|until| until <= now_ns)
    }

    /// Whether it says if an event goes on, rather than how.
    fn decides(&self) -> bool {
        !matches!(self.action, Action::Redact(..) | Action::SetLevel(_) | Action::Release)
    }
}

/// The callsite's target. Events of the `log` crate share one callsite per level: which target they have shows in the event
/// only.
pub(super) fn target_known<'m>(meta: &'m Metadata<'_>) -> Option<&'m str> {
    (!(meta.target() == "log" && meta.fields().field("log.target").is_some())).then(|| meta.target())
}

/// The share of the 64-bit range that passes; `u64::MAX` means all of it.
fn threshold(rate: f64) -> u64 {
    // A cast of a float saturates: 1.0 becomes u64::MAX.
    (rate * 2f64.powi(64)) as u64
}

/// Spreads a trace id evenly (SplitMix64's finish): some tracers count the low bytes up. The same in every process, so that
/// a trace is kept or dropped as a whole.
fn mix(trace: &[u8; 16]) -> u64 {
    let number = u128::from_be_bytes(*trace);
    let mut hash = (number as u64) ^ ((number >> 64) as u64).rotate_left(32);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
