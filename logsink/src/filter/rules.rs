//! Rules: documents (TOML) compiled for one service, and the decision about one event.
//!
//! The rules are asked in order, those of the global document first. The first `keep`, `drop`, `sample`, `rate_limit` or
//! `dedup` whose condition holds decides; where none does, the base filter decides. Only `keep` lets an event pass that the
//! base filter does not want: the others thin out, they never add. Every matching `redact`, `cap`, `set_level` and
//! `release` applies, whether it stands before or after the rule that decided, so that the order of rules cannot leak a
//! secret. Conditions see the event as it was emitted: `set_level` does not change what later rules match, and a redacted
//! value still matches. What a document may say is told in [`document`].

mod action;
mod base;
mod decide;
pub mod document;
mod edits;
mod find;
mod key;
mod limit;
mod names;
mod repeats;
mod verdict;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_core::{LevelFilter, Metadata};

pub use self::{
    action::Rule,
    base::BaseFilter,
    decide::{Interest, Plan},
    document::{DOCUMENT_BYTES_MAX, Document, RuleDefinition, RuleError, Then},
    edits::{Buffers, Edits, Matched, REDACTED},
    find::Finder,
    key::Key,
    names::{MESSAGE, Names},
    repeats::Repeated,
    verdict::{REPEATED, Verdict},
};
use self::{
    action::{Action, Compiled},
    edits::EditRule,
    repeats::Repeats,
};
use crate::Severity;

/// Rules in one compiled set: a thousand are swapped in without a caller noticing, and people stop reading far earlier.
pub const RULES_MAX: usize = 2_000;
/// `redact` and `cap` rules in one compiled set: which of them match is kept in one word per event.
pub const EDIT_RULES_MAX: usize = 64;
/// Rules with a table of keys in one compiled set: together they take 6 MiB at most, and the texts of what they have seen.
pub const KEYED_RULES_MAX: usize = 64;

/// Rules compiled for one service.
#[derive(Debug)]
pub struct RuleSet {
    service: String,
    base: BaseFilter,
    rules: Vec<Rule>,
    /// What the `redact` and `cap` rules do.
    edits: Vec<EditRule>,
    /// Whether a rule can let pass what the base filter does not want.
    keeps: bool,
    max_level: LevelFilter,
    /// What rules of former sets have counted and not said. Never locked for an event.
    retired: Mutex<Vec<Arc<Repeats>>>,
}

/// Whether this is a callsite that stands for all records of the `log` crate.
fn stands_for_log(meta: &Metadata<'_>) -> bool {
    meta.target() == "log" && meta.fields().field("log.target").is_some()
}

/// The callsite's target. Events of the `log` crate share one callsite per level: which target they have shows in the event
/// only.
pub(super) fn target_known<'m>(meta: &'m Metadata<'_>) -> Option<&'m str> {
    (!stands_for_log(meta)).then(|| meta.target())
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
        let mut compiled = Compiled::default();
        for definition in documents.iter().flat_map(|document| &document.rules) {
            if !definition.services.is_empty() && !definition.services.iter().any(|name| name == service) {
                continue;
            }
            if compiled.rules.len() == RULES_MAX {
                return Err(definition.error(format!("more than {RULES_MAX} rules concern service `{service}`")));
            }
            compiled.push(definition)?;
        }
        let Compiled { rules, edits, .. } = compiled;
        let keeps = rules.iter().any(|rule| matches!(rule.action, Action::Keep));
        let (service, retired) = (service.to_owned(), Mutex::default());
        let mut set = Self { service, base, rules, edits, keeps, max_level: LevelFilter::OFF, retired };
        set.max_level = set.find_max_level();
        Ok(set)
    }

    /// The rules in the order in which they are asked; [`Fate::DropByRule`](super::Fate::DropByRule) counts from 0 in it.
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

    /// Whether what it says of an event at this time depends on the events before it: it has limits, or drops repeats. Asked twice
    /// about the same event, it may answer differently.
    pub fn remembers(&self, now_ns: u64) -> bool {
        self.rules
            .iter()
            .filter(|rule| !rule.expired(now_ns))
            .any(|rule| matches!(rule.action, Action::RateLimit(_) | Action::KeyedLimit(..) | Action::Dedup(..)))
    }

    /// The changes of the rules that have matched an event of this very set.
    pub fn edits(&self, matched: Matched) -> Edits<'_> {
        Edits::new(&self.edits, matched)
    }

    /// What `dedup` rules have dropped and no event tells of any more, once: to be asked for now and then, and with
    /// `u64::MAX` at the end of the process.
    pub fn due(&self, now_ns: u64) -> impl Iterator<Item = Repeated> {
        let mut retired = self.retired();
        // Whoever still judges by the set of such a rule holds it too.
        retired.retain(|repeats| Arc::strong_count(repeats) > 1 || !repeats.is_silent());
        let retired = retired.clone();
        let own = self.rules.iter().filter_map(|rule| match &rule.action {
            Action::Dedup(_, _, repeats) => Some(repeats.clone()),
            _ => None,
        });
        own.chain(retired).flat_map(move |repeats| repeats.due(now_ns).collect::<Vec<_>>())
    }

    /// Goes on counting, limiting and watching where the rules of the same names in `old` stand.
    pub(crate) fn adopt(&mut self, old: &Self) {
        let mut retired = action::adopt(&mut self.rules, &old.rules);
        retired.append(&mut old.retired().clone());
        *self.retired() = retired;
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Repeats>>> {
        // A list that is whole at any time.
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
