//! Text, sixteen bytes at a time: whether it is UTF-8, where JSON needs an escape, and the buffer that it is written to.
//!
//! Most of a request's bytes, and of a `_bulk` body's, are strings that are ASCII and need no escape. The unsafe code here and in the
//! files below it is wide loads and stores, each within a slice or within room that was made just before.

#![allow(unsafe_code, reason = "wide loads and stores; see each SAFETY")]

use std::str::Utf8Error;

mod copy;
mod familiar;
mod out;
mod repeat;
mod wide;

use self::wide::{WIDTH, Wide};
pub(crate) use self::{
    familiar::Familiar,
    out::Out,
    repeat::{MEMBERS, alike, members},
    wide::hex,
};

/// The bytes as text. ASCII, which nearly all text is, is not decoded to see that.
#[inline]
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Utf8Error> {
    if is_ascii(bytes) {
        // SAFETY: ASCII is UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes)
}

/// Whether the first `len` of these bytes are ASCII; false, too, when they are so few that not sixteen bytes stand there.
#[inline(always)]
pub(crate) fn are_ascii(bytes: &[u8], len: usize) -> bool {
    let Some(text) = bytes.get(..len) else { return false };
    match text.last_chunk() {
        Some(last) => {
            let (chunks, _) = text.as_chunks::<WIDTH>();
            chunks.iter().fold(Wide::load(last), |all, chunk| all.or(Wide::load(chunk))).is_ascii()
        }
        None => bytes.first_chunk().is_some_and(|first| Wide::load(first).high() & !(u32::MAX << len) == 0),
    }
}

#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<WIDTH>(), bytes.last_chunk::<WIDTH>()) {
        // What is between the first sixteen and the last; of the last some may be looked at twice.
        let (between, _) = bytes[WIDTH..].as_chunks::<WIDTH>();
        let all = between.iter().fold(Wide::load(first).or(Wide::load(last)), |all, chunk| all.or(Wide::load(chunk)));
        return all.is_ascii();
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_le_bytes(*first) | u64::from_le_bytes(*last)) & HIGH == 0;
    }
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (u32::from_le_bytes(*first) | u32::from_le_bytes(*last)) & HIGH as u32 == 0,
        _ => bytes.iter().fold(0, |all, byte| all | byte) < 0x80,
    }
}

/// The highest bit of each byte.
const HIGH: u64 = 0x8080_8080_8080_8080;

#[cfg(test)]
mod tests;
