//! Pieces of JSON, written straight into a body.

use crate::text::Out;

/// Text behind `before`, which ends with its opening quote, such as `,"name":"`.
#[inline]
pub(super) fn field<const N: usize>(out: &mut Out, before: &[u8; N], text: &str) {
    out.text(before, text, b"\"");
}

/// An integer.
#[inline]
pub(super) fn int(out: &mut Out, number: impl itoa::Integer) {
    out.put(itoa::Buffer::new().format(number).as_bytes());
}

/// A finite double, as serde_json writes it.
pub(super) fn double(out: &mut Out, number: f64) {
    out.put(zmij::Buffer::new().format_finite(number).as_bytes());
}

/// `true` or `false`.
#[inline]
pub(super) fn boolean(out: &mut Out, value: bool) {
    out.put(if value { b"true" } else { b"false" });
}
