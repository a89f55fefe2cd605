//! Bits, put together to bytes, the lowest first.

/// Some bits, up to 32.
///
/// They stand at the top of a word, and how many they are in its lowest byte. So they are added to others with a shift and an `or`
/// (as in libzstd's `HUF_addBits`): what the number leaves at the bottom is shifted out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code(u64);

impl Code {
    /// The lowest `len` bits of `bits`, which has no others.
    #[inline(always)]
    pub(super) const fn new(bits: u32, len: u32) -> Self {
        debug_assert!(len <= 32 && (bits as u64) < 1 << len);
        Self((bits as u64).rotate_right(len) | len as u64)
    }

    #[inline(always)]
    pub(super) const fn len(self) -> u32 {
        self.0 as u8 as u32
    }
}

/// Writes bits into bytes that are there.
pub(super) struct Bits<'b> {
    bytes: &'b mut [u8],
    at: usize,
    odd: Odd,
}

/// Bits that are not written yet: so many of the highest of a word.
#[derive(Clone, Copy, Default)]
pub(super) struct Odd {
    word: u64,
    count: u32,
}

impl<'b> Bits<'b> {
    /// Goes on after those that were left of others.
    pub(super) fn after(odd: Odd, bytes: &'b mut [u8]) -> Self {
        Self { bytes, at: 0, odd }
    }

    /// Adds bits. There is room for 49 from one [`Self::flush`] to the next.
    #[inline(always)]
    pub(super) fn put(&mut self, code: Code) {
        let Odd { word, count } = &mut self.odd;
        *word = *word >> code.len() | code.0;
        *count += code.len();
        debug_assert!(*count <= 56);
    }

    /// Writes what makes whole bytes. Where there is no room it is lost, and [`Self::end`] says so.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        let Odd { word, count } = &mut self.odd;
        if let Some(room) = self.bytes.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut()) {
            // In two steps, as there may be none.
            *room = (*word >> 1 >> (63 - *count)).to_le_bytes();
        }
        self.at += (*count / 8) as usize;
        *count %= 8;
    }

    /// How many bytes are written, if there was room for all, and the bits that make none yet. Eight bytes of room are never used.
    pub(super) fn end(mut self) -> (Option<usize>, Odd) {
        self.flush();
        ((self.at + 8 <= self.bytes.len()).then_some(self.at), self.odd)
    }

    /// Fills the last byte up with zeros.
    pub(super) fn fill(&mut self) {
        self.flush();
        self.put(Code::new(0, (8 - self.odd.count) % 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_out_as_they_went_in() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut bytes = [0; 4_096];
        let mut bits = Bits::after(Odd::default(), &mut bytes);
        let mut expected = Vec::new();
        for _ in 0..1_000 {
            let len = random.u32(..=32);
            let value = (random.u64(..) & ((1 << len) - 1)) as u32;
            expected.extend((0..len).map(|at| value >> at & 1 == 1));
            bits.put(Code::new(value, len));
            assert_eq!(Code::new(value, len).len(), len);
            bits.flush();
        }
        bits.fill();
        let (written, odd) = bits.end();
        assert_eq!((written, odd.count), (Some(expected.len().div_ceil(8)), 0));
        let read = |at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
        assert!(expected.iter().enumerate().all(|(at, bit)| read(at) == *bit));
    }

    #[test]
    fn what_has_no_room_is_told() {
        for room in 0..32 {
            let mut bytes = vec![0; room];
            let mut bits = Bits::after(Odd::default(), &mut bytes);
            for _ in 0..16 {
                bits.put(Code::new(1, 8));
                bits.flush();
            }
            assert_eq!(bits.end().0.is_some(), room >= 24, "{room}");
        }
    }
}
