//! Which indices are to be removed. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::super::{
    layout::{self, Layout, OUTSIDE},
    repeats::generation,
    setup::MANAGED_BY,
};

/// An index whose name is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) mark: Mark,
    /// From when on it takes no events that are new, Unix milliseconds; none for the one that is written to.
    pub(super) ends_ms: Option<i64>,
    /// On disk, replicas included.
    pub(super) bytes: u64,
    pub(super) documents: u64,
}

/// What its mapping says of its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It was made from our template.
    New,
    /// And its uuid was recorded in it.
    Ours,
    /// The uuid is another one's: it was restored, or copied.
    Copied,
    /// It was not made from our template.
    Foreign,
}

/// What may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) age: Option<Duration>,
    pub(super) bytes: Option<u64>,
}

const DAY_MS: i64 = 86_400_000;

/// Indices with names of ours, oldest first, from the answer about them.
pub(super) fn read(layout: Layout, stream: &str, about: &BTreeMap<String, Value>) -> Vec<Index> {
    let mut found: Vec<(i64, i64, Index)> = about
        .iter()
        .filter_map(|(name, about)| {
            let settings = &about["settings"]["index"];
            let created_ms: i64 = settings["creation_date"].as_str()?.parse().ok()?;
            let uuid = settings["uuid"].as_str()?;
            let (order, ends_ms) = match layout {
                Layout::DataStream => {
                    // Shrunken and mounted ones have other names and are not ours to remove.
                    let number = generation(name, stream).filter(|_| name.starts_with(".ds-"))?;
                    (i64::try_from(number).ok()?, None)
                }
                Layout::Daily => match name.strip_prefix(stream)?.strip_prefix('-')? {
                    // Its events have any time; it is as old as itself.
                    OUTSIDE => (created_ms, Some(created_ms)),
                    date => {
                        let end = (layout::parse_date(date)? + 1) * DAY_MS;
                        (end, Some(end))
                    }
                },
            };
            let mark = mark(&about["mappings"]["_meta"], stream, uuid);
            let index = Index { name: name.clone(), uuid: uuid.to_owned(), mark, ends_ms, bytes: 0, documents: 0 };
            Some((order, created_ms, index))
        })
        .collect();
    found.sort_by_key(|(order, ..)| *order);
    if layout == Layout::DataStream {
        // An index of a data stream ends where the next one begins.
        for at in 1..found.len() {
            found[at - 1].2.ends_ms = Some(found[at].1);
        }
    }
    found.into_iter().map(|(.., index)| index).collect()
}

fn mark(meta: &Value, stream: &str, uuid: &str) -> Mark {
    if meta["managed_by"] != MANAGED_BY || meta["stream"] != stream {
        return Mark::Foreign;
    }
    match &meta["uuid"] {
        Value::Null => Mark::New,
        recorded if recorded == uuid => Mark::Ours,
        _ => Mark::Copied,
    }
}

/// What to remove of all streams' indices, and why. Never one that is written to.
pub(super) fn remove<'i>(indices: &'i [Index], limits: &Limits, now_ms: i64) -> Vec<(&'i Index, &'static str)> {
    let mut removable: Vec<(i64, &Index)> = indices
        .iter()
        .filter(|index| index.mark == Mark::Ours)
        .filter_map(|index| Some((index.ends_ms.filter(|ends_ms| *ends_ms <= now_ms)?, index)))
        .collect();
    removable.sort_by_key(|(ends_ms, index)| (*ends_ms, &index.name));
    let mut total: u64 =
        indices.iter().filter(|index| matches!(index.mark, Mark::New | Mark::Ours)).map(|index| index.bytes).sum();
    let oldest_ms = limits.age.map(|age| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    let mut remove = Vec::new();
    for (ends_ms, index) in removable {
        let reason = if oldest_ms.is_some_and(|oldest_ms| ends_ms < oldest_ms) {
            "age"
        } else if limits.bytes.is_some_and(|bytes| total > bytes) {
            "bytes"
        } else {
            continue;
        };
        total = total.saturating_sub(index.bytes);
        remove.push((index, reason));
    }
    remove
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STREAM: &str = "logs-shop-default";

    fn about(created_ms: i64, meta: Value) -> Value {
        json!({
            "settings": {"index": {"uuid": "u1", "creation_date": created_ms.to_string()}},
            "mappings": {"_meta": meta},
        })
    }

    fn ours() -> Value {
        json!({"managed_by": "logsink", "stream": STREAM, "uuid": "u1"})
    }

    fn names(indices: &[Index]) -> Vec<&str> {
        indices.iter().map(|index| index.name.as_str()).collect()
    }

    #[test]
    fn only_exact_names_are_looked_at() {
        let backing = [
            ".ds-logs-shop-default-2026.11.01-000001",
            ".ds-logs-shop-default-000002",
            // Not ours.
            "shrink-x-.ds-logs-shop-default-2026.11.01-000001",
            ".ds-logs-shop-default-eu-2026.11.01-000001",
            "logs-shop-default",
            ".ds-logs-shop-default-copy",
        ];
        let about: BTreeMap<_, _> =
            backing.iter().zip(0..).map(|(name, at)| (name.to_string(), about(at * 1_000, ours()))).collect();
        let indices = read(Layout::DataStream, STREAM, &about);
        assert_eq!(names(&indices), [backing[0], backing[1]]);
        assert_eq!((indices[0].ends_ms, indices[1].ends_ms), (Some(1_000), None));
        let daily = [
            "logs-shop-default-2026.11.01",
            "logs-shop-default-2026.11.02",
            "logs-shop-default-outside",
            // Not ours.
            "logs-shop-default-2026.11.01-copy",
            "logs-shop-default-2026.13.01",
            "logs-shop-default-eu-2026.11.01",
            "logs-shop-default-2026.11",
        ];
        let about: BTreeMap<_, _> = daily.iter().map(|name| (name.to_string(), self::about(7, ours()))).collect();
        let indices = read(Layout::Daily, STREAM, &about);
        assert_eq!(names(&indices), [daily[2], daily[0], daily[1]]);
        assert_eq!(indices[2].ends_ms, Some(1_793_664_000_000), "the end of the day");
    }

    #[test]
    fn an_index_is_ours_by_its_mark_and_its_recorded_uuid() {
        let mark = |meta| mark(&meta, STREAM, "u1");
        assert_eq!(mark(ours()), Mark::Ours);
        assert_eq!(mark(json!({"managed_by": "logsink", "stream": STREAM})), Mark::New);
        for meta in [
            Value::Null,
            json!({}),
            json!({"managed_by": "someone", "stream": STREAM, "uuid": "u1"}),
            json!({"managed_by": "logsink", "stream": "logs-other-default", "uuid": "u1"}),
        ] {
            assert_eq!(mark(meta.clone()), Mark::Foreign, "{meta}");
        }
        let restored = json!({"managed_by": "logsink", "stream": STREAM, "uuid": "of what it was restored from"});
        assert_eq!(mark(restored), Mark::Copied);
    }

    fn index(name: &str, mark: Mark, ends_ms: Option<i64>, bytes: u64) -> Index {
        Index { name: name.into(), uuid: "u".into(), mark, ends_ms, bytes, documents: 1 }
    }

    #[test]
    fn the_oldest_go_first_and_only_ours() {
        let indices = [
            index("a1", Mark::Ours, Some(100), 10),
            index("a2", Mark::Ours, Some(300), 10),
            index("a3", Mark::Ours, None, 10),
            index("b1", Mark::Foreign, Some(50), 1_000),
            index("b2", Mark::Copied, Some(50), 1_000),
            index("b2", Mark::New, Some(60), 10),
            index("c1", Mark::Ours, Some(200), 10),
            index("c2", Mark::Ours, Some(2_000), 10),
        ];
        let remove = |age: Option<u64>, bytes: Option<u64>| -> Vec<(&str, &str)> {
            let limits = Limits { age: age.map(Duration::from_millis), bytes };
            remove(&indices, &limits, 1_000).into_iter().map(|(index, why)| (index.name.as_str(), why)).collect()
        };
        assert!(remove(None, None).is_empty());
        assert_eq!(remove(Some(750), None), [("a1", "age"), ("c1", "age")]);
        assert!(remove(None, Some(60)).is_empty(), "what is not ours is not counted");
        assert_eq!(remove(None, Some(45)), [("a1", "bytes"), ("c1", "bytes")]);
        assert_eq!(remove(Some(850), Some(45)), [("a1", "age"), ("c1", "bytes")]);
        assert_eq!(
            remove(None, Some(0)),
            [("a1", "bytes"), ("c1", "bytes"), ("a2", "bytes")],
            "what is written to stays"
        );
    }
}
