//! The decision: about a callsite, once, and about an event.

use std::sync::atomic::Ordering::Relaxed;

use tracing_core::{LevelFilter, Metadata};

use super::{BaseFilter, Edits, Matched, RuleSet, Verdict, action::Action, target_known};
use crate::{
    Severity,
    filter::{EventView, Fate, expr::Facts},
};

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

/// What a callsite needs of the rules, worked out once. Valid for the set that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whether the rules have to be asked at all.
    pub interest: Interest,
    /// What the base filter says, when it says the same of each event.
    wanted: Option<bool>,
    pub(super) rules: Box<[u16]>,
}

impl RuleSet {
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
    pub(super) fn plan_for(&self, facts: &Facts<'_>) -> Plan {
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
                Action::Sample(..) | Action::RateLimit(_) | Action::KeyedLimit(..) | Action::Dedup(..) => {
                    may_drop = true;
                    may_keep |= wanted != Some(false);
                }
                Action::Edit(_) | Action::SetLevel(_) | Action::Release => may_change = true,
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
        Plan { interest, wanted, rules: concerned.into_boxed_slice() }
    }

    /// Decides about one event. `now_ns` is Unix time: it moves rate limits and windows, and ends rules that have an `until`.
    pub fn decide<'a>(&'a self, event: &dyn EventView, now_ns: u64) -> Verdict<'a> {
        self.decide_over(&self.base, event, now_ns)
    }

    /// As [`RuleSet::decide`], with another filter in the base filter's place.
    pub(crate) fn decide_over<'a>(&'a self, base: &BaseFilter, event: &dyn EventView, now_ns: u64) -> Verdict<'a> {
        self.decide_among(0..self.rules.len(), base.wants(event.target(), event.severity()), event, now_ns)
    }

    /// As [`RuleSet::decide`], for an event whose callsite has this plan. The plan must come from this very set.
    pub fn decide_by<'a>(&'a self, plan: &Plan, event: &dyn EventView, now_ns: u64) -> Verdict<'a> {
        let wanted = plan.wanted.unwrap_or_else(|| self.base.wants(event.target(), event.severity()));
        self.decide_among(plan.rules.iter().map(|&index| usize::from(index)), wanted, event, now_ns)
    }

    fn decide_among<'a>(
        &'a self,
        candidates: impl Iterator<Item = usize>,
        wanted: bool,
        event: &dyn EventView,
        now_ns: u64,
    ) -> Verdict<'a> {
        let edits = Edits::new(&self.edits, Matched::default());
        let mut verdict = Verdict { fate: Fate::DropByFilter, level: None, edits, repeated: 0, release: false };
        if !wanted && !self.keeps {
            return verdict;
        }
        let mut decided = false;
        for index in candidates {
            let Some(rule) = self.rules.get(index) else { continue };
            // Unwanted events can only be rescued, and rescued ones no longer be judged.
            if decided && rule.decides() || rule.expired(now_ns) || !rule.when.matches(event) {
                continue;
            }
            if !wanted && rule.decides() && !matches!(rule.action, Action::Keep) {
                return verdict;
            }
            let before = rule.matched.fetch_add(1, Relaxed);
            let passes = match &rule.action {
                Action::Edit(bit) => {
                    verdict.edits.add(*bit);
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
                Action::Sample(below, by) => {
                    let key = by.as_ref().and_then(|by| by.of(event));
                    let hash = match (key, event.trace_id()) {
                        (Some(key), _) => key,
                        (None, Some(trace)) => mix(&trace),
                        // Multiples of the golden ratio spread evenly, also over every second, third, … of them.
                        (None, None) => before.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    };
                    *below == u64::MAX || hash < *below
                }
                Action::RateLimit(limiter) => limiter.admit(now_ns),
                Action::KeyedLimit(by, limiter) => limiter.admit(by.of(event), now_ns),
                Action::Dedup(window_ms, by, repeats) => {
                    let seen = by.of(event).map_or(Some(0), |key| repeats.see(key, event, *window_ms, now_ns));
                    verdict.repeated = seen.unwrap_or(0);
                    seen.is_some()
                }
            };
            if !passes {
                verdict.fate = Fate::DropByRule(index as u16);
                return verdict;
            }
            decided = true;
        }
        if decided || wanted {
            verdict.fate = Fate::Keep;
        }
        verdict
    }

    /// What must not be shown of an event even where no rule lets it pass. Counts nothing.
    pub(crate) fn edits_of<'a>(&'a self, event: &dyn EventView, now_ns: u64) -> Edits<'a> {
        let mut edits = Edits::new(&self.edits, Matched::default());
        for rule in &self.rules {
            if let Action::Edit(bit) = rule.action
                && !rule.expired(now_ns)
                && rule.when.matches(event)
            {
                edits.add(bit);
            }
        }
        edits
    }

    pub(super) fn find_max_level(&self) -> LevelFilter {
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

/// Spreads a trace id evenly (SplitMix64's finish): some tracers count the low bytes up. The same in every process, so that
/// a trace is kept or dropped as a whole.
fn mix(trace: &[u8; 16]) -> u64 {
    let number = u128::from_be_bytes(*trace);
    let mut hash = (number as u64) ^ ((number >> 64) as u64).rotate_left(32);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}
