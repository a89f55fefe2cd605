//! What the rules say about one event.

use super::{Action, Rule};
use crate::{Severity, filter::Fate};

/// What a redacted value becomes.
pub const REDACTED: &str = "[redacted]";

/// What happens to one event.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    /// Whether it goes on.
    pub fate: Fate,
    /// The level it gets instead of its own.
    pub level: Option<Severity>,
    /// What must not leave in clear.
    pub redact: Redactions<'a>,
    /// Whether the flight recorder sends what it has kept of this event's span tree. Of no meaning where the event is dropped.
    pub release: bool,
}

/// The fields that the matching `redact` rules name.
#[derive(Clone, Copy)]
pub struct Redactions<'a> {
    pub(super) rules: &'a [Rule],
    /// The bits of the `redact` rules that matched.
    pub(super) matched: u64,
}

impl<'a> Redactions<'a> {
    /// Nothing is to be redacted.
    pub const NONE: Self = Self { rules: &[], matched: 0 };

    /// Whether nothing is to be redacted.
    pub fn is_empty(&self) -> bool {
        self.matched == 0
    }

    /// The fields named, `message` for the message itself.
    pub fn fields(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let matched = self.matched;
        // A set of 2,000 rules is walked only for an event that has something to redact.
        self.rules
            .iter()
            .filter_map(move |rule| match &rule.action {
                Action::Redact(bit, fields) if matched & (1 << bit) != 0 => Some(fields.iter().map(String::as_str)),
                _ => None,
            })
            .flatten()
    }

    /// Whether this attribute's value must be replaced by [`REDACTED`]: it is named, or lies below a named one
    /// (`user` covers `user.email`).
    pub fn covers(&self, key: &str) -> bool {
        self.matched != 0
            && self
                .fields()
                .any(|field| key.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }
}

impl std::fmt::Debug for Redactions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fields()).finish()
    }
}
