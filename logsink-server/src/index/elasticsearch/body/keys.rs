//! What the keys of a list of attributes mean for a document: does one stand twice, where is `target`, which of them have
//! fields of their own.

use super::{
    super::fields::{self, Known, Owner},
    attributes::List,
};
use crate::otlp::AnyView;

/// Up to here looking through all of them is cheaper than a table.
pub(super) const FEW: usize = 32;

/// The keys of a list, looked at one by one.
pub(super) struct Seen {
    /// A bit for each key's hash.
    hashes: [u64; WORDS],
    /// Whether one may stand twice; for certain it does when there are few.
    pub(super) are_repetitive: bool,
    /// Where the last `target` is.
    pub(super) target: Option<usize>,
    /// A bit for each of the first 64 pairs that has a field of its own.
    pub(super) known: u64,
}

/// A thousand bits: of ten different keys, two share one in a list out of twenty.
const WORDS: usize = 16;

impl Seen {
    /// `owner` is whose attributes they are.
    pub(super) fn of(pairs: List<'_, '_>, owner: Owner) -> Self {
        let (mut hashes, mut is_suspect, mut known) = ([0; WORDS], false, 0);
        for (index, (name, value)) in pairs.iter().enumerate() {
            let hash = fields::hash(name);
            let (word, bit) = place(hash);
            is_suspect |= hashes[word] & bit != 0;
            hashes[word] |= bit;
            if fields::may_be_known(hash) && index < 64 {
                known |= u64::from(field(name, owner, *value).is_some()) << index;
            }
        }
        let target = pairs.iter().rposition(|(name, _)| *name == "target");
        Self { hashes, are_repetitive: is_suspect && repeats(pairs), target, known }
    }

    /// Whether this may be one of the keys.
    pub(super) fn may_have(&self, key: &str) -> bool {
        let (word, bit) = place(fields::hash(key));
        self.hashes[word] & bit != 0
    }
}

/// The field of its own that an attribute has.
fn field(name: &str, owner: Owner, value: AnyView<'_>) -> Option<&'static Known> {
    fields::known(name).filter(|field| field.owner == owner && field.takes(value))
}

/// Whether a key stands twice; a long list may be suspected wrongly.
#[cold]
fn repeats(pairs: List<'_, '_>) -> bool {
    pairs.len() > FEW
        || pairs.iter().enumerate().any(|(index, (name, _))| pairs[..index].iter().any(|(earlier, _)| earlier == name))
}

/// The word that a hash's bit is in, and the bit.
#[inline]
fn place(hash: u16) -> (usize, u64) {
    (usize::from(hash >> 6) % WORDS, 1 << (hash & 63))
}
