//! The backing indices of a data stream, and which of them may hold a record.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::index::elasticsearch::layout;

/// Older indices that ids are looked up in: with an index a day, a month.
pub(super) const LOOKED_AT_MAX: usize = 31;
/// Indices that were written to longer ago have been refreshed since, and no write to them is under way: a request takes a minute
/// at most.
const SETTLED_AFTER_MS: i64 = 600_000;

/// A backing index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) created_ms: i64,
}

/// The backing indices of a stream, oldest first; the last is written to.
pub(super) type Generations = Arc<Vec<Generation>>;

/// The number of a data stream's backing index; none when the name is not that of one of `stream`.
/// `.ds-NAME-2026.11.26-000001` in Elasticsearch, `.ds-NAME-000001` in OpenSearch; with something in front when it was shrunk
/// or mounted.
pub(in super::super) fn generation(name: &str, stream: &str) -> Option<u64> {
    let (_, rest) = name.split_once(".ds-")?;
    let rest = rest.strip_prefix(stream)?.strip_prefix('-')?;
    let number = match rest.split_once('-') {
        Some((date, number)) => layout::parse_date(date).map(|_| number)?,
        None => rest,
    };
    (number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| number.parse().ok()).flatten()
}

/// The indices before the current one that were written to after `since_ms`.
pub(super) fn older(generations: &[Generation], since_ms: i64) -> &[Generation] {
    let Some((_, older)) = generations.split_last() else { return &[] };
    // An index ends where the next one begins.
    let first = generations.iter().skip(1).position(|next| next.created_ms > since_ms).unwrap_or(older.len());
    &older[first.max(older.len().saturating_sub(LOOKED_AT_MAX))..]
}

/// Those of a stream, oldest first, from what `GET _settings` says of indices.
pub(super) fn generations(stream: &str, found: &BTreeMap<String, Value>) -> Vec<Generation> {
    let mut generations: Vec<Generation> = found
        .iter()
        .filter_map(|(name, about)| {
            let settings = &about["settings"];
            let created_ms = settings["index.creation_date"].as_str()?.parse().ok()?;
            Some(Generation { number: generation(name, stream)?, name: name.clone(), created_ms })
        })
        .collect();
    generations.sort_by_key(|generation| generation.number);
    // What is not looked at is not kept.
    generations.drain(..generations.len().saturating_sub(LOOKED_AT_MAX + 1));
    generations
}

/// Those of `indices` that were written to a short while ago, or still are.
pub(super) fn unsettled<'g>(all: &[Generation], indices: &'g [Generation]) -> Vec<&'g Generation> {
    let newest_ms = now_ms().max(all.last().map_or(0, |index| index.created_ms));
    let end_ms = |index: &Generation| {
        let next = all.iter().find(|next| next.number > index.number);
        next.map_or(i64::MAX, |next| next.created_ms)
    };
    indices.iter().filter(|index| end_ms(index) > newest_ms - SETTLED_AFTER_MS).collect()
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests;
