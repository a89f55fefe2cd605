//! Where text repeats itself.

use super::wide::{WIDTH, Wide};

/// Bytes that [`members`] looks at.
pub(crate) const MEMBERS: usize = WIDTH + 1;

/// A bit for each of the first sixteen bytes that is the comma of a `,"`, the first byte's the lowest.
#[inline]
pub(crate) fn members(text: &[u8; MEMBERS]) -> u32 {
    let (Some(these), Some(next)) = (text.first_chunk(), text.last_chunk()) else { return 0 };
    Wide::load(these).same(Wide::load(&[b','; WIDTH])) & Wide::load(next).same(Wide::load(&[b'"'; WIDTH]))
}

/// How many bytes two texts begin with alike.
///
/// Where they part cannot be foreseen, and a branch for it costs as much as comparing fifty bytes more: so that, once there are
/// sixteen, many are compared without one.
#[inline(always)]
pub(crate) fn alike(one: &[u8], other: &[u8]) -> usize {
    if let (Some(one), Some(other)) = (one.first_chunk(), other.first_chunk()) {
        let bits = Wide::load(one).same(Wide::load(other));
        if bits != (1 << WIDTH) - 1 {
            return bits.trailing_ones() as usize;
        }
    }
    let (chunks, others) = (one.as_chunks::<STEP>().0, other.as_chunks::<STEP>().0);
    for (index, (one, other)) in chunks.iter().zip(others).enumerate() {
        let differs = !same(one, other);
        if differs != 0 {
            return index * STEP + differs.trailing_zeros() as usize;
        }
    }
    let whole = chunks.len().min(others.len()) * STEP;
    whole + one[whole..].iter().zip(&other[whole..]).take_while(|(one, other)| one == other).count()
}

/// As many bytes as a word has bits.
const STEP: usize = 64;

/// A bit for each byte that both have, the first byte's the lowest.
#[inline(always)]
fn same(one: &[u8; STEP], other: &[u8; STEP]) -> u64 {
    let ((one, _), (other, _)) = (one.as_chunks::<WIDTH>(), other.as_chunks::<WIDTH>());
    let bits = |at: usize| u64::from(Wide::load(&one[at]).same(Wide::load(&other[at])));
    bits(0) | bits(1) << 16 | bits(2) << 32 | bits(3) << 48
}
