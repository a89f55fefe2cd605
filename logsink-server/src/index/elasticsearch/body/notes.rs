//! What the index has to be told about attributes beside their values: `numbers` and `opaque` (see [`super`]).

use std::borrow::Cow;

use super::{
    super::number,
    ANY, TERM_CHARS_MAX,
    attributes::{List, enclose, key},
    keys::Seen,
};
use crate::{otlp::Pairs, text::Out};

/// Paths in `opaque`; with more, [`ANY`] takes their place, so that a hostile event costs no quadratic time.
const OPAQUE_MAX: usize = 64;

/// Of a record or a resource.
#[derive(Default)]
pub(super) struct Notes<'a> {
    /// Paths, and the bits of the numbers' codes.
    numbers: Vec<(Cow<'a, str>, u64)>,
    opaque: Vec<Cow<'a, str>>,
    /// Whether there is text that does not fit into a term, at any depth.
    pub(super) has_long: bool,
    /// Whether a value is a map: then paths lead into it.
    pub(super) has_map: bool,
    /// Whether there is a path that does not fit into a term with what stands there: no server takes it.
    pub(super) has_long_path: bool,
    /// Whether a key has [`FLAT_END`](super::FLAT_END) in it.
    pub(super) has_flat_end: bool,
}

impl<'a> Notes<'a> {
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.opaque.clear();
        (self.has_long, self.has_map) = (false, false);
        (self.has_long_path, self.has_flat_end) = (false, false);
    }

    pub(super) fn opaque(&mut self, path: Cow<'a, str>) {
        if self.opaque.len() == OPAQUE_MAX {
            self.opaque.push(Cow::Borrowed(ANY));
        } else if self.opaque.len() < OPAQUE_MAX && !self.opaque.contains(&path) {
            self.opaque.push(path);
        }
    }

    pub(super) fn number(&mut self, path: Cow<'a, str>, value: f64) {
        if path.len() <= TERM_CHARS_MAX {
            self.numbers.push((path, number::rising(value)));
        }
    }

    pub(super) fn into_owned(self) -> Notes<'static> {
        let owned = |path: Cow<'_, str>| Cow::Owned(path.into_owned());
        Notes {
            numbers: self.numbers.into_iter().map(|(path, code)| (owned(path), code)).collect(),
            opaque: self.opaque.into_iter().map(owned).collect(),
            has_long: self.has_long,
            has_map: self.has_map,
            has_long_path: self.has_long_path,
            has_flat_end: self.has_flat_end,
        }
    }

    /// Whether a path may come from several places, a nested map and a dotted key.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.opaque.iter().any(|path| path == ANY)
    }

    fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.numbers.iter().map(|(path, code)| (&**path, *code))
    }

    /// Writes these notes and the resource's; a number whose path the record has itself is not seen by any expression.
    /// `read` are the record's `own` attributes, read already.
    pub(super) fn write(
        &self,
        out: &mut Out,
        resource: &Notes<'static>,
        own: Pairs<'a>,
        read: List<'_, 'a>,
        seen: &Seen,
    ) {
        // Without a map among them, no path leads to an attribute but its own key.
        let is_own = |path: &str| {
            seen.may_have(path) && read.iter().any(|(name, _)| *name == path)
                || self.has_map && own.find(path).is_some()
        };
        if !self.numbers.is_empty() || !resource.numbers.is_empty() {
            let numbers = self.numbers().chain(resource.numbers().filter(|(path, _)| !is_own(path)));
            // JSON has a path that comes from several places once, with the numbers of all, and `opaque` says so.
            if self.is_ambiguous() || resource.is_ambiguous() {
                let mut numbers: Vec<_> = numbers.collect();
                numbers.sort_unstable();
                numbers.dedup();
                write_numbers(out, |out| numbers.chunk_by(|a, b| a.0 == b.0).for_each(|codes| several(out, codes)));
            } else {
                write_numbers(out, |out| numbers.for_each(|(path, code)| number(out, path, code)));
            }
        }
        let inherited = resource.opaque.iter().filter(|path| !self.opaque.contains(path));
        write_opaque(out, self.opaque.iter().chain(inherited));
    }

    /// Writes these notes of a resource, beside the `numbers` of a record of which the index has to be told nothing else: members
    /// as they stand in JSON. `is_own` says which paths the record has itself.
    #[inline]
    pub(super) fn write_inherited(&self, out: &mut Out, numbers: &[u8], is_own: impl Fn(&str) -> bool) {
        if !numbers.is_empty() || !self.numbers.is_empty() {
            write_numbers(out, |out| {
                out.put(numbers);
                self.numbers().filter(|(path, _)| !is_own(path)).for_each(|(path, code)| number(out, path, code));
            });
        }
        if !self.opaque.is_empty() {
            write_opaque(out, self.opaque.iter());
        }
    }
}

#[inline]
fn write_numbers(out: &mut Out, members: impl FnOnce(&mut Out)) {
    out.literal(b",\"numbers\":");
    let start = out.len();
    members(out);
    enclose(out, start, b"{}");
}

fn write_opaque<'p, 'n: 'p>(out: &mut Out, paths: impl Iterator<Item = &'p Cow<'n, str>>) {
    let member = out.len();
    out.literal(b",\"opaque\":");
    let start = out.len();
    for path in paths {
        out.byte(b',');
        // A path too long to be a term can only be found by looking at every such event.
        out.string(if path.len() > TERM_CHARS_MAX { ANY } else { path });
    }
    if out.len() == start {
        out.truncate(member);
    } else {
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
