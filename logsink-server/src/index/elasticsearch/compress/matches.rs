//! What of a body stands in it already.
//!
//! A body is lines of JSON with the same members again and again: between two values there is always text that an earlier line has
//! too. So it is looked for only where a member begins, and where a match has ended, which is where a value begins; a library, which
//! is for text of any kind, looks every few bytes. Where members are far apart, in long messages, little is found this way, and the
//! caller sees that by [`Block::literals`].

use std::ops::Range;

use crate::text::{MEMBERS, alike, members};

/// Shorter matches cost more to write down than they save.
pub(super) const LENGTH_MIN: usize = 8;
/// How far behind a place is looked at, at most: for what [`members`] takes, and a member that begins at its end.
const AHEAD: usize = 2 * MEMBERS;
/// Places that are remembered by their text, as a power of two: more than a service's events have members and values that come
/// again, and 8 KiB for each table.
const PLACES_LOG: u32 = 11;
const PLACES: usize = 1 << PLACES_LOG;
/// No place. It is behind every other.
const NONE: u32 = u32::MAX;

/// Bytes as they are, and then at least [`LENGTH_MIN`] bytes that stand `distance` before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) literals: u32,
    pub(super) length: u32,
    pub(super) distance: u32,
}

/// Finds matches in a text, block by block.
pub(super) struct Finder {
    /// Where members began last, by what they begin with.
    names: Box<[u32; PLACES]>,
    /// Where values began last.
    values: Box<[u32; PLACES]>,
    matches: Vec<Match>,
}

/// What was found in a block.
pub(super) struct Block<'f> {
    /// In order; after them come literals up to the end.
    pub(super) matches: &'f [Match],
    /// Bytes that are in no match.
    pub(super) literals: usize,
}

impl Default for Finder {
    fn default() -> Self {
        Self { names: Box::new([NONE; PLACES]), values: Box::new([NONE; PLACES]), matches: Vec::new() }
    }
}

impl Finder {
    /// Forgets the text before, for another one.
    pub(super) fn begin(&mut self) {
        self.names.fill(NONE);
        self.values.fill(NONE);
    }

    /// Searches a block of `text` that follows on the one before, for what stands at most `window` bytes before. Matches end within the
    /// block.
    pub(super) fn find(&mut self, text: &[u8], block: Range<usize>, window: usize) -> Block<'_> {
        let Self { names, values, matches } = self;
        matches.clear();
        let mut search = Search { text: &text[..block.end], window, matches, unmatched: block.start, literals: 0 };
        let mut at = block.start;
        while let Some(chunk) = search.text.get(at..at + AHEAD).and_then(|chunk| chunk.first_chunk()) {
            let is_found = search.find_member(at, members(chunk), names, values);
            at = if is_found { search.unmatched } else { at + MEMBERS - 1 };
        }
        let literals = search.literals + block.end - search.unmatched;
        Block { matches, literals }
    }
}

/// A search under way.
struct Search<'t, 'm> {
    text: &'t [u8],
    window: usize,
    matches: &'m mut Vec<Match>,
    /// Where what is in no match yet begins.
    unmatched: usize,
    /// Literals before it.
    literals: usize,
}

impl Search<'_, '_> {
    /// Looks up the members that begin where `begin` has bits, counted from `base`. True when there is one to be found, with what
    /// follows on it.
    #[inline(always)]
    fn find_member(
        &mut self,
        base: usize,
        mut begin: u32,
        names: &mut [u32; PLACES],
        values: &mut [u32; PLACES],
    ) -> bool {
        while begin != 0 {
            let at = base + begin.trailing_zeros() as usize;
            begin &= begin - 1;
            let Some(name) = self.text[at..].first_chunk() else { return false };
            let Some(earlier) = self.look_up(names, hash_of_member(name), at) else { continue };
            let length = alike(&self.text[earlier..], &self.text[at..]);
            if length < LENGTH_MIN {
                continue;
            }
            let before = self.alike_before(earlier, at);
            self.push(at - before, before + length, at - earlier);
            self.find_values(values);
            return true;
        }
        false
    }

    /// Looks up the value that begins where the last match has ended, and what begins where that ends: words of a message, one
    /// after the other.
    #[inline(always)]
    fn find_values(&mut self, values: &mut [u32; PLACES]) {
        loop {
            let at = self.unmatched;
            let Some(value) = self.text[at..].first_chunk() else { return };
            let Some(earlier) = self.look_up(values, hash_of_value(value), at) else { return };
            let length = alike(&self.text[earlier..], &self.text[at..]);
            if length < LENGTH_MIN {
                return;
            }
            self.push(at, length, at - earlier);
        }
    }

    /// Where text with this hash began last, when that is within the window; from now on that is here.
    #[inline(always)]
    fn look_up(&self, places: &mut [u32; PLACES], hash: usize, at: usize) -> Option<usize> {
        let earlier = std::mem::replace(&mut places[hash % PLACES], at as u32) as usize;
        (earlier < at && at - earlier <= self.window).then_some(earlier)
    }

    /// How many of the bytes before the two places are the same, and in no match.
    #[inline(always)]
    fn alike_before(&self, earlier: usize, at: usize) -> usize {
        let (one, other) = (&self.text[..earlier], &self.text[self.unmatched..at]);
        let before = |text: &[u8]| text.last_chunk().map(|last| u64::from_le_bytes(*last));
        if let (Some(one), Some(other)) = (before(one), before(other))
            && one != other
        {
            return (one ^ other).leading_zeros() as usize / 8;
        }
        one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count()
    }

    #[inline(always)]
    fn push(&mut self, at: usize, length: usize, distance: usize) {
        let literals = at - self.unmatched;
        self.matches.push(Match { literals: literals as u32, length: length as u32, distance: distance as u32 });
        self.literals += literals;
        self.unmatched = at + length;
    }
}

/// An odd number with bits all over (that of the golden ratio): the highest bits of a product with it depend on all.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of sixteen bytes: members of one kind, such as `,"http.request.method` and `,"http.response.status_code`, part late.
#[inline]
fn hash_of_member(name: &[u8; 16]) -> usize {
    let (words, _) = name.as_chunks();
    let (first, second) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
    ((first.wrapping_mul(SPREAD) ^ second.rotate_left(32)).wrapping_mul(SPREAD) >> (64 - PLACES_LOG)) as usize
}

#[inline]
fn hash_of_value(value: &[u8; LENGTH_MIN]) -> usize {
    (u64::from_le_bytes(*value).wrapping_mul(SPREAD) >> (64 - PLACES_LOG)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that matches stand for.
    fn expand(text: &[u8], block: Range<usize>, found: &Block<'_>) -> (Vec<u8>, usize) {
        let (mut out, mut literals) = (text[..block.start].to_vec(), 0);
        for found in found.matches {
            let at = out.len();
            out.extend_from_slice(&text[at..at + found.literals as usize]);
            literals += found.literals as usize;
            for _ in 0..found.length {
                out.push(out[out.len() - found.distance as usize]);
            }
        }
        literals += block.end - out.len();
        out.extend_from_slice(&text[out.len()..block.end]);
        (out, literals)
    }

    fn lines(count: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut text = String::new();
        for _ in 0..count {
            let (id, level) = (random.u64(..), ["info", "warn"][random.usize(..2)]);
            text += &format!(
                "{{\"create\":{{}}}}\n{{\"id\":\"{id:x}\",\"level\":\"{level}\",\"message\":\"request finished\"}}\n"
            );
        }
        text.into_bytes()
    }

    #[test]
    fn matches_stand_for_the_text() {
        let text = lines(3_000);
        let mut finder = Finder::default();
        for window in [100, 1 << 10, 1 << 15] {
            for size in [1, 33, 34, 35, 1_000, 50_000, text.len()] {
                finder.begin();
                for start in (0..text.len()).step_by(size) {
                    let block = start..text.len().min(start + size);
                    let found = finder.find(&text, block.clone(), window);
                    let (expanded, literals) = expand(&text, block.clone(), &found);
                    assert!(expanded == text[..block.end] && literals == found.literals, "{block:?}");
                    assert!(found.matches.iter().all(|found| {
                        found.distance as usize <= window && found.distance > 0 && found.length as usize >= LENGTH_MIN
                    }));
                }
            }
        }
    }

    #[test]
    fn what_lines_share_is_found() {
        let text = lines(3_000);
        let mut finder = Finder::default();
        let found = finder.find(&text, 0..text.len(), 1 << 15);
        // Sixteen digits, the level, and what is not worth a match.
        assert!(found.literals < 3_000 * 22 && found.matches.len() < 3_000 * 3, "{}", found.literals);
    }

    #[test]
    fn another_text_knows_nothing_of_the_one_before() {
        let (text, mut finder) = (lines(100), Finder::default());
        let first = finder.find(&text, 0..text.len(), 1 << 15).matches.to_vec();
        finder.begin();
        assert_eq!(first, finder.find(&text, 0..text.len(), 1 << 15).matches);
    }
}
