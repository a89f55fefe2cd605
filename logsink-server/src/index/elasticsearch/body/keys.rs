//! One look at a record's keys before anything is written: does one stand twice, is there a map, where is `target`, which of
//! them have fields of their own.

use super::super::fields::{self, Known, Owner};
use crate::otlp::{AnyView, Attributes};

/// Up to here looking through all of them is cheaper than a table.
pub(super) const FEW: usize = 32;

/// What the keys of a list are like.
pub(super) struct Keys {
    /// A bit for each key's hash.
    seen: [u64; WORDS],
    /// Whether one may stand twice; for certain it does when there are few.
    pub(super) are_repetitive: bool,
    /// Whether a value is a map: then paths lead into it.
    pub(super) have_map: bool,
    /// Where the last `target` is.
    target: Option<usize>,
    /// A bit for each of the first 64 pairs that has a field of its own.
    known: u64,
    /// What those are.
    fields: [Option<&'static Known>; KNOWN_MAX],
}

/// A thousand bits: of ten different keys, two share one in a list out of twenty.
const WORDS: usize = 16;
/// As many of a list's well-known attributes go into their fields: more than a request has.
const KNOWN_MAX: usize = 12;

impl Keys {
    /// `owner` is whose attributes they are.
    #[inline]
    pub(super) fn of(pairs: Attributes<'_, '_>, owner: Owner) -> Self {
        // Bits of pairs; those from the 65th on have none.
        let (mut place, mut candidates, mut targets) = (1_u64, 0, 0);
        let (mut seen, mut is_suspect, mut have_map) = ([0; WORDS], false, false);
        for (name, value) in pairs {
            let hash = fields::hash(name);
            let (word, bit) = self::place(hash);
            is_suspect |= seen[word] & bit != 0;
            seen[word] |= bit;
            have_map |= matches!(value, AnyView::Map(_));
            if *name == "target" {
                targets |= place;
            }
            if fields::may_be_known(hash) {
                candidates |= place;
            }
            place <<= 1;
        }
        let mut keys = Self {
            seen,
            are_repetitive: is_suspect && repeats(pairs),
            have_map,
            target: targets.checked_ilog2().map(|bit| bit as usize),
            known: 0,
            fields: [None; KNOWN_MAX],
        };
        if pairs.len() > 64 {
            keys.target = pairs.iter().rposition(|(name, _)| *name == "target");
        }
        keys.find_known(candidates, pairs, owner);
        keys
    }

    #[inline]
    fn find_known(&mut self, mut candidates: u64, pairs: Attributes<'_, '_>, owner: Owner) {
        let mut slots = self.fields.iter_mut();
        while let Some((name, value)) = pairs.get(candidates.trailing_zeros() as usize)
            && candidates != 0
        {
            let rest = candidates & (candidates - 1);
            if let Some(field) = fields::known(name)
                && field.owner == owner
                && field.takes(*value)
            {
                let Some(slot) = slots.next() else { return };
                *slot = Some(field);
                self.known |= candidates ^ rest;
            }
            candidates = rest;
        }
    }

    /// Whether this may be one of the keys.
    #[inline]
    pub(super) fn may_have(&self, key: &str) -> bool {
        let (word, bit) = place(fields::hash(key));
        self.seen[word] & bit != 0
    }

    /// The last `target` when it is text.
    #[inline]
    pub(super) fn target<'a>(&self, pairs: Attributes<'_, 'a>) -> Option<&'a str> {
        match pairs.get(self.target?) {
            Some(&(_, AnyView::Str(target))) => Some(target),
            _ => None,
        }
    }

    /// Whether the pair at this index has a field of its own.
    #[inline]
    pub(super) fn has_field(&self, index: usize) -> bool {
        index < 64 && self.known >> index & 1 == 1
    }

    /// The pairs that have fields of their own.
    #[inline]
    pub(super) fn known<'a>(&self, pairs: Attributes<'_, 'a>) -> impl Iterator<Item = (&'static Known, AnyView<'a>)> {
        let mut left = self.known;
        self.fields.iter().map_while(move |field| {
            let (_, value) = pairs.get(left.trailing_zeros() as usize)?;
            left &= left.wrapping_sub(1);
            Some(((*field)?, *value))
        })
    }
}

/// Whether a key stands twice; a long list may be suspected wrongly.
#[cold]
fn repeats(pairs: Attributes<'_, '_>) -> bool {
    pairs.len() > FEW
        || pairs.iter().enumerate().any(|(index, (name, _))| pairs[..index].iter().any(|(earlier, _)| earlier == name))
}

/// The word that a hash's bit is in, and the bit.
#[inline]
fn place(hash: u16) -> (usize, u64) {
    (usize::from(hash >> 6) % WORDS, 1 << (hash & 63))
}
