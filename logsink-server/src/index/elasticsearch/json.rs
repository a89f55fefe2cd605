//! Pieces of JSON, written straight into a body.
//!
//! Strings are most of a body. Nearly none of their bytes needs an escape, so eight are looked at together, and what lies
//! between two escapes is copied as a whole.

/// The digits of numbers in base 16.
pub(super) const HEX: &[u8; 16] = b"0123456789abcdef";

/// `"text"`, byte for byte as serde_json writes it.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// What stands between the quotes.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = plain(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { return };
        escape(out, byte);
        rest = &rest[plain + 1..];
    }
}

/// `,"name":"text"`; the name is ours and needs no escapes.
pub(super) fn field(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    string(out, text);
}

/// `,"name":number`
pub(super) fn number(out: &mut Vec<u8>, name: &str, number: impl itoa::Integer) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Bytes in base 16, two digits each.
pub(super) fn hex<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    let pairs = bytes.map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    out.extend_from_slice(pairs.as_flattened());
}

/// Whether no byte needs an escape.
pub(super) fn is_plain(text: &str) -> bool {
    plain(text.as_bytes()) == text.len()
}

/// How many bytes at the start need no escape.
fn plain(text: &[u8]) -> usize {
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + first(marks);
        }
    }
    // The rest lies in the last eight bytes, or the last four, of which some are known to be plain.
    if let Some(last) = text.last_chunk::<8>() {
        let marks = marks(u64::from_le_bytes(*last));
        return if marks == 0 { text.len() } else { text.len() - 8 + first(marks) };
    }
    let head = match text.first_chunk::<4>() {
        Some(head) => {
            let marks = marks(u64::from(u32::from_le_bytes(*head)) | NO_MARKS << 32);
            if marks != 0 {
                return first(marks);
            }
            4
        }
        None => 0,
    };
    let tail = text[head..].iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    tail.map_or(text.len(), |at| head + at)
}

/// Four bytes that need no escape.
const NO_MARKS: u64 = 0x2020_2020;

/// The place of the lowest mark.
fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

/// The highest bit of each byte that needs an escape: of the lowest such byte for certain; above it, others may be marked too.
fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64))) & (ONES << 7)
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            hex(out, [byte]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) {
        let mut out = Vec::new();
        string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(text).unwrap());
    }

    #[test]
    fn every_byte_at_every_place_is_as_serde_json_writes_it() {
        for len in 0..20 {
            for at in 0..len {
                for byte in 0..0x80 {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    check(std::str::from_utf8(&text).unwrap());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_as_serde_json_writes_it(text in prop::collection::vec(any::<char>(), 0..40)) {
            check(&String::from_iter(text));
        }

        #[test]
        fn text_full_of_escapes_is_too(text in "[\"\\\\\n\u{0}-\u{22}a-e\u{7f}é🦀]{0,40}") {
            check(&text);
        }
    }
}
