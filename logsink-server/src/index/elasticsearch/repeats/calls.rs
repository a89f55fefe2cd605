//! What the cluster is asked and told about backing indices.

use std::{collections::BTreeMap, time::Duration};

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::generations::{Generation, generations};
use crate::index::elasticsearch::{Elasticsearch, Failed};

/// Hits of one search: `index.max_result_window`.
pub(super) const HITS_MAX: usize = 10_000;
/// An index that another process is closing is closed to new writes at once; those under way have so long to end.
const CLOSING_PAUSE: Duration = Duration::from_secs(1);

/// The backing indices of data streams.
pub(super) async fn ask(
    elasticsearch: &Elasticsearch,
    names: &[&str],
) -> Result<BTreeMap<String, Vec<Generation>>, Failed> {
    let path = format!("/{}/_settings/index.creation_date", names.join(","));
    let query = [("flat_settings", "true"), ("ignore_unavailable", "true"), ("allow_no_indices", "true")];
    let answer = elasticsearch.call(Method::Get, &path, &query, None).await?;
    if answer.status == 404 {
        return Ok(names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect());
    }
    let answer = answer.ok()?;
    let found: BTreeMap<String, Value> = serde_json::from_slice(&answer)
        .map_err(|error| Failed::retry("garbage", format!("the answer about indices cannot be read: {error}")))?;
    Ok(names.iter().map(|stream| ((*stream).to_owned(), generations(stream, &found))).collect())
}

/// Closes indices to writes, and waits until nothing is under way there.
pub(super) async fn close(elasticsearch: &Elasticsearch, names: &[&str]) -> Result<(), Failed> {
    let path = format!("/{}/_block/write", names.join(","));
    let query = [("ignore_unavailable", "true")];
    let answer = elasticsearch.call(Method::Put, &path, &query, None).await?;
    // Gone: removed by retention.
    if answer.status == 404 {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(&answer.ok()?)
        .map_err(|error| Failed::retry("garbage", format!("the answer to a block cannot be read: {error}")))?;
    if answer["shards_acknowledged"] == false {
        if answer["indices"].as_array().is_some_and(Vec::is_empty) {
            sleep(CLOSING_PAUSE).await;
            return Ok(());
        }
        return Err(Failed::retry("unavailable", "an index could not be closed to writes yet".into()));
    }
    Ok(())
}

/// Opens them again.
pub(super) async fn open(elasticsearch: &Elasticsearch, names: &[&str]) -> Result<(), Failed> {
    let path = format!("/{}/_settings", names.join(","));
    let settings = json!({"index.blocks.write": null}).to_string();
    elasticsearch.call(Method::Put, &path, &[], Some(settings.into())).await?.ok().map(drop)
}

/// Makes what is in them to be found.
pub(super) async fn refresh(elasticsearch: &Elasticsearch, names: &[&str]) -> Result<(), Failed> {
    let path = format!("/{}/_refresh", names.join(","));
    // One that retention has removed meanwhile holds nothing.
    let query = [("ignore_unavailable", "true")];
    elasticsearch.call(Method::Post, &path, &query, None).await?.ok().map(drop)
}

/// An id, and an index that has it.
#[derive(Debug, Deserialize)]
pub(super) struct Hit {
    #[serde(rename = "_id")]
    pub(super) id: String,
    #[serde(rename = "_index")]
    pub(super) index: String,
}

/// A search for these ids in these indices.
pub(super) fn look_up(indices: &[&str], ids: &BTreeMap<String, Vec<usize>>) -> String {
    let ids: Vec<&String> = ids.keys().collect();
    let filter = json!([{"ids": {"values": ids}}, {"terms": {"_index": indices}}]);
    json!({
        "size": HITS_MAX,
        "_source": false,
        "track_total_hits": false,
        "sort": ["_doc"],
        "query": {"bool": {"filter": filter}},
    })
    .to_string()
}

/// What a [`look_up`] finds.
pub(super) async fn search(elasticsearch: &Elasticsearch, stream: &str, body: &str) -> Result<Vec<Hit>, Failed> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        hits: Hits,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Hits {
        hits: Vec<Hit>,
    }

    // A shard that does not answer might hold what is looked for.
    let query = [("allow_partial_search_results", "false"), ("filter_path", "hits.hits._id,hits.hits._index")];
    let path = format!("/{stream}/_search");
    let answer = elasticsearch.call(Method::Post, &path, &query, Some(body.to_owned().into())).await?.ok()?;
    serde_json::from_slice::<Answer>(&answer)
        .map(|answer| answer.hits.hits)
        .map_err(|error| Failed::retry("garbage", format!("the answer to a look-up cannot be read: {error}")))
}

/// Answers with how many it removed; what was gone already has been removed by another.
pub(super) async fn delete(elasticsearch: &Elasticsearch, lines: String) -> Result<u64, Failed> {
    let query = [("filter_path", "items.*.status")];
    let answer = elasticsearch
        .client
        .call(Method::Post, "/_bulk", &query, Some(lines.into()), "application/x-ndjson", None)
        .await?
        .ok()?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| Failed::retry("garbage", format!("the answer to a removal cannot be read: {error}")))?;
    let statuses =
        answer["items"].as_array().into_iter().flatten().filter_map(|item| item["delete"]["status"].as_u64());
    let mut removed = 0;
    for status in statuses {
        match status {
            200..=299 => removed += 1,
            404 => {}
            401 | 403 => return Err(Failed::Stop { message: format!("removing a double was answered {status}") }),
            _ => return Err(Failed::retry("unavailable", format!("removing a double was answered {status}"))),
        }
    }
    Ok(removed)
}
