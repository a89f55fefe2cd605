//! What is sent beside an event's own fields, and what never is.

use std::sync::{Mutex, PoisonError};

use crate::filter::rules::Names;

/// What is sent beside an event's own fields, level, message and target, and which values are not.
///
/// # How the fields of spans become fields of events
///
/// An event inside spans gets their fields under their own names, without the names of the spans. Where names meet:
///
/// - the event's own field stays, and that of the span is left out;
/// - of several spans, the innermost with a field of that name gives it;
/// - of values that one span was given for a name, at its creation or by `record`, the last one counts, for the events that
///   follow;
/// - what the library writes itself stays, and a span's field of such a name is left out: `target`, `code.file.path`, `code.line.number`,
///   `code.namespace`, and where they are captured `thread.name`, `thread.id`, `span.name`, `span.path`. An event's own field of such a
///   name is sent in the library's stead.
///
/// A span's field `message` is an attribute of that name; the event's message is its own. Fields are added from the innermost span
/// out, 16 KiB of them at most: of what is beyond, the event's `truncated` counter tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capture {
    /// `code.file.path`, `code.line.number`, and `code.namespace` where the module is not the target. Default: yes.
    pub location: bool,
    /// `thread.name` and `thread.id`. Default: yes.
    pub thread: bool,
    /// `span.name`, `span.path` and the fields of the spans around the event. Default: yes.
    pub spans: bool,
    /// Which fields of the spans. Default: all.
    pub span_fields: SpanFields,
    /// Fields whose values are replaced by `[redacted]` when they would be encoded, whatever the rules say: also in what only the
    /// console or the flight recorder gets. Rules see `[redacted]` too. Default: none.
    pub redact: FieldNames,
}

impl Default for Capture {
    fn default() -> Self {
        Self { location: true, thread: true, spans: true, span_fields: SpanFields::All, redact: FieldNames::NONE }
    }
}

/// Which fields of the spans around an event are sent with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpanFields {
    /// All.
    All,
    /// None.
    None,
    /// Those of these names.
    Only(FieldNames),
}

impl SpanFields {
    pub(crate) fn include(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(names) => names.cover(name),
        }
    }
}

/// Names of fields, each with all that lies below it; `*` stands for any text. See [`Names`].
///
/// It can be copied and compared at once, because equal lists are kept once, for good: a process has a few, from its settings.
#[derive(Clone, Copy)]
pub struct FieldNames(&'static Names);

static NO_NAMES: Names = Names::NONE;
static KNOWN: Mutex<Vec<&'static Names>> = Mutex::new(Vec::new());

impl FieldNames {
    /// No names.
    pub const NONE: Self = Self(&NO_NAMES);

    /// These names.
    ///
    /// # Errors
    /// When there are more than 256, or one is empty, longer than 256 bytes, or of something that is not a field: `level`,
    /// `service`, `trace_id`, `span_id`.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        let names = Names::new(names.into_iter().map(Into::into));
        names.check()?;
        if names == NO_NAMES {
            return Ok(Self::NONE);
        }
        // Whole after every statement.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.iter().find(|known| ***known == names) {
            return Ok(Self(same));
        }
        let kept: &'static Names = Box::leak(Box::new(names));
        known.push(kept);
        Ok(Self(kept))
    }

    /// Whether this field is named, or lies below one that is.
    pub fn cover(self, path: &str) -> bool {
        self.0.cover(path)
    }

    /// The names as written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter()
    }
}

impl PartialEq for FieldNames {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for FieldNames {}

impl std::hash::Hash for FieldNames {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self.0).addr().hash(state);
    }
}

impl std::fmt::Debug for FieldNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one() {
        let names = |names: &[&str]| FieldNames::new(names.iter().copied());
        assert_eq!(names(&["password", "*key"]), names(&["password", "*key"]));
        assert_ne!(names(&["password", "*key"]), names(&["password"]));
        assert_eq!(names(&[]), Ok(FieldNames::NONE));
        for (wrong, message) in [("", "is empty"), ("level", "`level`"), (&"x".repeat(257), "256 bytes")] {
            let error = names(&["fine", wrong]).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        assert!(FieldNames::new((0..257).map(|n| n.to_string())).is_err());
    }
}
