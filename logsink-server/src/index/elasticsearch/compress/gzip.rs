//! A body as gzip (RFC 1952): DEFLATE (RFC 1951) with a checksum.

use std::ops::Range;

use super::{
    bits::{Bits, Code, Odd},
    huffman,
    matches::{Block, Finder},
};

/// The most that a distance may be.
const WINDOW: usize = 32 << 10;
/// The longest match; longer ones are several.
const LENGTH_MAX: usize = 258;
/// The shortest; what is left of a longer one must not be less.
const REST_MIN: usize = 3;
/// Literals, the end of a block, and lengths.
const SYMBOLS: usize = 286;
const END: usize = 256;
const DISTANCES: usize = 30;
/// Bits of the longest code, where 15 would be allowed: so four literals fit into what [`Bits`] takes at a time, and a match.
const CODE_BITS_MAX: u32 = 12;
/// Bytes of text that are searched and encoded in one go: they stay in the cache near the core.
const BLOCK: usize = 128 << 10;
/// Blocks that share their codes: those for the first of them do for the others, which say much the same.
const SHARE: usize = 8;
/// More than a block can become: a literal takes 12 bits, and of what is a match eight bytes take 42.
const SCRATCH: usize = 2 * BLOCK;

/// Identification, the method, no flags, no time, a method that is fast, and an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];

/// Compresses bodies to gzip.
pub(super) struct Gzip {
    finder: Finder,
    codes: Codes,
    scratch: Box<[u8]>,
}

struct Codes {
    symbols: [Code; SYMBOLS],
    distances: [Code; DISTANCES],
}

impl Default for Gzip {
    fn default() -> Self {
        let codes = Codes { symbols: [Code::default(); SYMBOLS], distances: [Code::default(); DISTANCES] };
        Self { finder: Finder::default(), codes, scratch: vec![0; SCRATCH].into() }
    }
}

impl Gzip {
    /// Compresses `body` into `out`, which is empty. False, with anything in `out`, when that becomes more than `max` bytes or when
    /// there are fewer matches to be found than a library would find.
    pub(super) fn compress(&mut self, body: &[u8], out: &mut Vec<u8>, max: usize) -> bool {
        out.extend_from_slice(&HEADER);
        self.finder.begin();
        let (mut crc, mut literals, mut odd) = (crc32fast::Hasher::new(), 0, Odd::default());
        for (index, start) in (0..body.len()).step_by(BLOCK).enumerate() {
            let range = start..body.len().min(start + BLOCK);
            crc.update(&body[range.clone()]);
            let block = self.finder.find(body, range.clone(), WINDOW);
            literals += block.literals;
            if literals > range.end / 2 {
                return false;
            }
            let mut bits = Bits::after(odd, &mut self.scratch);
            if index.is_multiple_of(SHARE) {
                self.codes = Codes::of(body, range.clone(), &block);
                self.codes.begin(&mut bits, body.len() - start <= SHARE * BLOCK);
            }
            self.codes.write(&mut bits, body, range.clone(), &block);
            let is_last = range.end == body.len();
            if is_last || (index + 1).is_multiple_of(SHARE) {
                bits.put(self.codes.symbols[END]);
            }
            if is_last {
                bits.fill();
            }
            let written;
            (written, odd) = bits.end();
            let Some(written) = written.filter(|written| out.len() + written + 8 <= max) else { return false };
            out.extend_from_slice(&self.scratch[..written]);
        }
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        // The length, as far as 32 bits have it.
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        !body.is_empty()
    }
}

impl Codes {
    /// Codes for text like this block. Each symbol has one, so that they do for other text, too.
    fn of(body: &[u8], range: Range<usize>, block: &Block<'_>) -> Self {
        let (mut symbols, mut distances) = ([1; SYMBOLS], [1; DISTANCES]);
        let mut at = range.start;
        for found in block.matches {
            let literals = at..at + found.literals as usize;
            at = literals.end + found.length as usize;
            for &literal in &body[literals] {
                symbols[usize::from(literal)] += 1;
            }
            each_length(found.length as usize, |length| {
                symbols[usize::from(LENGTHS[length].symbol)] += 1;
                distances[distance(found.distance).0] += 1;
            });
        }
        for &literal in &body[at..range.end] {
            symbols[usize::from(literal)] += 1;
        }
        Self { symbols: codes(&symbols), distances: codes(&distances) }
    }

    /// Begins a block of DEFLATE that has these codes (RFC 1951, 3.2.7).
    fn begin(&self, bits: &mut Bits<'_>, is_last: bool) {
        bits.put(Code::new(is_last.into(), 1));
        bits.put(Code::new(0b10, 2));
        bits.put(Code::new((SYMBOLS - 257) as u32, 5));
        bits.put(Code::new((DISTANCES - 1) as u32, 5));
        // The codes' lengths have codes as well: here four bits for each of 0 to 15, and none for runs, which makes 170 bytes for a
        // megabyte of text.
        const ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        bits.put(Code::new((ORDER.len() - 4) as u32, 4));
        bits.flush();
        for symbol in ORDER {
            bits.put(Code::new(if symbol < 16 { 4 } else { 0 }, 3));
            bits.flush();
        }
        for code in self.symbols.iter().chain(&self.distances) {
            bits.put(Code::new(code.len().reverse_bits() >> 28, 4));
            bits.flush();
        }
    }

    fn write(&self, bits: &mut Bits<'_>, body: &[u8], range: Range<usize>, block: &Block<'_>) {
        let mut rest = &body[range];
        for found in block.matches {
            let (literals, after) = rest.split_at(found.literals as usize);
            rest = &after[found.length as usize..];
            self.literals(bits, literals);
            let (distance, extra) = distance(found.distance);
            each_length(found.length as usize, |length| {
                let Length { symbol, extra: length_extra } = LENGTHS[length];
                bits.put(self.symbols[usize::from(symbol)]);
                bits.put(length_extra);
                bits.put(self.distances[distance]);
                bits.put(extra);
                bits.flush();
            });
        }
        self.literals(bits, rest);
    }

    #[inline(always)]
    fn literals(&self, bits: &mut Bits<'_>, literals: &[u8]) {
        let (four, rest) = literals.as_chunks::<4>();
        for four in four {
            for &literal in four {
                bits.put(self.symbols[usize::from(literal)]);
            }
            bits.flush();
        }
        for &literal in rest {
            bits.put(self.symbols[usize::from(literal)]);
        }
        bits.flush();
    }
}

/// A length in pieces that DEFLATE has.
#[inline(always)]
fn each_length(mut length: usize, mut each: impl FnMut(usize)) {
    while length > LENGTH_MAX {
        let piece = LENGTH_MAX.min(length - REST_MIN);
        each(piece);
        length -= piece;
    }
    each(length);
}

/// The symbol of a length, and its extra bits.
#[derive(Clone, Copy)]
struct Length {
    symbol: u16,
    extra: Code,
}

/// By length (RFC 1951, 3.2.5).
static LENGTHS: [Length; LENGTH_MAX + 1] = {
    let mut lengths = [Length { symbol: 285, extra: Code::new(0, 0) }; LENGTH_MAX + 1];
    let (mut symbol, mut length) = (257, REST_MIN);
    while length < LENGTH_MAX {
        // Eight symbols without extra bits, then four for each number of them.
        let extra_bits = if symbol < 265 { 0 } else { (symbol - 261) as u32 / 4 };
        let mut extra = 0;
        while extra < 1 << extra_bits && length < LENGTH_MAX {
            lengths[length] = Length { symbol, extra: Code::new(extra, extra_bits) };
            (extra, length) = (extra + 1, length + 1);
        }
        symbol += 1;
    }
    lengths
};

/// The symbol of a distance, and its extra bits.
#[inline(always)]
fn distance(distance: u32) -> (usize, Code) {
    let below = distance - 1;
    if below < 4 {
        return (below as usize, Code::default());
    }
    let extra_bits = below.ilog2() - 1;
    let symbol = 2 * extra_bits + (below >> extra_bits);
    (symbol as usize, Code::new(below & ((1 << extra_bits) - 1), extra_bits))
}

/// The canonical codes for symbols that come so often (RFC 1951, 3.2.2), the first bit the lowest.
fn codes<const N: usize>(counts: &[u32; N]) -> [Code; N] {
    let mut lengths = [0; N];
    huffman::lengths(counts, CODE_BITS_MAX, &mut lengths);
    let mut next = [0_u32; CODE_BITS_MAX as usize + 2];
    for &length in &lengths {
        next[usize::from(length) + 1] += 1;
    }
    next[1] = 0;
    for length in 1..next.len() {
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    lengths.map(|len| {
        let code = &mut next[usize::from(len)];
        *code += 1;
        Code::new((*code - 1).reverse_bits() >> (32 - u32::from(len)), len.into())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn back(compressed: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(compressed).read_to_end(&mut body).unwrap();
        body
    }

    /// None when it does not pay.
    fn compressed(gzip: &mut Gzip, body: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        gzip.compress(body, &mut out, body.len()).then_some(out)
    }

    /// Lines with the members of `names`, whose values are as random as `kinds` is large.
    fn lines(random: &mut fastrand::Rng, len: usize, names: usize, kinds: u64) -> Vec<u8> {
        let mut text = String::new();
        while text.len() < len {
            text += "{\"create\":{\"_id\":\"x\"}}\n{\"@timestamp\":1";
            for name in 0..random.usize(..=names) {
                let value = random.u64(..kinds).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                text += &format!(",\"name.of.member.{name}\":\"{value:x} é\"");
            }
            text += "}\n";
        }
        text.into_bytes()
    }

    #[test]
    fn bodies_of_many_blocks_read_back() {
        let (mut random, mut gzip) = (fastrand::Rng::with_seed(3), Gzip::default());
        for (len, names, kinds) in
            [(2_000, 5, 3), (BLOCK, 40, 100), (3 * SHARE * BLOCK + 1, 12, 50), (SHARE * BLOCK, 3, 2)]
        {
            let mut body = lines(&mut random, len, names, kinds);
            for len in [body.len(), len] {
                body.truncate(len);
                let compressed = compressed(&mut gzip, &body).expect("it repeats itself");
                assert!(back(&compressed) == body, "{len} {names} {kinds}");
                assert!(compressed.len() < body.len() / 2);
            }
        }
    }

    #[test]
    fn long_matches_read_back() {
        let mut gzip = Gzip::default();
        for extra in 0..2 * LENGTH_MAX + 8 {
            let line = format!(",\"message\":\"{}\"", "word after word ".repeat(40));
            let mut body = format!("{line}{line}{line}").into_bytes();
            body.truncate(body.len() - extra);
            let compressed = compressed(&mut gzip, &body).expect("it repeats itself");
            assert!(back(&compressed) == body, "{extra}");
        }
    }

    #[test]
    fn distances_up_to_the_window_read_back() {
        let mut gzip = Gzip::default();
        let block = br#","a.member.that.is.long":"and a value that comes again and again, word by word""#;
        for distance in WINDOW - 40..WINDOW + 40 {
            let mut body = block.to_vec();
            body.extend(
                std::iter::repeat_n(&b" ,\"x\":1, a line of little"[..], WINDOW).flatten().take(distance - block.len()),
            );
            body.extend_from_slice(block);
            body.extend_from_slice(&[b' '; 64]);
            assert!(back(&compressed(&mut gzip, &body).expect("it repeats itself")) == body, "{distance}");
        }
    }

    #[test]
    fn what_does_not_repeat_itself_is_left_to_others() {
        let mut random = fastrand::Rng::with_seed(5);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(2 * BLOCK).collect();
        let mut gzip = Gzip::default();
        assert_eq!(compressed(&mut gzip, &noise), None);
        assert_eq!(compressed(&mut gzip, b""), None);
        let body = lines(&mut random, 100_000, 5, 3);
        let mut out = Vec::new();
        assert!(!gzip.compress(&body, &mut out, 1_000) && out.len() <= 1_000, "no more than it may become");
    }

    proptest! {
        #[test]
        fn any_lines_read_back(seed: u64, len in 0..300_000_usize, names in 0..30_usize, kinds in 1..1_000_u64) {
            let body = lines(&mut fastrand::Rng::with_seed(seed), len, names, kinds);
            if let Some(compressed) = compressed(&mut Gzip::default(), &body) {
                prop_assert!(back(&compressed) == body);
            }
        }
    }
}
