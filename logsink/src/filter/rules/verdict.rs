//! What the rules say about one event.

use super::Edits;
use crate::{Severity, filter::Fate};

/// The attribute that tells how many events like this one were dropped before it.
pub const REPEATED: &str = "logsink.repeated";

/// What happens to one event.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    /// Whether it goes on.
    pub fate: Fate,
    /// The level it gets instead of its own.
    pub level: Option<Severity>,
    /// What must not leave as it is.
    pub edits: Edits<'a>,
    /// How many like it a `dedup` rule has dropped before it, of which nothing has been said.
    pub repeated: u64,
    /// Whether the flight recorder sends what it has kept of this event's span tree. Of no meaning where the event is dropped.
    pub release: bool,
}

impl Verdict<'_> {
    /// Whether an event that goes on has to be changed.
    pub fn changes(&self) -> bool {
        self.level.is_some() || self.repeated > 0 || !self.edits.is_empty()
    }
}
