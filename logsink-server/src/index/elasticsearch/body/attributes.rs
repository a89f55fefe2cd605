//! Attribute lists as JSON objects, and what the index has to be told about them.

use std::{borrow::Cow, collections::HashMap};

use super::{
    super::{
        json::{self, string},
        number,
    },
    ANY, TERM_CHARS_MAX,
};
use crate::otlp::{AnyView, Attributes, Elements, Pairs};

/// Paths in `opaque`; with more, [`ANY`] takes their place, so that a hostile event costs no quadratic time.
const OPAQUE_MAX: usize = 64;
/// Members of a map that are compared with one another, for the same reason.
const MEMBERS_MAX: usize = 1_024;

/// What the index has to be told about attributes beside their values.
#[derive(Default)]
pub(super) struct Notes<'a> {
    /// Paths, and the bits of the numbers' codes.
    numbers: Vec<(Cow<'a, str>, u64)>,
    opaque: Vec<Cow<'a, str>>,
    /// Whether there is text that does not fit into a term, at any depth.
    pub(super) has_long: bool,
}

impl<'a> Notes<'a> {
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.opaque.clear();
        self.has_long = false;
    }

    pub(super) fn opaque(&mut self, path: Cow<'a, str>) {
        if self.opaque.len() == OPAQUE_MAX {
            self.opaque.push(Cow::Borrowed(ANY));
        } else if self.opaque.len() < OPAQUE_MAX && !self.opaque.contains(&path) {
            self.opaque.push(path);
        }
    }

    /// Adds a resource's notes; a number whose path the record has itself is not seen by any expression.
    /// `read` are the record's own attributes, read already.
    pub(super) fn inherit(&mut self, resource: &Notes<'a>, own: Pairs<'a>, read: Attributes<'_, 'a>) {
        // Without a map among them, no path leads to an attribute but its own key.
        let is_nested = !resource.numbers.is_empty() && read.iter().any(|(_, value)| matches!(value, AnyView::Map(_)));
        for (path, code) in &resource.numbers {
            let is_own = read.iter().any(|(name, _)| name == path) || is_nested && own.find(path).is_some();
            if !is_own {
                self.numbers.push((path.clone(), *code));
            }
        }
        for path in &resource.opaque {
            self.opaque(path.clone());
        }
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        if !self.numbers.is_empty() {
            // A path may come from a nested map and from a dotted key: JSON has it once, and `opaque` says so.
            let ambiguous = self.opaque.iter().any(|path| path == ANY);
            if ambiguous {
                self.numbers.sort_unstable();
                self.numbers.dedup_by(|a, b| a.0 == b.0);
            }
            out.extend_from_slice(b",\"numbers\":{");
            for (index, (path, code)) in self.numbers.iter().enumerate() {
                comma(out, index);
                key(out, path);
                out.push(b'"');
                number::write(out, *code);
                out.push(b'"');
            }
            out.push(b'}');
        }
        if !self.opaque.is_empty() {
            out.extend_from_slice(b",\"opaque\":[");
            for (index, path) in self.opaque.iter().enumerate() {
                comma(out, index);
                // A path too long to be a term can only be found by looking at every such event.
                string(out, if path.len() > TERM_CHARS_MAX { ANY } else { path });
            }
            out.push(b']');
        }
    }
}

/// A record's attributes, without the text `target`: it stands beside them, under the same name.
pub(super) fn attributes<'a>(out: &mut Vec<u8>, pairs: Attributes<'_, 'a>, notes: &mut Notes<'a>) {
    let distinct = is_repetitive(pairs).then(|| distinct(pairs));
    let pairs = distinct.as_deref().unwrap_or(pairs);
    members(out, pairs, |name, value| name == "target" && matches!(value, AnyView::Str(_)), None, notes);
}

/// A list of keys and values as an object; `parent` is the path of the map they are in.
pub(super) fn object<'a>(out: &mut Vec<u8>, pairs: Pairs<'a>, parent: Option<&str>, notes: &mut Notes<'a>) {
    let pairs: Vec<_> = pairs.iter().collect();
    members(out, &distinct(&pairs), |_, _| false, parent, notes);
}

fn members<'a>(
    out: &mut Vec<u8>,
    pairs: Attributes<'_, 'a>,
    skip: impl Fn(&str, AnyView<'a>) -> bool,
    parent: Option<&str>,
    notes: &mut Notes<'a>,
) {
    if pairs.len() > MEMBERS_MAX {
        notes.opaque(Cow::Borrowed(ANY));
    }
    out.push(b'{');
    let mut written = 0;
    for &(name, value) in pairs {
        if skip(name, value) {
            continue;
        }
        comma(out, written);
        written += 1;
        key(out, name);
        // A map and a dotted key that reaches into it: the index would mix their values up.
        if matches!(value, AnyView::Map(_))
            && pairs.len() <= MEMBERS_MAX
            && pairs.iter().any(|(other, _)| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        {
            notes.opaque(Cow::Borrowed(ANY));
        }
        let path = parent.map_or(Cow::Borrowed(name), |parent| Cow::Owned(format!("{parent}.{name}")));
        notes.has_long |= path.len() > TERM_CHARS_MAX;
        self::value(out, value, path, notes);
    }
    out.push(b'}');
}

fn value<'a>(out: &mut Vec<u8>, value: AnyView<'a>, path: Cow<'a, str>, notes: &mut Notes<'a>) {
    match value {
        AnyView::Str(_) | AnyView::Bytes(_) if is_long(value) => {
            notes.has_long = true;
            notes.opaque(path);
        }
        AnyView::Str(_) | AnyView::Bytes(_) | AnyView::Bool(_) => {}
        AnyView::Int(value) => notes.numbers.push((path, number::rising(value as f64))),
        AnyView::Double(value) => {
            // In JSON it is text.
            if !value.is_finite() {
                notes.opaque(path.clone());
            }
            notes.numbers.push((path, number::rising(value)));
        }
        AnyView::Map(pairs) => {
            object(out, pairs, Some(&path), notes);
            notes.opaque(path);
            return;
        }
        AnyView::Array(elements) => {
            array(out, elements, notes);
            notes.opaque(path);
            return;
        }
        AnyView::Empty => notes.opaque(path),
    }
    scalar(out, value);
}

/// No path leads into a list, but the index makes one for the maps in it.
fn array<'a>(out: &mut Vec<u8>, elements: Elements<'a>, notes: &mut Notes<'a>) {
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        comma(out, index);
        match element {
            AnyView::Map(pairs) => {
                notes.opaque(Cow::Borrowed(ANY));
                let mut inside = Notes::default();
                object(out, pairs, None, &mut inside);
                notes.has_long |= inside.has_long;
            }
            AnyView::Array(inner) => array(out, inner, notes),
            _ => {
                notes.has_long |= is_long(element);
                scalar(out, element);
            }
        }
    }
    out.push(b']');
}

/// Whether a value's text is too long for a term.
fn is_long(value: AnyView<'_>) -> bool {
    match value {
        AnyView::Str(text) => text.len() > TERM_CHARS_MAX,
        // Three bytes make four characters.
        AnyView::Bytes(bytes) => bytes.len() > TERM_CHARS_MAX / 4 * 3,
        _ => false,
    }
}

fn scalar(out: &mut Vec<u8>, value: AnyView<'_>) {
    match value {
        AnyView::Str(text) => string(out, text),
        AnyView::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        AnyView::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        // Writing into a Vec does not fail, and no scalar fails to serialize.
        _ => _ = serde_json::to_writer(out, &value),
    }
}

/// Whether a key may stand twice. A long list may be suspected wrongly; a short one of different keys costs a bit for each
/// and no table.
fn is_repetitive(pairs: Attributes<'_, '_>) -> bool {
    let mut seen = 0_u64;
    for (index, (name, _)) in pairs.iter().enumerate() {
        let bytes = name.as_bytes();
        let hash = bytes.len() * 5 + bytes.last().map_or(0, |&last| usize::from(last));
        let bit = 1 << (hash % 64);
        if seen & bit != 0 && (index > FEW || pairs[..index].iter().any(|(earlier, _)| earlier == name)) {
            return true;
        }
        seen |= bit;
    }
    false
}

/// Up to here looking through all of them is cheaper than a table.
const FEW: usize = 32;

/// The pairs whose key does not come again, in wire order: Elasticsearch refuses an object that has a key twice, and for the
/// expression language the last one counts.
fn distinct<'a>(pairs: Attributes<'_, 'a>) -> Vec<(&'a str, AnyView<'a>)> {
    let mut all = pairs.to_vec();
    if all.len() <= FEW {
        for index in (0..all.len()).rev() {
            if all[index + 1..].iter().any(|(later, _)| *later == all[index].0) {
                all.remove(index);
            }
        }
        return all;
    }
    let last: HashMap<&str, usize> = pairs.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
    let mut index = 0..;
    all.retain(|(name, _)| index.next() == last.get(name).copied());
    all
}

fn comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// `"name":`. A flattened field refuses the whole document for a NUL in a key, so a replacement character stands for it.
fn key(out: &mut Vec<u8>, name: &str) {
    if json::is_plain(name) {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        return;
    }
    string(out, &name.replace('\0', "\u{fffd}"));
    out.push(b':');
}
