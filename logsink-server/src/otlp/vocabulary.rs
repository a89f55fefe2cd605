//! The keys of attributes that were met, with a number each. Records have the same keys over and over, mostly in the same
//! order: the key that followed the one before it the last time is compared first, and where it is there again it is neither
//! checked nor looked up.

use super::tag;
use crate::text::Familiar;

/// Keys at most: what the records of dozens of services have. When there are more, what is known is forgotten now and then, and
/// until then the further ones have no number.
const KEYS_MAX: usize = 1_024;
/// Bytes of a key at most: on the wire, its length is one byte then. With [`KEYS_MAX`], a bound on the memory.
const KEY_BYTES_MAX: usize = 0x7f;
/// Places in the table, as a power of two: four for a key.
const PLACES_BITS: u32 = 12;
/// Places that are looked at for a key. Keys made to share them find no number, and cost no more than that.
const LOOKS_MAX: usize = 8;

/// Keys by number. Who keeps something for each of them compares [`Self::era`] first.
#[derive(Debug, Default)]
pub struct Vocabulary {
    /// By number. The first is none, but the beginning of every list.
    keys: Vec<Key>,
    /// The keys' places follow from their hashes; 0 where there is none.
    places: Vec<KeyId>,
    era: u64,
    /// The list at hand.
    list: u32,
    /// The key of the list at hand that was read last.
    last: KeyId,
    /// Whether the list at hand has a key that stood in it before.
    is_repetitive: bool,
    /// Whether the list at hand has a key without a number.
    is_strange: bool,
    /// Whether there was no room for a key.
    is_full: bool,
}

/// A key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyId(u16);

impl KeyId {
    /// As an index: from 1 on.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Debug)]
struct Key {
    /// From the tag of the key to that of the value.
    wire: Familiar,
    text: Box<str>,
    /// Which key followed it in a list the last time.
    next: KeyId,
    /// The last list that it stood in.
    list: u32,
}

impl Key {
    fn new(wire: Familiar, text: &str) -> Self {
        Self { wire, text: text.into(), next: KeyId::default(), list: 0 }
    }
}

impl Vocabulary {
    /// Changes when what was known is forgotten, and numbers begin anew.
    #[inline]
    pub fn era(&self) -> u64 {
        self.era
    }

    /// The texts of the keys, by number; the first is none of a key.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.keys.iter().map(|key| &*key.text)
    }

    /// How many numbers there are, 0 among them.
    #[inline]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Before a request. Where there was no room for a key, all are forgotten: once, since to learn a key takes some times what it
    /// takes to read it, and a request may have a hundred thousand.
    #[inline]
    pub(super) fn renew(&mut self) {
        if self.is_full || self.keys.is_empty() {
            self.forget();
        }
    }

    /// Before the keys of a list.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.last = KeyId::default();
        (self.is_repetitive, self.is_strange) = (false, false);
        // After four thousand million lists a key may seem to have stood in this one: then the list is taken for repetitive, and
        // who cares for that looks.
        self.list = self.list.wrapping_add(1);
    }

    /// Whether the list at hand has this key, if all of its keys have numbers.
    pub fn is_in_list(&self, text: &str) -> bool {
        let key = self.seek(text).and_then(|place| self.keys.get(self.places[place].index()));
        key.is_some_and(|key| *key.text == *text && key.list == self.list)
    }

    /// Whether the list's keys have each a number of its own.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        !self.is_repetitive && !self.is_strange
    }

    /// What is expected to come next on the wire.
    #[inline(always)]
    pub(super) fn expected(&self) -> Option<(KeyId, &Familiar)> {
        let next = self.keys.get(self.last.index())?.next;
        Some((next, &self.keys.get(next.index())?.wire))
    }

    /// Takes the list's next key, by its number.
    #[inline(always)]
    pub(super) fn take(&mut self, id: KeyId) {
        if let Some(key) = self.keys.get_mut(id.index()) {
            self.is_repetitive |= key.list == self.list;
            key.list = self.list;
            self.last = id;
        }
    }

    /// Takes the list's next key. A key that finds no room gets 0, and the list is not plain.
    #[inline(never)]
    pub(super) fn take_text(&mut self, text: &str) -> KeyId {
        let Some(id) = self.find(text) else {
            self.is_strange = true;
            return KeyId::default();
        };
        if let Some(last) = self.keys.get_mut(self.last.index()) {
            last.next = id;
        }
        self.take(id);
        id
    }

    /// The number of a key, which is given here to one that is met for the first time.
    fn find(&mut self, text: &str) -> Option<KeyId> {
        let place = self.seek(text)?;
        let id = self.places[place];
        if id != KeyId::default() {
            return Some(id);
        }
        let id = self.learn(text)?;
        self.places[place] = id;
        Some(id)
    }

    /// The place of a key, or the free one where it would be.
    fn seek(&self, text: &str) -> Option<usize> {
        let first = place(text);
        (first..first + LOOKS_MAX).map(|place| place % self.places.len().max(1)).find(|&place| {
            self.places.get(place).is_some_and(|id| {
                *id == KeyId::default() || self.keys.get(id.index()).is_some_and(|key| *key.text == *text)
            })
        })
    }

    fn learn(&mut self, text: &str) -> Option<KeyId> {
        let len = u8::try_from(text.len()).ok().filter(|len| usize::from(*len) <= KEY_BYTES_MAX)?;
        self.is_full |= self.keys.len() > KEYS_MAX;
        let id = KeyId(u16::try_from(self.keys.len()).ok().filter(|_| !self.is_full)?);
        let wire = Familiar::new([tag::key_value::KEY as u8, len], text, [tag::key_value::VALUE as u8]);
        self.keys.push(Key::new(wire, text));
        Some(id)
    }

    #[cold]
    fn forget(&mut self) {
        self.keys.clear();
        self.keys.push(Key::new(Familiar::nothing(), ""));
        self.places.clear();
        self.places.resize(1 << PLACES_BITS, KeyId::default());
        self.era += 1;
        self.is_full = false;
    }
}

/// The first place for a key, by its length, beginning and end.
fn place(text: &str) -> usize {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let bytes = text.as_bytes();
    let word = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(23),
        _ => bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    ((word ^ bytes.len() as u64).wrapping_mul(FACTOR) >> (u64::BITS - PLACES_BITS)) as usize
}
