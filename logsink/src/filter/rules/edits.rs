//! What the matching `redact` and `cap` rules change in an event's values.
//!
//! A value that is redacted by its name is replaced whole. In other texts the patterns of all rules are replaced, and then the
//! smallest cap cuts, so that no secret is cut in half and with that hidden from its pattern.

use super::{Finder, Names};
use crate::encode::{cut, write_marker};

/// What a redacted value becomes.
pub const REDACTED: &str = "[redacted]";

/// Replacing patterns may make a text longer than it was by so much; beyond, the text is replaced as a whole, because a record
/// has to fit where it was.
const GROWTH_BYTES_MAX: usize = 1024;

/// One `redact` or `cap` rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EditRule {
    /// Left out: every text, `target` aside.
    pub(super) names: Option<Names>,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// The value becomes this text.
    Replace(String),
    /// What is found in it becomes this text.
    Find(Vec<Finder>, String),
    /// It has so many bytes at most.
    Cap(usize),
}

impl EditRule {
    fn covers(&self, path: &str) -> bool {
        match &self.names {
            Some(names) => names.cover(path),
            None => path != "target",
        }
    }
}

/// What the matching `redact` and `cap` rules change.
#[derive(Clone, Copy)]
pub struct Edits<'a> {
    rules: &'a [EditRule],
    /// The bits of the rules that matched.
    matched: u64,
}

/// Which rules of a set matched: [`Edits`] without their lifetime, for [`super::RuleSet::edits`] of the same set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Matched(pub(super) u64);

/// Room to write changed text in, kept between events.
#[derive(Debug, Default)]
pub struct Buffers {
    text: String,
    next: String,
}

impl<'a> Edits<'a> {
    /// Nothing is to be changed.
    pub const NONE: Self = Self { rules: &[], matched: 0 };

    pub(super) fn new(rules: &'a [EditRule], Matched(matched): Matched) -> Self {
        Self { rules, matched }
    }

    /// Which rules matched.
    pub fn matched(&self) -> Matched {
        Matched(self.matched)
    }

    pub(super) fn add(&mut self, rule: u8) {
        self.matched |= 1 << rule;
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.matched == 0
    }

    fn rules(&self) -> impl Iterator<Item = &'a EditRule> + use<'a> {
        let matched = self.matched;
        self.rules.iter().enumerate().filter(move |(bit, _)| matched >> bit & 1 == 1).map(|(_, rule)| rule)
    }

    /// The fields that are to be redacted whole, as the rules name them; `message` for the message itself.
    pub fn fields(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.rules()
            .filter(|rule| matches!(rule.what, What::Replace(_)))
            .flat_map(|rule| rule.names.iter().flat_map(Names::iter))
    }

    /// Whether the value at this path must be replaced whole: it is named, or lies below a named one.
    pub fn covers(&self, path: &str) -> bool {
        self.replacement(path).is_some()
    }

    /// The text that takes the place of the value at this path, `message` for the message, when it is to be redacted whole.
    pub fn replacement(&self, path: &str) -> Option<&'a str> {
        self.rules().find_map(|rule| match &rule.what {
            What::Replace(with) if rule.covers(path) => Some(&**with),
            _ => None,
        })
    }

    /// Whether something below the map or list at this path may have to be changed.
    pub fn reach_below(&self, path: &str) -> bool {
        self.rules().any(|rule| rule.covers(path) || rule.names.as_ref().is_none_or(|names| names.reach_below(path)))
    }

    /// The text at this path with everything found in it replaced, and cut; `None` when nothing changes. Not asked where the
    /// whole value is replaced.
    pub fn text<'b>(&self, path: &str, text: &str, buffers: &'b mut Buffers) -> Option<&'b str> {
        let Buffers { text: edited, next } = buffers;
        let mut changed = false;
        let mut cap = usize::MAX;
        for rule in self.rules().filter(|rule| rule.covers(path)) {
            match &rule.what {
                What::Replace(_) => {}
                What::Cap(bytes_max) => cap = cap.min(*bytes_max),
                What::Find(finders, with) => {
                    for finder in finders {
                        next.clear();
                        let before = if changed { edited.as_str() } else { text };
                        if finder.replace(before, with, next) {
                            std::mem::swap(edited, next);
                            changed = true;
                            if edited.len() > text.len() + GROWTH_BYTES_MAX {
                                edited.clear();
                                edited.push_str(REDACTED);
                            }
                        }
                    }
                }
            }
        }
        let length = if changed { edited.len() } else { text.len() };
        if length > cap {
            if !changed {
                edited.clear();
                edited.push_str(cut(text, cap));
            } else {
                edited.truncate(cut(edited, cap).len());
            }
            let missing = length - edited.len();
            // Writing to a string does not fail.
            let _ = write_marker(edited, missing);
            changed = true;
        }
        changed.then_some(&**edited)
    }

    /// How many of this many bytes at this path stay. Bytes have no place for a marker.
    pub fn bytes(&self, path: &str, length: usize) -> usize {
        let caps = self.rules().filter_map(|rule| match rule.what {
            What::Cap(bytes_max) if rule.covers(path) => Some(bytes_max),
            _ => None,
        });
        caps.fold(length, usize::min)
    }
}

impl std::fmt::Debug for Edits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rules()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Option<Names> {
        Some(Names::new(names.iter().map(|name| (*name).to_owned())))
    }

    fn find(pattern: &str, with: &str) -> What {
        What::Find(vec![Finder::pattern(pattern).unwrap()], with.to_owned())
    }

    fn rules() -> Vec<EditRule> {
        vec![
            EditRule { names: names(&["password"]), what: What::Replace(REDACTED.to_owned()) },
            EditRule { names: None, what: find("[0-9]{4,}", "#") },
            EditRule { names: names(&["note"]), what: find("#", "##") },
            EditRule { names: names(&["*"]), what: What::Cap(8) },
            EditRule { names: names(&["short"]), what: What::Cap(3) },
            EditRule { names: names(&["grown"]), what: find("x", &"y".repeat(100)) },
        ]
    }

    fn edited(matched: u64, path: &str, text: &str) -> Option<String> {
        let rules = rules();
        let mut buffers = Buffers { text: "left over".to_owned(), next: "of another".to_owned() };
        Edits::new(&rules, Matched(matched)).text(path, text, &mut buffers).map(str::to_owned)
    }

    #[test]
    fn patterns_are_replaced_one_after_the_other_and_caps_cut_last() {
        for (matched, path, text, expected) in [
            (0b11, "a", "pin 12345 and 9999", Some("pin # and #")),
            (0b11, "a", "pin 123", None),
            (0b11, "target", "12345", None),
            (0b111, "note", "pin 12345", Some("pin ##")),
            (0b101, "a", "12345#", None),
            (0b1010, "a", "1234567890", Some("#")),
            (0b1000, "a", "12345678", None),
            (0b1000, "a", "123456789", Some("12345678…[truncated, 1 bytes]")),
            (0b1000, "a", "kůň žlutý", Some("kůň ž…[truncated, 5 bytes]")),
            (0b11_000, "short", "žžž", Some("ž…[truncated, 4 bytes]")),
            (0b11_000, "short.er", "abcd", Some("abc…[truncated, 1 bytes]")),
            (0b1000, "target", "123456789", None),
            (0b100_000, "grown", "xxxxxxxxxxxxxxxxxxxx", Some(REDACTED)),
        ] {
            assert_eq!(edited(matched, path, text).as_deref(), expected, "{matched:b} {path} {text}");
        }
    }

    #[test]
    fn only_the_rules_that_matched_count() {
        let rules = rules();
        let edits = |matched| Edits::new(&rules, Matched(matched));
        assert_eq!(edits(1).replacement("password.old"), Some(REDACTED));
        assert_eq!(edits(0b11_1110).replacement("password.old"), None);
        assert!(edits(0).is_empty() && Edits::NONE.is_empty() && !Edits::NONE.covers("password"));
        assert!(edits(0b10).reach_below("anything") && !edits(1).reach_below("anything"));
        assert_eq!((edits(0b11_000).bytes("short", 100), edits(0b1000).bytes("short", 5)), (3, 5));
    }
}
