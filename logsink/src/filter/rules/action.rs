//! Definitions → compiled rules with what they count.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    EDIT_RULES_MAX, KEYED_RULES_MAX, Key, RuleDefinition, RuleError, Then,
    edits::{EditRule, What},
    limit::{KeyedLimiter, Limiter},
    repeats::Repeats,
};
use crate::{Severity, filter::expr::Expr};

/// One compiled rule.
#[derive(Debug)]
pub struct Rule {
    pub(super) name: String,
    pub(super) when: Expr,
    pub(super) action: Action,
    pub(super) until_ns: Option<u64>,
    /// Shared with the rule of the same name in the set that replaces this one, so that a reload loses no count. So are the
    /// limits and repeats in `action`.
    pub(super) matched: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) enum Action {
    Keep,
    Drop,
    /// Passes when a hash is below this.
    Sample(u64, Option<Key>),
    RateLimit(Arc<Limiter>),
    KeyedLimit(Key, Arc<KeyedLimiter>),
    /// The window in milliseconds.
    Dedup(u64, Key, Arc<Repeats>),
    /// The place among the set's edits.
    Edit(u8),
    SetLevel(Severity),
    Release,
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

    pub(super) fn expired(&self, now_ns: u64) -> bool {
        self.until_ns.is_some_and(|until| until <= now_ns)
    }

    /// Whether it says if an event goes on, rather than how.
    pub(super) fn decides(&self) -> bool {
        !matches!(self.action, Action::Edit(_) | Action::SetLevel(_) | Action::Release)
    }

    /// Goes on where the rule of the same name stands, as far as the two are of the same kind.
    fn adopt(&mut self, old: &Self) {
        self.matched = old.matched.clone();
        match (&mut self.action, &old.action) {
            (Action::RateLimit(limiter), Action::RateLimit(old)) if limiter.is_like(old) => *limiter = old.clone(),
            (Action::KeyedLimit(key, limiter), Action::KeyedLimit(old_key, old))
                if key == old_key && limiter.is_like(old) =>
            {
                *limiter = old.clone();
            }
            (Action::Dedup(_, _, repeats), Action::Dedup(_, _, old)) => *repeats = old.clone(),
            _ => {}
        }
    }
}

/// Compiled rules, and the edits that some of them make.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) rules: Vec<Rule>,
    pub(super) edits: Vec<EditRule>,
    /// Rules with a table of keys.
    keyed: usize,
}

impl Compiled {
    pub(super) fn push(&mut self, definition: &RuleDefinition) -> Result<(), RuleError> {
        let keyed = |by: &Key, compiled: &mut Self| {
            if compiled.keyed == KEYED_RULES_MAX {
                let message = format!("more than {KEYED_RULES_MAX} rules of a service limit or dedup by key");
                return Err(definition.error(message));
            }
            compiled.keyed += 1;
            Ok(by.clone())
        };
        let action = match &definition.then {
            Then::Keep => Action::Keep,
            Then::Drop => Action::Drop,
            Then::Sample { rate, by } => Action::Sample(threshold(*rate), by.clone()),
            Then::RateLimit { per_second, burst, by: None } => {
                Action::RateLimit(Arc::new(Limiter::new(*per_second, *burst)))
            }
            Then::RateLimit { per_second, burst, by: Some(by) } => {
                Action::KeyedLimit(keyed(by, self)?, Arc::new(KeyedLimiter::new(*per_second, *burst)))
            }
            Then::Dedup { window_ms, by } => {
                Action::Dedup(*window_ms, keyed(by, self)?, Arc::new(Repeats::new(&definition.name)))
            }
            Then::SetLevel(level) => Action::SetLevel(*level),
            Then::Release => Action::Release,
            Then::Redact { fields, with } => {
                self.edit(definition, Some(fields.clone()), What::Replace(with.clone()))?
            }
            Then::RedactFound { fields, find, with } => {
                self.edit(definition, fields.clone(), What::Find(find.clone(), with.clone()))?
            }
            Then::Cap { fields, bytes_max } => self.edit(definition, fields.clone(), What::Cap(*bytes_max))?,
        };
        self.rules.push(Rule {
            name: definition.name.clone(),
            when: definition.when.clone(),
            action,
            until_ns: definition.until_ns,
            matched: Arc::default(),
        });
        Ok(())
    }

    fn edit(
        &mut self,
        definition: &RuleDefinition,
        names: Option<super::Names>,
        what: What,
    ) -> Result<Action, RuleError> {
        if self.edits.len() == EDIT_RULES_MAX {
            return Err(definition
                .error(format!("more than {EDIT_RULES_MAX} redact rules (and cap rules) concern the service")));
        }
        self.edits.push(EditRule { names, what });
        Ok(Action::Edit(self.edits.len() as u8 - 1))
    }
}

/// Makes rules go on where the old ones of the same names stand. What these have counted and nobody goes on with is
/// returned, so that it is said all the same.
pub(super) fn adopt(rules: &mut [Rule], old: &[Rule]) -> Vec<Arc<Repeats>> {
    let mut by_name: HashMap<&str, &Rule> = old.iter().map(|rule| (rule.name(), rule)).collect();
    let mut going_on = Vec::new();
    for rule in rules {
        if let Some(before) = by_name.remove(rule.name()) {
            rule.adopt(before);
        }
        if let Action::Dedup(_, _, repeats) = &rule.action {
            going_on.push(Arc::as_ptr(repeats));
        }
    }
    let repeats = old.iter().filter_map(|rule| match &rule.action {
        Action::Dedup(_, _, repeats) => Some(repeats),
        _ => None,
    });
    repeats.filter(|repeats| !going_on.contains(&Arc::as_ptr(repeats))).cloned().collect()
}

/// The share of the 64-bit range that passes; `u64::MAX` means all of it.
fn threshold(rate: f64) -> u64 {
    // A cast of a float saturates: 1.0 becomes u64::MAX.
    (rate * 2f64.powi(64)) as u64
}
