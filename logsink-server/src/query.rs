//! A search and its answer, the same for every index.

use logsink::filter::expr::Expr;
use serde::{Deserialize, Serialize};

/// The most hits that one page can have: what fits in memory comfortably at 64 KiB an event.
pub const LIMIT_MAX: usize = 1_000;
/// Hits in a page when the request does not say.
pub const LIMIT_DEFAULT: usize = 100;

/// A search: newest first, by time and then by a tie-break that every index keeps stable.
#[derive(Debug, Clone)]
pub struct Query {
    /// Inclusive, Unix nanoseconds.
    pub from_ns: i64,
    /// Exclusive, Unix nanoseconds.
    pub to_ns: i64,
    /// What must match.
    pub expr: Expr,
    /// Hits wanted, at most [`LIMIT_MAX`].
    pub limit: usize,
    /// Where the page before ended: its `cursor`, opaque, made by the index.
    pub cursor: Option<String>,
}

/// One event found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The record's id: the same on every read of the same event.
    pub id: String,
    /// When it happened (`time_unix_nano`, else `observed_time_unix_nano`), Unix nanoseconds.
    pub time_ns: i64,
    /// RFC 3339 in UTC with nine decimals: `time_ns` for people.
    pub time: String,
    /// The severity number, 0 when there is none.
    pub severity: u8,
    /// `trace` … `fatal`, or `unspecified`.
    pub level: String,
    /// `service.name`.
    pub service: String,
    /// The body as text.
    pub message: String,
    /// The `target` attribute, else the scope's name.
    pub target: String,
    /// 32 hexadecimal digits, empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// 16 hexadecimal digits, empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub span_id: String,
    /// The record's attributes as sent (without `target`).
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// The resource's attributes as sent.
    pub resource: serde_json::Map<String, serde_json::Value>,
}

/// A page of hits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Newest first.
    pub hits: Vec<Hit>,
    /// Where the next page begins; none when there is nothing more.
    pub cursor: Option<String>,
    /// Why events that match may be missing, a sentence each; empty when the answer is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
