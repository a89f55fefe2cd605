//! Searches: newest first, by time and then by the tie-break, page after page by `search_after`.
//!
//! No point in time is kept open on the cluster: a page begins after a place in an order that never changes, so events that
//! arrive meanwhile shift nothing.

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Elasticsearch, Failed, document::Document, dsl, time};
use crate::{
    compute::compute,
    index::IndexError,
    query::{LIMIT_MAX, Page, Query},
};

/// Documents that one search looks at. The query finds more than the expression wants only where the index cannot decide,
/// such as for a regular expression; a search that has looked at this many answers with what it has and a cursor.
const SCANNED_MAX: usize = 20_000;
/// How long a shard may search before it answers with what it has: less than our own callers wait.
const SHARD_TIMEOUT: &str = "20s";

pub(super) async fn search(elasticsearch: &Elasticsearch, query: &Query) -> Result<Page, IndexError> {
    let limit = query.limit.clamp(1, LIMIT_MAX);
    let mut after = query.cursor.as_deref().map(Place::parse).transpose()?;
    let (condition, is_exact) = dsl::query(&query.expr);
    let mut page = Page::default();
    let mut scanned = 0;
    // One more than wanted tells whether there is another page.
    let mut size = limit + 1;
    loop {
        let Part { found, warning } = request(elasticsearch, query, &condition, size, after.as_ref()).await?;
        page.warnings.extend(warning.filter(|warning| !page.warnings.contains(warning)));
        let is_last = found.len() < size;
        scanned += found.len();
        // Documents may be large, and expressions patterns: others go on meanwhile.
        let matching: Vec<bool> = compute(|| found.iter().map(|hit| query.expr.matches(&hit.document)).collect()).await;
        for (hit, is_match) in found.into_iter().zip(matching) {
            // A batch that was sent again after a rollover is there twice, side by side.
            let is_again = after.as_ref() == Some(&hit.place);
            after = Some(hit.place);
            if is_again || !is_match {
                continue;
            }
            if page.hits.len() == limit {
                page.cursor = page.hits.last().map(|hit| Place::cursor(hit.time_ns, &hit.id));
                return Ok(page);
            }
            let Some(Place(time_ns, tie)) = after.clone() else { continue };
            page.hits.push(hit.document.into_hit(time_ns, tie));
        }
        if is_last {
            return Ok(page);
        }
        if scanned >= SCANNED_MAX {
            page.cursor = after.map(|Place(time_ns, tie)| Place::cursor(time_ns, &tie));
            return Ok(page);
        }
        if !is_exact {
            size = (size * 4).min(LIMIT_MAX + 1);
        }
    }
}

/// A place in the order of all events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Place(i64, String);

impl Place {
    fn cursor(time_ns: i64, tie: &str) -> String {
        format!("{time_ns}~{tie}")
    }

    fn parse(cursor: &str) -> Result<Self, IndexError> {
        cursor
            .split_once('~')
            .and_then(|(time, tie)| Some(Self(time.parse().ok()?, tie.to_owned())))
            .ok_or_else(|| IndexError::BadRequest("the cursor is not one of ours: leave it out to begin anew".into()))
    }
}

#[derive(Deserialize)]
struct Answer {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    /// `filter_path` leaves away what is empty.
    #[serde(default)]
    hits: Hits,
}

#[derive(Deserialize)]
struct Shards {
    total: u32,
    failed: u32,
}

#[derive(Default, Deserialize)]
struct Hits {
    hits: Vec<Found>,
}

/// One answer of the cluster.
struct Part {
    found: Vec<Found>,
    /// Why it may lack something.
    warning: Option<String>,
}

impl Answer {
    fn warning(&self) -> Option<String> {
        let Shards { total, failed } = self.shards;
        if failed > 0 {
            return Some(format!("{failed} of the index's {total} shards did not answer: events may be missing"));
        }
        let cut = "the search took too long and was cut short: events may be missing; narrow the time range";
        self.timed_out.then(|| cut.to_owned())
    }
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_source")]
    document: Document,
    #[serde(rename = "sort")]
    place: Place,
}

async fn request(
    elasticsearch: &Elasticsearch,
    query: &Query,
    condition: &Value,
    size: usize,
    after: Option<&Place>,
) -> Result<Part, Failed> {
    let path = elasticsearch.search_path();
    let parameters = [
        // Before the first event there is no data stream, and nothing to be found.
        ("ignore_unavailable", "true"),
        ("allow_no_indices", "true"),
        // What is there is shown, with a warning: logs are needed most when a part of the cluster is down.
        ("allow_partial_search_results", "true"),
        ("filter_path", "timed_out,_shards.total,_shards.failed,hits.hits._source,hits.hits.sort"),
    ];
    let mut body = body(query, condition, size, after);
    if elasticsearch.meets_others()
        && let Some(filter) = body["query"]["bool"]["filter"].as_array_mut()
    {
        filter.push(json!({"exists": {"field": "tie"}}));
    }
    let body = body.to_string();
    let answer = elasticsearch.call(Method::Post, &path, &parameters, Some(body.into())).await?.ok()?;
    let answer: Answer = compute(|| serde_json::from_slice(&answer))
        .await
        .map_err(|error| Failed::retry("garbage", format!("the answer to a search cannot be read: {error}")))?;
    let warning = answer.warning();
    Ok(Part { found: answer.hits.hits, warning })
}

fn body(query: &Query, condition: &Value, size: usize, after: Option<&Place>) -> Value {
    // The field holds no time before 1970.
    let (from, to) = (time::text(query.from_ns.max(0)), time::text(query.to_ns.max(0)));
    let time = json!({"gte": from, "lt": to, "format": "strict_date_optional_time_nanos"});
    let mut body = json!({
        "size": size,
        "timeout": SHARD_TIMEOUT,
        "track_total_hits": false,
        "query": {"bool": {"filter": [{"range": {"@timestamp": time}}, condition]}},
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "date_nanos"}}, {"tie": {"order": "desc", "unmapped_type": "keyword"}}],
        // What no hit shows and no expression looks at; all else may be an attribute that has a field of its own.
        "_source": {"excludes": [
            "@timestamp", "observed_timestamp", "tie", "level", "log.level", "severity_text", "event_name", "event.action",
            "flags", "scope", "opaque",
        ]},
    });
    if let Some(Place(time_ns, tie)) = after {
        body["search_after"] = json!([time_ns, tie]);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_lacks_something_says_so() {
        let answer = |text: &str| serde_json::from_str::<Answer>(text).map(|answer| answer.warning());
        let whole = r#"{"timed_out":false,"_shards":{"total":3,"failed":0}}"#;
        assert_eq!(answer(whole).unwrap(), None);
        let failed = answer(r#"{"timed_out":true,"_shards":{"total":3,"failed":2},"hits":{"hits":[]}}"#).unwrap();
        assert_eq!(failed.unwrap(), "2 of the index's 3 shards did not answer: events may be missing");
        let late = answer(r#"{"timed_out":true,"_shards":{"total":3,"failed":0}}"#).unwrap();
        assert!(late.unwrap().starts_with("the search took too long"));
        for garbage in ["{}", "[]", r#"{"timed_out":false}"#, r#"{"_shards":{"total":3,"failed":0}}"#] {
            assert!(answer(garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_cursor_names_a_place_and_nothing_else_does() {
        let place = Place(1_767_225_600_000_000_001, "a~b:01:02".into());
        assert_eq!(Place::parse(&Place::cursor(place.0, &place.1)).unwrap(), place);
        for text in ["", "~", "x~y", "12"] {
            assert!(matches!(Place::parse(text), Err(IndexError::BadRequest(_))), "{text}");
        }
    }
}
