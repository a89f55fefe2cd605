//! One event → the bytes of one OTLP `LogRecord`, without allocation.
//!
//! A record is `[frame][times][constants of the callsite][fields][context]`: the constants were encoded once per callsite,
//! the context (thread and spans) once per span, so only the values are encoded per event. Lengths that are not known when
//! their place comes are varints padded to three bytes, which every protobuf decoder reads; that is enough for a chunk.
//!
//! This file holds the words of the wire format; [`event`] writes records, [`view`] reads them back for the rules,
//! [`repeated`] says what these have dropped as repeats, and [`shrink`] cuts records for a sink that takes no more.

pub(crate) mod event;
pub(crate) mod repeated;
pub(crate) mod shrink;
mod text;
pub(crate) mod view;

#[cfg(test)]
mod tests;

use std::fmt;

/// Field tags (number and wire type) of `opentelemetry.proto.logs.v1.LogRecord`.
pub(crate) mod tag {
    /// `time_unix_nano`, fixed64
    pub(crate) const TIME: u8 = 0x09;
    /// `severity_number`, varint
    pub(crate) const SEVERITY_NUMBER: u8 = 0x10;
    /// `severity_text`, string
    pub(crate) const SEVERITY_TEXT: u8 = 0x1a;
    /// `body`, `AnyValue`
    pub(crate) const BODY: u8 = 0x2a;
    /// `attributes`, `KeyValue`
    pub(crate) const ATTRIBUTE: u8 = 0x32;
    /// `dropped_attributes_count`, varint
    pub(crate) const DROPPED_ATTRIBUTES: u8 = 0x38;
    /// `flags`, fixed32
    #[cfg(feature = "opentelemetry")]
    pub(crate) const FLAGS: u8 = 0x45;
    /// `trace_id`, bytes
    pub(crate) const TRACE_ID: u8 = 0x4a;
    /// `span_id`, bytes
    pub(crate) const SPAN_ID: u8 = 0x52;
    /// `observed_time_unix_nano`, fixed64
    pub(crate) const OBSERVED_TIME: u8 = 0x59;

    /// `KeyValue.key`, string
    pub(crate) const KEY: u8 = 0x0a;
    /// `KeyValue.value`, `AnyValue`
    pub(crate) const VALUE: u8 = 0x12;

    /// `AnyValue.string_value`
    pub(crate) const STRING: u8 = 0x0a;
    /// `AnyValue.bool_value`, varint
    pub(crate) const BOOL: u8 = 0x10;
    /// `AnyValue.int_value`, varint
    pub(crate) const INT: u8 = 0x18;
    /// `AnyValue.double_value`, fixed64
    pub(crate) const DOUBLE: u8 = 0x21;
    /// `AnyValue.bytes_value`
    pub(crate) const BYTES: u8 = 0x3a;
}

/// The frame: its tag and a length padded to three bytes.
pub(crate) const FRAME_BYTES: usize = 4;

/// A varint of 64 bits at its longest.
const VARINT_BYTES_MAX: usize = 10;

/// Text that stands for what was cut: `…[truncated, 18446744073709551615 bytes]` at its longest.
pub(crate) const MARKER_BYTES_MAX: usize = 44;

/// How many sources of an error are followed: a chain that is longer is most likely a circle.
const ERROR_SOURCES_MAX: usize = 32;

/// A scalar in the form of an `AnyValue`, at most a tag and a varint.
pub(crate) struct Scalar {
    bytes: [u8; Scalar::SIZE],
    length: usize,
}

impl Scalar {
    pub(crate) const SIZE: usize = 1 + VARINT_BYTES_MAX;

    #[inline]
    pub(crate) fn int(value: i64) -> Self {
        Self::new(|bytes| write_int(bytes, value))
    }

    #[inline]
    pub(crate) fn bool(value: bool) -> Self {
        Self::new(|bytes| write_bool(bytes, value))
    }

    #[inline]
    pub(crate) fn double(value: f64) -> Self {
        Self::new(|bytes| write_double(bytes, value))
    }

    #[inline]
    pub(crate) fn new(write: impl FnOnce(&mut [u8; Scalar::SIZE]) -> usize) -> Self {
        let mut bytes = [0; Self::SIZE];
        let length = write(&mut bytes);
        Self { bytes, length }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Scalar {
    /// With zeros behind it.
    #[inline]
    pub(crate) fn padded(&self) -> &[u8; Scalar::SIZE] {
        &self.bytes
    }
}

/// Writes an integer as an `AnyValue` and tells its length.
#[inline]
pub(crate) fn write_int(bytes: &mut [u8; Scalar::SIZE], value: i64) -> usize {
    bytes[0] = tag::INT;
    1 + write_varint(&mut bytes[1..], value as u64)
}

/// The first integer that [`write_short_int`] does not write.
pub(crate) const SHORT_INT_END: i64 = 1 << 14;

/// As [`write_int`], of an integer from 0 to [`SHORT_INT_END`], which has at most two bytes.
#[inline]
pub(crate) fn write_short_int(bytes: &mut [u8; Scalar::SIZE], value: i64) -> usize {
    debug_assert!((0..SHORT_INT_END).contains(&value));
    bytes[0] = tag::INT;
    bytes[1] = value as u8;
    if value < 0x80 {
        return 2;
    }
    bytes[1] |= 0x80;
    bytes[2] = (value >> 7) as u8;
    3
}

/// As [`write_int`].
#[inline]
pub(crate) fn write_bool(bytes: &mut [u8; Scalar::SIZE], value: bool) -> usize {
    bytes[0] = tag::BOOL;
    bytes[1] = u8::from(value);
    2
}

/// As [`write_int`].
#[inline]
pub(crate) fn write_double(bytes: &mut [u8; Scalar::SIZE], value: f64) -> usize {
    bytes[0] = tag::DOUBLE;
    bytes[1..9].copy_from_slice(&value.to_le_bytes());
    9
}

/// An encoded varint.
pub(crate) struct Varint {
    bytes: [u8; VARINT_BYTES_MAX],
    length: usize,
}

impl Varint {
    #[inline]
    pub(crate) fn new(value: u64) -> Self {
        let mut bytes = [0; VARINT_BYTES_MAX];
        let length = write_varint(&mut bytes, value);
        Self { bytes, length }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Writes a varint and tells its length.
#[inline]
fn write_varint(bytes: &mut [u8], mut value: u64) -> usize {
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    length + 1
}

/// A varint padded to three bytes; holds up to 2 MiB, and a record is shorter than a chunk.
#[inline]
pub(crate) fn padded(length: usize) -> [u8; 3] {
    let [first, second, third, _] = padded_word(length).to_le_bytes();
    [first, second, third]
}

/// As [`padded`], in the lower three bytes of a little-endian word.
#[inline]
pub(crate) fn padded_word(length: usize) -> u32 {
    debug_assert!(length < 1 << 21);
    let length = length as u32;
    (length & 0x7f) | (length << 1 & 0x7f00) | (length << 2 & 0x7f_0000) | 0x8080
}

/// How many bytes the varint of `value` takes.
#[inline]
pub(crate) fn varint_length(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

// --- Into a growing buffer: for what is encoded once per callsite, thread or span. ---

/// Appends a length-delimited field.
pub(crate) fn push_delimited(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(Varint::new(bytes.len() as u64).as_bytes());
    out.extend_from_slice(bytes);
}

/// Appends an attribute whose value is an encoded `AnyValue`.
pub(crate) fn push_attribute(out: &mut Vec<u8>, key: &str, any: &[u8]) {
    open_attribute(out, key, any.len());
    out.extend_from_slice(any);
}

/// Appends an attribute that holds text.
pub(crate) fn push_text(out: &mut Vec<u8>, key: &str, text: &str) {
    push_bytes(out, key, tag::STRING, text.as_bytes());
}

/// Appends an attribute that holds text or bytes.
pub(crate) fn push_bytes(out: &mut Vec<u8>, key: &str, tag: u8, bytes: &[u8]) {
    open_attribute(out, key, 1 + varint_length(bytes.len()) + bytes.len());
    push_delimited(out, tag, bytes);
}

/// The same with text in parts, `bytes` long in all.
pub(crate) fn push_text_of<'t>(out: &mut Vec<u8>, key: &str, bytes: usize, parts: impl Iterator<Item = &'t str>) {
    open_attribute(out, key, 1 + varint_length(bytes) + bytes);
    out.push(tag::STRING);
    out.extend_from_slice(Varint::new(bytes as u64).as_bytes());
    parts.for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Appends everything before an attribute's value of `any` bytes, and makes room for that in the same step.
fn open_attribute(out: &mut Vec<u8>, key: &str, any: usize) {
    let length = 1 + varint_length(key.len()) + key.len() + 1 + varint_length(any) + any;
    out.reserve(1 + varint_length(length) + length);
    out.push(tag::ATTRIBUTE);
    out.extend_from_slice(Varint::new(length as u64).as_bytes());
    push_delimited(out, tag::KEY, key.as_bytes());
    out.push(tag::VALUE);
    out.extend_from_slice(Varint::new(any as u64).as_bytes());
}

// --- Text that may be too long ---

/// The longest start of `text` that ends at a character's end and has at most `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What follows text of which `bytes` were cut.
pub(crate) fn write_marker(out: &mut dyn fmt::Write, bytes: usize) -> fmt::Result {
    write!(out, "…[truncated, {bytes} bytes]")
}

/// An error and its sources: `cannot load: file not found`.
pub(crate) fn write_error(out: &mut dyn fmt::Write, error: &dyn std::error::Error) -> fmt::Result {
    write!(out, "{error}")?;
    let sources = std::iter::successors(error.source(), |error| error.source());
    for source in sources.take(ERROR_SOURCES_MAX) {
        write!(out, ": {source}")?;
    }
    Ok(())
}
