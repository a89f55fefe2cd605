//! Lists of attributes as JSON objects: a resource's, a map's, and those of records that are not written as they are read
//! ([`super::row`]).

use std::{borrow::Cow, collections::HashMap};

use super::{
    super::{
        fields::{self, FieldNames},
        json,
    },
    ANY, FLAT_END, KEPT, TERM_CHARS_MAX,
    keys::{FEW, Seen},
    notes::Notes,
};
use crate::{
    otlp::{AnyView, Elements, Pairs},
    text::Out,
};

/// A list of attributes, read.
pub(super) type List<'r, 'a> = &'r [(&'a str, AnyView<'a>)];

pub(super) const ATTRIBUTES: &[u8; 14] = b",\"attributes\":";

/// Members of a map that are compared with one another: a hostile event costs no quadratic time.
const MEMBERS_MAX: usize = 1_024;

/// Puts brackets around the members written since `start`. Each came with a comma before it, and the opening bracket takes
/// the place of the first comma.
#[inline]
pub(super) fn enclose(out: &mut Out, start: usize, brackets: &[u8; 2]) {
    if out.len() == start {
        out.literal(brackets);
    } else {
        out.set(start, brackets[0]);
        out.byte(brackets[1]);
    }
}

/// Where a word has bits, the lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        lowest
    })
}

/// The attributes that have fields of their own, each as a member with a comma before it.
pub(super) fn fields(out: &mut Out, pairs: List<'_, '_>, seen: &Seen, names: FieldNames) {
    for index in bits(seen.known) {
        if let Some(&(name, value)) = pairs.get(index)
            && let Some(field) = fields::known(name)
        {
            out.put(field.member(names).as_bytes());
            scalar(out, value);
        }
    }
}

/// The text `target` of a record, which stands beside its attributes.
pub(super) fn target<'a>(pairs: List<'_, 'a>, seen: &Seen) -> Option<&'a str> {
    match pairs.get(seen.target?) {
        Some(&(_, AnyView::Str(target))) => Some(target),
        _ => None,
    }
}

/// A record's attributes, without those that have fields, and without the text `target`.
pub(super) fn attributes<'a>(out: &mut Out, pairs: List<'_, 'a>, seen: &Seen, notes: &mut Notes<'a>) {
    let target = if target(pairs, seen).is_some() { seen.target } else { None };
    members(out, pairs, seen.known, target, None, notes);
}

/// A resource's attributes, without those that have fields.
pub(super) fn resource<'a>(out: &mut Out, pairs: List<'_, 'a>, seen: &Seen, notes: &mut Notes<'a>) {
    members(out, pairs, seen.known, None, None, notes);
}

/// A list of keys and values as an object; `parent` is the path of the map they are in.
pub(super) fn object<'a>(out: &mut Out, pairs: Pairs<'a>, parent: Option<&str>, notes: &mut Notes<'a>) {
    let pairs: Vec<_> = pairs.iter().collect();
    members(out, &distinct(&pairs), 0, None, parent, notes);
}

/// `known`: a bit for each of the first 64 that is written elsewhere.
fn members<'a>(
    out: &mut Out,
    pairs: List<'_, 'a>,
    known: u64,
    left_out: Option<usize>,
    parent: Option<&str>,
    notes: &mut Notes<'a>,
) {
    if pairs.len() > MEMBERS_MAX {
        notes.opaque(Cow::Borrowed(ANY));
    }
    let start = out.len();
    for index in bits(!known).chain(64..pairs.len()).filter(|index| left_out != Some(*index)) {
        let Some(&(name, value)) = pairs.get(index) else { break };
        key(out, name);
        // A map and a dotted key that reaches into it: the index would mix their values up.
        if matches!(value, AnyView::Map(_)) && pairs.len() <= MEMBERS_MAX && reaches_into(pairs, name) {
            notes.opaque(Cow::Borrowed(ANY));
        }
        let path = parent.map_or(Cow::Borrowed(name), |parent| Cow::Owned(format!("{parent}.{name}")));
        notes.has_long_path |= path.len() > TERM_CHARS_MAX;
        notes.has_flat_end |= name.contains(FLAT_END);
        self::value(out, value, path, notes);
    }
    enclose(out, start, b"{}");
}

fn reaches_into(pairs: List<'_, '_>, map: &str) -> bool {
    pairs.iter().any(|(other, _)| other.strip_prefix(map).is_some_and(|rest| rest.starts_with('.')))
}

fn value<'a>(out: &mut Out, value: AnyView<'a>, path: Cow<'a, str>, notes: &mut Notes<'a>) {
    match value {
        AnyView::Str(_) | AnyView::Bytes(_) if is_long(value) => {
            notes.has_long = true;
            notes.opaque(path);
        }
        AnyView::Str(_) | AnyView::Bytes(_) | AnyView::Bool(_) => {}
        AnyView::Int(value) => notes.number(path, value as f64),
        AnyView::Double(value) => {
            // In JSON it is text.
            if !value.is_finite() {
                notes.opaque(path.clone());
            }
            notes.number(path, value);
        }
        AnyView::Map(pairs) => {
            notes.has_map = true;
            object(out, pairs, Some(&path), notes);
            notes.opaque(path);
            return;
        }
        AnyView::Array(elements) => {
            array(out, elements, &path, notes);
            notes.opaque(path);
            return;
        }
        AnyView::Empty => notes.opaque(path),
    }
    scalar(out, value);
}

/// No path leads into a list, but the index makes one for the maps in it.
fn array<'a>(out: &mut Out, elements: Elements<'a>, path: &str, notes: &mut Notes<'a>) {
    let start = out.len();
    for element in elements {
        out.byte(b',');
        match element {
            AnyView::Map(pairs) => {
                notes.opaque(Cow::Borrowed(ANY));
                let mut inside = Notes::default();
                object(out, pairs, Some(path), &mut inside);
                notes.has_long |= inside.has_long;
                notes.has_long_path |= inside.has_long_path;
            }
            AnyView::Array(inner) => array(out, inner, path, notes),
            _ => {
                notes.has_long |= is_long(element);
                scalar(out, element);
            }
        }
    }
    enclose(out, start, b"[]");
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

fn scalar(out: &mut Out, value: AnyView<'_>) {
    match value {
        AnyView::Str(text) => out.string(text),
        AnyView::Int(value) => json::int(out, value),
        AnyView::Bool(value) => json::boolean(out, value),
        AnyView::Double(value) if value.is_finite() => json::double(out, value),
        AnyView::Empty => out.literal(b"null"),
        // What is not finite, and bytes.
        _ => out.string(&value.text()),
    }
}

/// The pairs whose key does not come again, in wire order: Elasticsearch refuses an object that has a key twice, and for the
/// expression language the last one counts.
pub(super) fn distinct<'a>(pairs: List<'_, 'a>) -> Vec<(&'a str, AnyView<'a>)> {
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

/// `,"name":`. A flattened field refuses the whole document for a NUL in a key, so a replacement character stands for it.
#[inline(always)]
pub(super) fn key(out: &mut Out, name: &str) {
    if !out.plain(b",\"", name, b"\":") {
        out.byte(b',');
        out.string(&name.replace('\0', "\u{fffd}"));
        out.byte(b':');
    }
}

/// Gives the member that begins at `start` the name that is not indexed.
#[cold]
pub(super) fn keep(out: &mut Out, start: usize, member: &[u8]) {
    let value = out.as_bytes()[start + member.len()..].to_vec();
    out.truncate(start);
    let (name, end) = member.split_at(member.len() - 2);
    for bytes in [name, KEPT.as_bytes(), end, &value] {
        out.put(bytes);
    }
}
