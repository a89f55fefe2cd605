//! A key and a scalar of fewer than 128 bytes each, as every encoder writes them and nearly all attributes are. None for
//! anything else: then the check says what it is, or what is wrong with it.

use super::{tag, value::AnyView};
use crate::text::{self, Familiar};

const KEY: u8 = tag::key_value::KEY as u8;
const VALUE: u8 = tag::key_value::VALUE as u8;
const STRING: u8 = tag::any_value::STRING as u8;

/// The pair that all of `bytes` are.
#[inline(always)]
pub(super) fn plain_pair(bytes: &[u8]) -> Option<(&str, AnyView<'_>)> {
    let [KEY, name_len @ ..0x80, rest @ ..] = bytes else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
    let [VALUE, value @ ..] = rest else { return None };
    let value = plain_value(value)?;
    Some((text::utf8(name).ok()?, value))
}

/// A value whose text nobody has looked at.
pub(super) enum Plain<'a> {
    Text(Unread<'a>),
    Other(AnyView<'a>),
}

/// Bytes that should be text, and what follows them: who copies them can look at them on the way, sixteen at a time.
#[derive(Debug, Clone, Copy)]
pub struct Unread<'a> {
    pub(crate) bytes: &'a [u8],
    /// How many of them are the text.
    pub(crate) len: usize,
}

impl<'a> Unread<'a> {
    /// Whether it is UTF-8.
    #[inline(always)]
    pub(super) fn is_text(self) -> bool {
        text::are_ascii(self.bytes, self.len) || self.read().is_some()
    }

    /// The text, if it is UTF-8.
    pub fn read(self) -> Option<&'a str> {
        text::utf8(self.bytes.get(..self.len)?).ok()
    }
}

/// The value of the pair that `bytes` begin with, its length first, when it has this key; and what follows the pair.
#[inline(always)]
pub(super) fn familiar_pair<'a>(bytes: &'a [u8], key: &Familiar) -> Option<(Plain<'a>, &'a [u8])> {
    const HEAD: usize = 3;
    let [len @ ..0x80, bytes @ ..] = bytes else { return None };
    let value = key.strip(bytes)?;
    let len = u32::from(*len).wrapping_sub(key.len());
    // Text: the lengths of value and text, one in the other, end where the pair does. That is one number to compare.
    let text = len.wrapping_sub(HEAD as u32);
    if text < 0x7e
        && let Some(head) = value.first_chunk()
        && u32::from_le_bytes(*head) & 0xff_ffff == (text + 2) | u32::from(STRING) << 8 | text << 16
        && let Some(after) = value.get(HEAD + text as usize..)
    {
        return Some((Plain::Text(Unread { bytes: &value[HEAD..], len: text as usize }), after));
    }
    let (value, after) = value.split_at_checked(len as usize)?;
    Some((Plain::Other(plain_value(value)?), after))
}

/// The text that all of `bytes` are as a value: a body, mostly.
#[inline(always)]
pub(super) fn plain_text(bytes: &[u8]) -> Option<&str> {
    let (text, len) = match bytes {
        [STRING, len @ ..0x80, text @ ..] => (text, usize::from(*len)),
        [STRING, low, high @ ..0x80, text @ ..] => (text, usize::from(*low & 0x7f) | usize::from(*high) << 7),
        _ => return None,
    };
    if len == text.len() { text::utf8(text).ok() } else { None }
}

/// The value that all of `bytes` are, with its length before it.
#[inline(always)]
fn plain_value(bytes: &[u8]) -> Option<AnyView<'_>> {
    const BOOL: u8 = tag::any_value::BOOL as u8;
    const INT: u8 = tag::any_value::INT as u8;
    const DOUBLE: u8 = tag::any_value::DOUBLE as u8;
    let [len @ 2..0x80, kind, value @ ..] = bytes else { return None };
    if usize::from(*len) != value.len() + 1 {
        return None;
    }
    Some(match (*kind, value) {
        (STRING, [len @ ..0x80, text @ ..]) if usize::from(*len) == text.len() => AnyView::Str(text::utf8(text).ok()?),
        (BOOL, [value @ ..0x80]) => AnyView::Bool(*value != 0),
        (INT, [low @ 0x80..=0xff, high @ ..0x80]) => AnyView::Int(i64::from(low & 0x7f) | i64::from(*high) << 7),
        // Nine bytes have 63 bits. All but the last have the highest bit, as it is when they are one varint.
        (INT, [high @ .., last @ ..0x80]) if high.len() < 9 && high.iter().all(|byte| *byte >= 0x80) => {
            let value = high.iter().rev().fold(i64::from(*last), |value, byte| value << 7 | i64::from(byte & 0x7f));
            AnyView::Int(value)
        }
        (DOUBLE, double) => AnyView::Double(f64::from_le_bytes(double.try_into().ok()?)),
        _ => return None,
    })
}
