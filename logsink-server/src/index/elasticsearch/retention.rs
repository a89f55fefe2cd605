//! Our own retention, where the cluster has no policy for it: rolls data streams over by age and size, and removes whole indices
//! by age and by total bytes.
//!
//! It never removes what it did not make. An index is ours when all of this holds: its name is exactly one that the writer or
//! the data stream makes; the template has put our mark into its mapping (`_meta`: `managed_by`, `stream`); and its own uuid is recorded
//! there, which this loop writes when it first sees the index, at least one pass before it may remove it. So an index with a
//! similar name stays, and so does one that was restored, cloned or reindexed under a name of ours: it brings along the record
//! of another uuid, or no mark.
//!
//! Processes with the role `drain` run it; etcd elects one of them ([`holder`]). Without etcd all run it, which does no harm: a
//! rollover has its conditions checked by the cluster, so the second one finds a young index and does nothing, and what is
//! to be removed follows from what is there, so that two remove the same, and the second finds nothing.

mod holder;
mod plan;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use elasticsearch::http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use self::{
    holder::Holder,
    plan::{Index, Limits, Mark},
};
use super::{
    Elasticsearch, Failed,
    layout::Layout,
    lifecycle::Lifecycle,
    setup::{MANAGED_BY, SetUp},
    streams,
};
use crate::config::RetentionBy;

/// How long events are kept, and when a data stream begins a new index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionOptions {
    /// Who sees to it.
    pub by: RetentionBy,
    /// Indices whose events are all older are removed. Default: none is.
    pub age: Option<Duration>,
    /// Above this size of all our indices with their replicas the oldest are removed. Default: no bound.
    pub bytes: Option<u64>,
    /// A data stream's index takes events for so long. Default: a day.
    pub rollover_age: Duration,
    /// A data stream's index takes about so many bytes, replicas not counted. Default: 50 GiB.
    pub rollover_bytes: u64,
    /// The pause between two looks. Default: a minute.
    pub every: Duration,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self {
            by: RetentionBy::Auto,
            age: None,
            bytes: None,
            rollover_age: Duration::from_secs(86_400),
            // What Elastic recommends as the largest shard.
            rollover_bytes: 50 << 30,
            every: Duration::from_secs(60),
        }
    }
}

impl RetentionOptions {
    /// When an index is full. Whole indices are removed, so `bytes` needs several to choose from.
    pub(super) fn rollover_bytes(&self) -> u64 {
        self.rollover_bytes.min(self.bytes.map_or(u64::MAX, |bytes| (bytes / 4).max(1)))
    }
}

/// Names in one request: they stand in its first line, which has 4 KiB.
pub(super) const NAMES_PER_REQUEST: usize = 12;

/// The retention of one process.
pub struct Retention {
    elasticsearch: Arc<Elasticsearch>,
    etcd: Vec<String>,
    fleet: Option<String>,
}

impl Retention {
    /// Retention of the index; of several processes of a `fleet` with the same `etcd` (URLs of its members) one sees to it at a time.
    pub fn new(elasticsearch: Arc<Elasticsearch>, etcd: Vec<String>, fleet: Option<String>) -> Self {
        Self { elasticsearch, etcd, fleet }
    }

    /// Looks after the indices until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let elasticsearch = &*self.elasticsearch;
        let options = &elasticsearch.options;
        if options.retention.by == RetentionBy::Nobody || !options.setup {
            let _ = stop.wait_for(|stop| *stop).await;
            return;
        }
        // Another fleet's data stream of this name lies in another cluster. No name of either has an `@`.
        let fleet = self.fleet.map_or_else(String::new, |fleet| format!("@{fleet}"));
        let mut holder = Holder::new(self.etcd, &format!("{}{fleet}", options.data_stream));
        let work = async {
            let set_up = elasticsearch.set_up().await;
            if set_up.lifecycle != Lifecycle::None && options.retention.bytes.is_none() {
                return std::future::pending().await;
            }
            loop {
                if holder.holds().await {
                    look(elasticsearch, set_up, &holder).await;
                }
                sleep(options.retention.every.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            }
        };
        // The sender's end is a stop as well.
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        holder.resign().await;
    }
}

/// One look at all indices. What fails is tried again at the next.
async fn look(elasticsearch: &Elasticsearch, set_up: SetUp, holder: &Holder) {
    if let Err(failed) = try_look(elasticsearch, set_up, holder).await {
        elasticsearch.metrics.index_retention_failed.inc();
        tracing::warn!(reason = failed.message(), "cannot look after old indices; trying again later");
    }
}

async fn try_look(elasticsearch: &Elasticsearch, set_up: SetUp, holder: &Holder) -> Result<(), Failed> {
    let options = &elasticsearch.options.retention;
    let has_policy = set_up.lifecycle != Lifecycle::None;
    // What fails for one stream or index keeps no other from being looked after: a cluster that is full, or at its bound of shards,
    // refuses all but removals.
    let (mut found, mut first_failed) = (Vec::new(), Ok(()));
    for stream in streams::all(elasticsearch, set_up).await? {
        let indices = match indices(elasticsearch, set_up.layout, &stream).await {
            Ok(indices) => indices,
            Err(failed) => {
                first_failed = first_failed.and(Err(failed));
                continue;
            }
        };
        for index in indices.iter().filter(|index| index.mark == Mark::New) {
            first_failed = first_failed.and(record(elasticsearch, &stream, index).await);
        }
        if set_up.layout == Layout::DataStream && !has_policy {
            first_failed = first_failed.and(roll_over(elasticsearch, &stream, &indices).await);
        }
        found.extend(indices);
    }
    let limits = Limits { age: options.age.filter(|_| !has_policy), bytes: options.bytes };
    for (index, reason) in plan::remove(&found, &limits, Timestamp::now().as_millisecond()) {
        // Another process may have been elected while this one stood still.
        if !holder.still_holds() {
            break;
        }
        first_failed = first_failed.and(remove(elasticsearch, index, reason).await);
    }
    first_failed
}

async fn remove(elasticsearch: &Elasticsearch, index: &Index, reason: &str) -> Result<(), Failed> {
    let answer = elasticsearch.call(Method::Delete, &format!("/{}", index.name), &[], None).await?;
    if answer.status != 404 {
        answer.ok()?;
        elasticsearch.metrics.index_indices_removed.inc();
        tracing::info!(index = %index.name, bytes = index.bytes, reason, "removed an old index");
    }
    Ok(())
}

/// Begins a new index where the current one is old or large. The cluster checks that, so it happens once.
async fn roll_over(elasticsearch: &Elasticsearch, stream: &str, indices: &[Index]) -> Result<(), Failed> {
    let options = &elasticsearch.options.retention;
    // An empty one stays: a stream of a service that has ended would make an index a day. One of others' is theirs to roll over.
    let current = indices.iter().rev().find(|index| index.ends_ms.is_none());
    if current.is_none_or(|index| index.documents == 0 || index.mark == Mark::Foreign) {
        return Ok(());
    }
    let conditions = json!({"conditions": {
        "max_age": format!("{}ms", options.rollover_age.as_millis().max(1)),
        "max_size": format!("{}b", options.rollover_bytes()),
    }});
    let path = format!("/{stream}/_rollover");
    let answer = elasticsearch.call(Method::Post, &path, &[], Some(conditions.to_string().into())).await?;
    // So OpenSearch says that another process did it in the same moment.
    if answer.status == 500 && String::from_utf8_lossy(&answer.body).contains("Concurrent modification") {
        return Ok(());
    }
    let answer = answer.ok()?;
    if serde_json::from_slice::<Value>(&answer).is_ok_and(|answer| answer["rolled_over"] == true) {
        elasticsearch.metrics.index_rollovers.inc();
        tracing::info!(data_stream = %stream, "rolled over");
    }
    Ok(())
}

/// Writes an index's uuid into its own mapping.
async fn record(elasticsearch: &Elasticsearch, stream: &str, index: &Index) -> Result<(), Failed> {
    let meta = json!({"_meta": {"managed_by": MANAGED_BY, "stream": stream, "uuid": index.uuid}}).to_string();
    let answer = elasticsearch.call(Method::Put, &format!("/{}/_mapping", index.name), &[], Some(meta.into())).await?;
    if answer.status != 404 {
        answer.ok()?;
    }
    Ok(())
}

/// The indices of one stream whose names are ours, oldest first.
async fn indices(elasticsearch: &Elasticsearch, layout: Layout, stream: &str) -> Result<Vec<Index>, Failed> {
    let target = match layout {
        // The cluster knows which indices belong to it.
        Layout::DataStream => format!("/{stream}"),
        Layout::Daily => format!("/{stream}-*"),
    };
    let query = [
        ("ignore_unavailable", "true"),
        ("allow_no_indices", "true"),
        ("filter_path", "*.settings.index.uuid,*.settings.index.creation_date,*.mappings._meta,*.data_stream"),
    ];
    let answer = elasticsearch.call(Method::Get, &target, &query, None).await?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let about: BTreeMap<String, Value> = read(&answer.ok()?)?;
    let mut indices = plan::read(layout, stream, &about);
    let names: Vec<String> = indices.iter().map(|index| index.name.clone()).collect();
    for names in names.chunks(NAMES_PER_REQUEST) {
        let path = format!("/{}/_stats/store,docs", names.join(","));
        let query = [
            ("level", "indices"),
            ("filter_path", "indices.*.total.store.size_in_bytes,indices.*.primaries.docs.count"),
            ("ignore_unavailable", "true"),
            ("expand_wildcards", "all"),
            // Without shards that answer, as for a closed index, there is nothing to be summed up.
            ("forbid_closed_indices", "false"),
        ];
        let answer: Value = read(&elasticsearch.call(Method::Get, &path, &query, None).await?.ok()?)?;
        for index in indices.iter_mut() {
            let stats = &answer["indices"][&index.name];
            index.bytes += stats["total"]["store"]["size_in_bytes"].as_u64().unwrap_or(0);
            index.documents += stats["primaries"]["docs"]["count"].as_u64().unwrap_or(0);
        }
    }
    Ok(indices)
}

fn read<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(answer)
        .map_err(|error| Failed::retry("garbage", format!("the answer about indices cannot be read: {error}")))
}
