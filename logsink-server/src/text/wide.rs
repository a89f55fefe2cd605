//! Sixteen bytes that are looked at together.

#![allow(unsafe_code, reason = "SSE2 is part of x86_64, its loads and stores take pointers")]

/// How many bytes.
pub(super) const WIDTH: usize = 16;

#[cfg(target_arch = "x86_64")]
pub(super) use sse2::Wide;
#[cfg(target_arch = "x86_64")]
pub(crate) use sse2::hex;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use words::Wide;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use words::hex;

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_cvtsi64_si128, _mm_loadu_si128,
        _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_srli_epi16, _mm_storeu_si128,
        _mm_unpacklo_epi8,
    };

    use super::WIDTH;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide(__m128i);

    impl Wide {
        #[inline]
        pub(in super::super) fn load(bytes: &[u8; WIDTH]) -> Self {
            // SAFETY: sixteen bytes are borrowed; the load needs no alignment.
            Self(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
        }

        #[inline]
        pub(in super::super) fn halves(first: [u8; 8], second: [u8; 8]) -> Self {
            let mut bytes = [0; WIDTH];
            bytes[..8].copy_from_slice(&first);
            bytes[8..].copy_from_slice(&second);
            Self::load(&bytes)
        }

        /// # Safety
        /// `to` has room for sixteen bytes.
        #[inline]
        pub(in super::super) unsafe fn store(self, to: *mut u8) {
            // SAFETY: the caller's; the store needs no alignment.
            unsafe { _mm_storeu_si128(to.cast(), self.0) }
        }

        #[inline]
        pub(in super::super) fn or(self, other: Self) -> Self {
            // SAFETY: SSE2 is part of x86_64.
            Self(unsafe { _mm_or_si128(self.0, other.0) })
        }

        #[inline]
        pub(in super::super) fn is_ascii(self) -> bool {
            self.high() == 0
        }

        /// A bit for each byte that is not ASCII, the first byte's the lowest.
        #[inline]
        pub(in super::super) fn high(self) -> u32 {
            // SAFETY: SSE2 is part of x86_64.
            unsafe { _mm_movemask_epi8(self.0).cast_unsigned() }
        }

        /// A bit for each byte that both have, the first byte's the lowest.
        #[inline]
        pub(in super::super) fn same(self, other: Self) -> u32 {
            // SAFETY: SSE2 is part of x86_64.
            unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(self.0, other.0)).cast_unsigned() }
        }

        /// A bit for each byte that needs an escape in JSON, the first byte's the lowest.
        #[inline]
        pub(in super::super) fn marks(self) -> u32 {
            // SAFETY: SSE2 is part of x86_64.
            unsafe { _mm_movemask_epi8(self.marked()).cast_unsigned() }
        }

        /// The bytes that need an escape or are not ASCII have their highest bit set, the others have not.
        #[inline]
        pub(in super::super) fn unfit(self) -> Self {
            // SAFETY: SSE2 is part of x86_64.
            Self(unsafe { _mm_or_si128(self.marked(), self.0) })
        }

        /// Whether a byte of either needs an escape.
        #[inline]
        pub(in super::super) fn or_marked(self, other: Self) -> bool {
            // SAFETY: SSE2 is part of x86_64.
            unsafe { _mm_movemask_epi8(_mm_or_si128(self.marked(), other.marked())) != 0 }
        }

        /// All ones in each byte that needs an escape.
        #[inline]
        fn marked(self) -> __m128i {
            // SAFETY: SSE2 is part of x86_64.
            unsafe {
                let quote = _mm_cmpeq_epi8(self.0, _mm_set1_epi8(b'"' as i8));
                let backslash = _mm_cmpeq_epi8(self.0, _mm_set1_epi8(b'\\' as i8));
                let control = _mm_cmpeq_epi8(_mm_min_epu8(self.0, _mm_set1_epi8(0x1f)), self.0);
                _mm_or_si128(_mm_or_si128(quote, backslash), control)
            }
        }
    }

    /// The sixteen digits of a number in base 16.
    #[inline]
    pub(crate) fn hex(number: u64) -> [u8; WIDTH] {
        let mut digits = [0; WIDTH];
        // SAFETY: SSE2 is part of x86_64, and `digits` has sixteen bytes.
        unsafe {
            let bytes = _mm_cvtsi64_si128(number.swap_bytes().cast_signed());
            let low = _mm_set1_epi8(0x0f);
            let halves = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), low), _mm_and_si128(bytes, low));
            // `a` is 39 further than the `9` before it would have it.
            let letters = _mm_and_si128(_mm_cmpgt_epi8(halves, _mm_set1_epi8(9)), _mm_set1_epi8(39));
            let text = _mm_add_epi8(_mm_add_epi8(halves, _mm_set1_epi8(b'0' as i8)), letters);
            _mm_storeu_si128(digits.as_mut_ptr().cast(), text);
        }
        digits
    }
}

/// Two words: where there is no SSE2. Compiled for the tests everywhere.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
mod words {
    use super::{super::HIGH, WIDTH};

    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide([u64; 2]);

    impl Wide {
        #[inline]
        pub(in super::super) fn load(bytes: &[u8; WIDTH]) -> Self {
            let (words, _) = bytes.as_chunks::<8>();
            Self([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
        }

        #[inline]
        pub(in super::super) fn halves(first: [u8; 8], second: [u8; 8]) -> Self {
            Self([u64::from_le_bytes(first), u64::from_le_bytes(second)])
        }

        /// # Safety
        /// `to` has room for sixteen bytes.
        #[inline]
        pub(in super::super) unsafe fn store(self, to: *mut u8) {
            // SAFETY: the caller's.
            unsafe { to.cast::<[[u8; 8]; 2]>().write_unaligned(self.0.map(u64::to_le_bytes)) }
        }

        #[inline]
        pub(in super::super) fn or(self, other: Self) -> Self {
            Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
        }

        #[inline]
        pub(in super::super) fn is_ascii(self) -> bool {
            (self.0[0] | self.0[1]) & HIGH == 0
        }

        /// A bit for each byte that is not ASCII, the first byte's the lowest.
        #[inline]
        pub(in super::super) fn high(self) -> u32 {
            together(self.0[0] & HIGH) | together(self.0[1] & HIGH) << 8
        }

        /// A bit for each byte that both have, the first byte's the lowest.
        #[inline]
        pub(in super::super) fn same(self, other: Self) -> u32 {
            let bits = |word: u64| together(below(word, 1));
            bits(self.0[0] ^ other.0[0]) | bits(self.0[1] ^ other.0[1]) << 8
        }

        /// A bit for each byte that needs an escape in JSON, the first byte's the lowest.
        #[inline]
        pub(in super::super) fn marks(self) -> u32 {
            Self(self.0.map(marked)).high()
        }

        /// The bytes that need an escape or are not ASCII have their highest bit set, the others have not.
        #[inline]
        pub(in super::super) fn unfit(self) -> Self {
            Self(self.0.map(|word| marked(word) | word))
        }

        /// Whether a byte of either needs an escape.
        #[inline]
        pub(in super::super) fn or_marked(self, other: Self) -> bool {
            self.marks() | other.marks() != 0
        }
    }

    const ONES: u64 = u64::MAX / 255;

    /// The highest bit of each byte that needs an escape.
    #[inline]
    fn marked(word: u64) -> u64 {
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        below(word, 0x20) | is(b'"') | is(b'\\')
    }

    /// The highest bit of each byte below `bound`. Exact for each byte: no borrow goes from one to the next, because the highest
    /// bit is set before.
    #[inline]
    fn below(word: u64, bound: u8) -> u64 {
        !((word | HIGH).wrapping_sub(ONES * u64::from(bound))) & !word & HIGH
    }

    /// The eight highest bits, brought together.
    #[inline]
    fn together(high: u64) -> u32 {
        ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    }

    /// The sixteen digits of a number in base 16.
    #[inline]
    pub(crate) fn hex(number: u64) -> [u8; WIDTH] {
        let mut digits = [0; WIDTH];
        digits[..8].copy_from_slice(&half((number >> 32) as u32));
        digits[8..].copy_from_slice(&half(number as u32));
        digits
    }

    /// Eight digits, made side by side in one word.
    #[inline]
    fn half(number: u32) -> [u8; 8] {
        // Four bits into each byte, the first digit's highest.
        let mut word = u64::from(number);
        word = (word | word << 16) & 0x0000_ffff_0000_ffff;
        word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
        word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        // `a` is 39 further than the `9` before it would have it.
        let letters = ((word + ONES * 6) >> 4) & ONES;
        (word + ONES * b'0' as u64 + letters * 39).to_be_bytes()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{WIDTH, sse2, words};

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for shift in 0..64 {
            for number in [u64::MAX, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210].map(|number| number >> shift) {
                let expected = format!("{number:016x}");
                assert_eq!(
                    (&sse2::hex(number)[..], &words::hex(number)[..]),
                    (expected.as_bytes(), expected.as_bytes())
                );
            }
        }
    }

    #[test]
    fn words_mark_what_sse2_marks() {
        for at in 0..WIDTH {
            for byte in 0..=255 {
                for other in [b'x', 0x1f, b'!', 0x80, 0xff, b'"'] {
                    let mut bytes = [b'x'; WIDTH];
                    (bytes[(at + 1) % WIDTH], bytes[at]) = (other, byte);
                    let (one, two) = (sse2::Wide::load(&bytes), words::Wide::load(&bytes));
                    assert_eq!((one.marks(), one.is_ascii()), (two.marks(), two.is_ascii()), "{bytes:?}");
                    assert_eq!((one.high(), one.unfit().high()), (two.high(), two.unfit().high()), "{bytes:?}");
                    let others = [other; WIDTH];
                    let (same, also) = (one.same(sse2::Wide::load(&others)), two.same(words::Wide::load(&others)));
                    assert_eq!(same, also, "{bytes:?} {other}");
                    assert!((0..WIDTH).all(|at| same >> at & 1 == u32::from(bytes[at] == other)), "{bytes:?} {other}");
                }
            }
        }
    }
}
