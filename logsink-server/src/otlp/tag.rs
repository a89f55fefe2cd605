//! Field keys of the OTLP logs messages (opentelemetry-proto 1.x), one module a message.
//!
//! `KNOWN` is the set of a message's field numbers as bits: a known field under another wire type is an error, an unknown
//! field is skipped.

/// The key of a length-delimited field.
const fn len(field: u32) -> u32 {
    field << 3 | 2
}

/// The key of a varint field.
const fn varint(field: u32) -> u32 {
    field << 3
}

/// The key of an eight-byte field.
const fn fixed64(field: u32) -> u32 {
    field << 3 | 1
}

/// The key of a four-byte field.
const fn fixed32(field: u32) -> u32 {
    field << 3 | 5
}

/// Bits `1..=last`.
const fn known(last: u32) -> u64 {
    (1 << (last + 1)) - 2
}

pub(crate) mod request {
    pub(crate) const RESOURCE_LOGS: u32 = super::len(1);
    pub(crate) const KNOWN: u64 = super::known(1);
}

pub(crate) mod resource_logs {
    pub(crate) const RESOURCE: u32 = super::len(1);
    pub(crate) const SCOPE_LOGS: u32 = super::len(2);
    pub(crate) const SCHEMA_URL: u32 = super::len(3);
    pub(crate) const KNOWN: u64 = super::known(3);
}

pub(crate) mod resource {
    pub(crate) const ATTRIBUTES: u32 = super::len(1);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: u32 = super::varint(2);
    pub(crate) const ENTITY_REFS: u32 = super::len(3);
    pub(crate) const KNOWN: u64 = super::known(3);
}

pub(crate) mod entity_ref {
    pub(crate) const SCHEMA_URL: u32 = super::len(1);
    pub(crate) const TYPE: u32 = super::len(2);
    pub(crate) const ID_KEYS: u32 = super::len(3);
    pub(crate) const DESCRIPTION_KEYS: u32 = super::len(4);
    pub(crate) const KNOWN: u64 = super::known(4);
}

pub(crate) mod scope_logs {
    pub(crate) const SCOPE: u32 = super::len(1);
    pub(crate) const LOG_RECORDS: u32 = super::len(2);
    pub(crate) const SCHEMA_URL: u32 = super::len(3);
    pub(crate) const KNOWN: u64 = super::known(3);
}

pub(crate) mod scope {
    pub(crate) const NAME: u32 = super::len(1);
    pub(crate) const VERSION: u32 = super::len(2);
    pub(crate) const ATTRIBUTES: u32 = super::len(3);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: u32 = super::varint(4);
    pub(crate) const KNOWN: u64 = super::known(4);
}

pub(crate) mod record {
    pub(crate) const TIME_UNIX_NANO: u32 = super::fixed64(1);
    pub(crate) const SEVERITY_NUMBER: u32 = super::varint(2);
    pub(crate) const SEVERITY_TEXT: u32 = super::len(3);
    pub(crate) const BODY: u32 = super::len(5);
    pub(crate) const ATTRIBUTES: u32 = super::len(6);
    pub(crate) const DROPPED_ATTRIBUTES_COUNT: u32 = super::varint(7);
    pub(crate) const FLAGS: u32 = super::fixed32(8);
    pub(crate) const TRACE_ID: u32 = super::len(9);
    pub(crate) const SPAN_ID: u32 = super::len(10);
    pub(crate) const OBSERVED_TIME_UNIX_NANO: u32 = super::fixed64(11);
    pub(crate) const EVENT_NAME: u32 = super::len(12);
    /// Field 4 is reserved.
    pub(crate) const KNOWN: u64 = super::known(12) & !(1 << 4);
}

pub(crate) mod key_value {
    pub(crate) const KEY: u32 = super::len(1);
    pub(crate) const VALUE: u32 = super::len(2);
    /// Of the profiles signal only.
    pub(crate) const KEY_STRINDEX: u32 = super::varint(3);
    pub(crate) const KNOWN: u64 = super::known(3);
}

pub(crate) mod any_value {
    pub(crate) const STRING: u32 = super::len(1);
    pub(crate) const BOOL: u32 = super::varint(2);
    pub(crate) const INT: u32 = super::varint(3);
    pub(crate) const DOUBLE: u32 = super::fixed64(4);
    pub(crate) const ARRAY: u32 = super::len(5);
    pub(crate) const KVLIST: u32 = super::len(6);
    pub(crate) const BYTES: u32 = super::len(7);
    /// Of the profiles signal only: an index into a table that logs do not have.
    pub(crate) const STRING_STRINDEX: u32 = super::varint(8);
    pub(crate) const KNOWN: u64 = super::known(8);
}

/// `ArrayValue` and `KeyValueList` alike.
pub(crate) mod list {
    pub(crate) const VALUES: u32 = super::len(1);
    pub(crate) const KNOWN: u64 = super::known(1);
}
