//! Attribute lists as JSON objects, and what the index has to be told about them.

use std::{borrow::Cow, collections::HashMap};

use super::{
    super::{fields::FieldNames, json, number},
    ANY, TERM_CHARS_MAX,
    keys::{FEW, Inner, Keys},
};
use crate::{
    otlp::{AnyView, Attributes, Elements, Pairs},
    text::Out,
};

/// Paths in `opaque`; with more, [`ANY`] takes their place, so that a hostile event costs no quadratic time.
const OPAQUE_MAX: usize = 64;
/// Members of a map that are compared with one another, for the same reason.
const MEMBERS_MAX: usize = 1_024;

/// What the index has to be told about attributes beside their values.
#[derive(Default)]
pub(super) struct Notes<'a> {
    /// Keys of the list with their places in it, and the bits of the numbers' codes.
    numbers: Vec<(usize, &'a str, u64)>,
    /// The same of numbers by other paths, those in maps above all.
    nested: Vec<(String, u64)>,
    opaque: Vec<Cow<'a, str>>,
    /// Whether there is text that does not fit into a term, at any depth.
    pub(super) has_long: bool,
    /// Whether a value is a map: then paths lead into it.
    has_map: bool,
    /// Whether there is a path that does not fit into a term with what stands there: no server takes it.
    pub(super) has_long_path: bool,
}

impl<'a> Notes<'a> {
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.nested.clear();
        self.opaque.clear();
        (self.has_long, self.has_map, self.has_long_path) = (false, false, false);
    }

    pub(super) fn opaque(&mut self, path: Cow<'a, str>) {
        if self.opaque.len() == OPAQUE_MAX {
            self.opaque.push(Cow::Borrowed(ANY));
        } else if self.opaque.len() < OPAQUE_MAX && !self.opaque.contains(&path) {
            self.opaque.push(path);
        }
    }

    pub(super) fn into_owned(self) -> Notes<'static> {
        let numbers = self.numbers.into_iter().map(|(_, path, code)| (path.to_owned(), code));
        Notes {
            numbers: Vec::new(),
            nested: numbers.chain(self.nested).collect(),
            opaque: self.opaque.into_iter().map(|path| Cow::Owned(path.into_owned())).collect(),
            has_long: self.has_long,
            has_map: self.has_map,
            has_long_path: self.has_long_path,
        }
    }

    fn number(&mut self, path: Cow<'a, str>, value: f64) {
        if path.len() <= TERM_CHARS_MAX {
            self.nested.push((path.into_owned(), number::rising(value)));
        }
    }

    fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.numbers.iter().map(|&(_, path, code)| (path, code)).chain(self.nested())
    }

    fn nested(&self) -> impl Iterator<Item = (&str, u64)> {
        self.nested.iter().map(|(path, code)| (path.as_str(), *code))
    }

    fn has_numbers(&self) -> bool {
        self.numbers.len() + self.nested.len() > 0
    }

    fn is_ambiguous(&self) -> bool {
        self.opaque.iter().any(|path| path == ANY)
    }

    /// Writes these notes and the resource's; a number whose path the record has itself is not seen by any expression.
    /// `read` are the record's own attributes, read already.
    #[inline]
    pub(super) fn write(
        &self,
        out: &mut Out,
        resource: &Notes<'static>,
        own: Pairs<'a>,
        read: Attributes<'_, 'a>,
        keys: &impl Keys,
    ) {
        if self.has_numbers() || resource.has_numbers() {
            self.write_numbers(out, resource, own, read, keys);
        }
        if !self.opaque.is_empty() || !resource.opaque.is_empty() {
            self.write_opaque(out, resource);
        }
    }

    #[inline]
    fn write_numbers(
        &self,
        out: &mut Out,
        resource: &Notes<'static>,
        own: Pairs<'a>,
        read: Attributes<'_, 'a>,
        keys: &impl Keys,
    ) {
        // Without a map among them, no path leads to an attribute but its own key.
        let is_own = |path: &str| {
            keys.may_have(path) && read.iter().any(|(name, _)| *name == path)
                || self.has_map && own.find(path).is_some()
        };
        let inherited = resource.numbers().filter(|(path, _)| !is_own(path));
        out.literal(b",\"numbers\":");
        let start = out.len();
        // A path may come from a nested map and from a dotted key: JSON has it once, with both, and `opaque` says so.
        if self.is_ambiguous() || resource.is_ambiguous() {
            let mut numbers: Vec<_> = self.numbers().chain(inherited).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.chunk_by(|a, b| a.0 == b.0).for_each(|codes| several(out, codes));
        } else {
            for &(index, name, code) in &self.numbers {
                keys.key(out, index, name);
                number::write(out, code);
            }
            self.nested().chain(inherited).for_each(|(path, code)| number(out, path, code));
        }
        enclose(out, start, b"{}");
    }

    #[inline(never)]
    fn write_opaque(&self, out: &mut Out, resource: &Notes<'static>) {
        out.literal(b",\"opaque\":");
        let start = out.len();
        let inherited = resource.opaque.iter().filter(|path| !self.opaque.contains(path));
        for path in self.opaque.iter().chain(inherited) {
            out.byte(b',');
            // A path too long to be a term can only be found by looking at every such event.
            out.string(if path.len() > TERM_CHARS_MAX { ANY } else { path });
        }
        enclose(out, start, b"[]");
    }
}

/// `,"path":"code"`
#[inline]
fn number(out: &mut Out, path: &str, code: u64) {
    key(out, path);
    number::write(out, code);
}

/// `,"path":"code"`, or the codes of several in a list.
fn several(out: &mut Out, codes: &[(&str, u64)]) {
    match codes {
        [(path, code)] => number(out, path, *code),
        [(path, _), ..] => {
            key(out, path);
            let start = out.len();
            for (_, code) in codes {
                out.byte(b',');
                number::write(out, *code);
            }
            enclose(out, start, b"[]");
        }
        [] => {}
    }
}

/// Puts brackets around the members written since `start`. Each came with a comma before it, and the opening bracket takes
/// the place of the first comma.
#[inline]
fn enclose(out: &mut Out, start: usize, brackets: &[u8; 2]) {
    if out.len() == start {
        out.literal(brackets);
    } else {
        out.set(start, brackets[0]);
        out.byte(brackets[1]);
    }
}

/// Where a word has bits, the lowest first.
#[inline]
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        lowest
    })
}

/// The attributes that have fields of their own, each as a member with a comma before it.
#[inline]
pub(super) fn fields(out: &mut Out, pairs: Attributes<'_, '_>, keys: &impl Keys, names: FieldNames) {
    for index in bits(keys.known()) {
        if let Some(&(name, value)) = pairs.get(index) {
            keys.field(out, index, name, names);
            match value {
                AnyView::Str(text) => out.string(text),
                AnyView::Int(value) => json::int(out, value),
                _ => scalar(out, value),
            }
        }
    }
}

/// The text `target` of a record, which stands beside its attributes.
#[inline]
pub(super) fn target<'a>(pairs: Attributes<'_, 'a>, keys: &impl Keys) -> Option<&'a str> {
    match pairs.get(keys.target()?) {
        Some(&(_, AnyView::Str(target))) => Some(target),
        _ => None,
    }
}

/// A record's attributes, without those that have fields, and without the text `target`.
#[inline]
pub(super) fn attributes<'a>(out: &mut Out, pairs: Attributes<'_, 'a>, keys: &impl Keys, notes: &mut Notes<'a>) {
    let target = if target(pairs, keys).is_some() { keys.target() } else { None };
    members(out, pairs, keys, target, None, notes);
}

/// A resource's attributes, without those that have fields.
pub(super) fn resource<'a>(out: &mut Out, pairs: Attributes<'_, 'a>, keys: &impl Keys, notes: &mut Notes<'a>) {
    members(out, pairs, keys, None, None, notes);
}

/// A list of keys and values as an object; `parent` is the path of the map they are in.
pub(super) fn object<'a>(out: &mut Out, pairs: Pairs<'a>, parent: Option<&str>, notes: &mut Notes<'a>) {
    let pairs: Vec<_> = pairs.iter().collect();
    members(out, &distinct(&pairs), &Inner, None, parent, notes);
}

#[inline(always)]
fn members<'a>(
    out: &mut Out,
    pairs: Attributes<'_, 'a>,
    keys: &impl Keys,
    left_out: Option<usize>,
    parent: Option<&str>,
    notes: &mut Notes<'a>,
) {
    if pairs.len() > MEMBERS_MAX {
        notes.opaque(Cow::Borrowed(ANY));
    }
    let start = out.len();
    let left_out = left_out.unwrap_or(usize::MAX);
    for index in bits(!keys.known()).chain(64..pairs.len()) {
        let Some(&(name, value)) = pairs.get(index) else { break };
        if index == left_out {
            continue;
        }
        keys.key(out, index, name);
        let is_simple = parent.is_none() && name.len() <= TERM_CHARS_MAX;
        match value {
            AnyView::Str(text) if is_simple && text.len() <= TERM_CHARS_MAX => out.string(text),
            AnyView::Int(value) if is_simple => {
                json::int(out, value);
                notes.numbers.push((index, name, number::rising(value as f64)));
            }
            AnyView::Double(value) if is_simple && value.is_finite() => {
                json::double(out, value);
                notes.numbers.push((index, name, number::rising(value)));
            }
            AnyView::Bool(value) if is_simple => boolean(out, value),
            _ => other(out, pairs, name, value, parent, notes),
        }
    }
    enclose(out, start, b"{}");
}

/// A value that takes more than its JSON.
#[inline(never)]
fn other<'a>(
    out: &mut Out,
    pairs: Attributes<'_, 'a>,
    name: &'a str,
    value: AnyView<'a>,
    parent: Option<&str>,
    notes: &mut Notes<'a>,
) {
    // A map and a dotted key that reaches into it: the index would mix their values up.
    if matches!(value, AnyView::Map(_)) && pairs.len() <= MEMBERS_MAX && reaches_into(pairs, name) {
        notes.opaque(Cow::Borrowed(ANY));
    }
    let path = parent.map_or(Cow::Borrowed(name), |parent| Cow::Owned(format!("{parent}.{name}")));
    notes.has_long_path |= path.len() > TERM_CHARS_MAX;
    self::value(out, value, path, notes);
}

fn reaches_into(pairs: Attributes<'_, '_>, map: &str) -> bool {
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
        AnyView::Bool(value) => boolean(out, value),
        AnyView::Double(value) if value.is_finite() => json::double(out, value),
        AnyView::Empty => out.literal(b"null"),
        // What is not finite, and bytes.
        _ => out.string(&value.text()),
    }
}

#[inline]
fn boolean(out: &mut Out, value: bool) {
    out.put(if value { b"true" } else { b"false" });
}

/// The pairs whose key does not come again, in wire order: Elasticsearch refuses an object that has a key twice, and for the
/// expression language the last one counts.
pub(super) fn distinct<'a>(pairs: Attributes<'_, 'a>) -> Vec<(&'a str, AnyView<'a>)> {
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
