//! Each record once across a rollover: within one backing index of a data stream a second `create` with the same id is refused,
//! between two it is not.
//!
//! Two cases, two looks.
//!
//! *The first copy lies in an older index.* A record can have been stored only after it happened (or, where its id is that of
//! its place in the queue, after it came there). A message whose records are all younger than the index that is written to can have
//! no copy elsewhere: one comparison a message, and that is all in the steady state. The ids of older messages are looked up in
//! the indices that were written to since, and what is there counts as stored.
//!
//! *The data stream rolls over during the write*, between an attempt whose outcome is unknown and the next, or while another
//! process writes the same records. So after a write the index that is written to is asked for again, and when it has changed, all ids
//! are looked up in the indices of that time and later; of two copies the younger is removed. Whoever removes one has seen
//! the older, and everyone removes the younger, so one stays.
//!
//! A look-up means nothing while a write of before the rollover is still under way, be it that of a process that was killed since.
//! So an index that was written to lately is closed to writes first (`index.blocks.write`): the cluster lets what is under
//! way end, refuses what comes later, and only then answers. A data stream never writes there again.
//!
//! Bounds: a look-up goes through [`LOOKED_AT_MAX`](generations::LOOKED_AT_MAX) indices at most. A repeat that comes after more rollovers is stored again. A user
//! without the right to search is told so once, and has no such protection.

mod calls;
mod generations;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

pub(super) use self::generations::generation;
use self::{
    calls::{HITS_MAX, Hit, look_up},
    generations::{Generation, Generations, older, unsettled},
};
use super::{Elasticsearch, Failed, body::Body, layout::Layout, setup::SetUp, write::Backoff};

/// By how much clocks (of senders, of Kafka's producers, of the cluster) may differ without harm. So long after a rollover
/// everything is looked up.
const CLOCKS_DIFFER_MS: i64 = 120_000;
/// Ids of one search.
const IDS_MAX: usize = 2_000;
/// Names of indices kept: a rollover makes one.
const CLOSED_MAX: usize = 10_000;
/// Names in one request's first line, which has 4 KiB.
const NAMES_PER_REQUEST: usize = 12;

/// What the cluster says of a write to an index that is closed to writes.
pub(super) const CLOSED: &str = "index write (api)";

/// What this process knows of the backing indices.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// By stream, with when the question was asked. As many as there are streams.
    known: Mutex<BTreeMap<String, (Instant, Generations)>>,
    /// Indices that this process has seen closed to writes; [`CLOSED_MAX`] at most.
    closed: Mutex<BTreeSet<String>>,
    told: AtomicBool,
    told_open: AtomicBool,
}

/// What was so before a write.
#[derive(Debug, Default)]
pub(super) struct Before {
    generations: BTreeMap<String, Generations>,
    /// Items that are there already, in older indices.
    pub(super) stored: BTreeSet<usize>,
}

/// To be called before a body is sent.
pub(super) async fn before(elasticsearch: &Elasticsearch, set_up: SetUp, body: &Body<'_>) -> Before {
    let mut before = Before::default();
    if set_up.layout == Layout::Daily || body.items.is_empty() {
        return before;
    }
    let repeats = &elasticsearch.repeats;
    let Some(generations) = repeats.generations(elasticsearch, body, None).await else { return before };
    before.generations = generations;
    let mut wanted = BTreeMap::<&str, (i64, Vec<usize>)>::new();
    for (stream, item) in suspects(body, &before.generations) {
        let since_ms = since_ms(body, item);
        let (oldest_ms, items) = wanted.entry(stream).or_insert((since_ms, Vec::new()));
        *oldest_ms = since_ms.min(*oldest_ms);
        items.push(item);
    }
    for (stream, (oldest_ms, items)) in wanted {
        let Some(generations) = before.generations.get(stream) else { continue };
        let older = older(generations, oldest_ms);
        let Some(found) = repeats.find(elasticsearch, body, (stream, generations), older, &items).await else {
            continue;
        };
        before.stored.extend(found.into_iter().flat_map(|copies| copies.items));
    }
    if !before.stored.is_empty() {
        tracing::debug!(records = before.stored.len(), "found records of a batch that was stored before a rollover");
    }
    before
}

/// To be called when all of a body is stored. Answers with how many were there twice.
pub(super) async fn after(elasticsearch: &Elasticsearch, set_up: SetUp, body: &Body<'_>, before: &Before) -> u64 {
    if set_up.layout == Layout::Daily || body.items.is_empty() {
        return 0;
    }
    let repeats = &elasticsearch.repeats;
    let Some(generations) = repeats.generations(elasticsearch, body, Some(Instant::now())).await else { return 0 };
    let mut removed = 0;
    for (stream, now) in &generations {
        let last = before.generations.get(stream).and_then(|then| Some(then.last()?.number));
        let first = now.iter().position(|generation| last.is_none_or(|last| generation.number >= last));
        let Some(changed) = first.and_then(|first| now.get(first..)).filter(|changed| changed.len() > 1) else {
            continue;
        };
        let items: Vec<usize> = (0..body.items.len())
            .filter(|item| {
                !before.stored.contains(item) && (generations.len() == 1 || stream_of(body, *item) == stream)
            })
            .collect();
        let Some(found) = repeats.find(elasticsearch, body, (stream, now), changed, &items).await else { continue };
        let doubles: Vec<(String, String)> = found
            .into_iter()
            .flat_map(|Copies { id, mut indices, .. }| {
                indices.sort_by_key(|name| generation(name, stream));
                indices.into_iter().skip(1).map(move |index| (index, id.clone()))
            })
            .collect();
        removed += repeats.remove(elasticsearch, &doubles).await;
    }
    removed
}

/// Items that may lie in an older index, with their streams.
fn suspects<'b>(
    body: &'b Body<'_>,
    generations: &'b BTreeMap<String, Generations>,
) -> impl Iterator<Item = (&'b str, usize)> {
    let is_old = |stream: &str, message: usize| {
        let current = generations.get(stream).filter(|generations| generations.len() > 1);
        current.and_then(|all| all.last()).is_some_and(|current| message_ms(body, message) < current.created_ms)
    };
    // The comparison a message; nothing more is done where all are younger than every index.
    let any: Vec<bool> =
        (0..body.since_ns.len()).map(|message| generations.keys().any(|stream| is_old(stream, message))).collect();
    let items = if any.contains(&true) { 0..body.items.len() } else { 0..0 };
    items.filter(move |item| any[body.items[*item].message]).filter_map(move |item| {
        let stream = match &body.streams[..] {
            [only] => only.name.as_str(),
            _ => stream_of(body, item),
        };
        is_old(stream, body.items[item].message).then_some((stream, item))
    })
}

fn since_ms(body: &Body<'_>, item: usize) -> i64 {
    message_ms(body, body.items[item].message)
}

/// Before this time no record of the message was stored, on whatever clock.
fn message_ms(body: &Body<'_>, message: usize) -> i64 {
    i64::try_from(body.since_ns[message] / 1_000_000).unwrap_or(i64::MAX).saturating_sub(CLOCKS_DIFFER_MS)
}

/// An action line.
#[derive(Deserialize)]
struct Action<'l> {
    #[serde(borrow)]
    create: Create<'l>,
}

#[derive(Deserialize)]
struct Create<'l> {
    #[serde(rename = "_index", default)]
    index: &'l str,
    #[serde(rename = "_id")]
    id: String,
}

fn action<'b>(body: &'b Body<'_>, item: usize) -> Option<Create<'b>> {
    let lines = &body.bytes[body.items[item].lines.clone()];
    let line = lines.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice::<Action<'_>>(line).ok().map(|action| action.create)
}

fn stream_of<'b>(body: &'b Body<'_>, item: usize) -> &'b str {
    action(body, item).map_or("", |create| create.index)
}

/// Where an id is.
struct Copies {
    id: String,
    /// All items that have it: a batch may be in the body twice.
    items: Vec<usize>,
    indices: Vec<String>,
}

impl Repeats {
    /// The backing indices of a body's streams, as they are, or as they were at `not_before` or later. None when the user may not
    /// see them.
    async fn generations(
        &self,
        elasticsearch: &Elasticsearch,
        body: &Body<'_>,
        not_before: Option<Instant>,
    ) -> Option<BTreeMap<String, Generations>> {
        // One asks for all that wait: their questions are answered by what is asked after they were put.
        let mut known = self.known.lock().await;
        let is_fresh = |known: &BTreeMap<String, (Instant, Generations)>, name: &str| {
            known.get(name).is_some_and(|(asked, _)| not_before.is_none_or(|not_before| *asked >= not_before))
        };
        let stale: Vec<&str> =
            body.streams.iter().map(|stream| stream.name.as_str()).filter(|name| !is_fresh(&known, name)).collect();
        for names in stale.chunks(NAMES_PER_REQUEST) {
            let asked = Instant::now();
            let mut backoff = Backoff::default();
            let answer = loop {
                match calls::ask(elasticsearch, names).await {
                    Ok(answer) => break answer,
                    Err(failed) => self.again(elasticsearch, failed, &mut backoff).await?,
                }
            };
            for (name, generations) in answer {
                known.insert(name, (asked, Arc::new(generations)));
            }
        }
        let streams = body.streams.iter();
        Some(
            streams.filter_map(|stream| Some((stream.name.clone(), Arc::clone(&known.get(&stream.name)?.1)))).collect(),
        )
    }

    /// Which of these items are in which of these indices, which are some of `all` of the stream.
    async fn find(
        &self,
        elasticsearch: &Elasticsearch,
        body: &Body<'_>,
        (stream, all): (&str, &[Generation]),
        indices: &[Generation],
        items: &[usize],
    ) -> Option<Vec<Copies>> {
        if indices.is_empty() || items.is_empty() {
            return Some(Vec::new());
        }
        let unsettled = unsettled(all, indices);
        if elasticsearch.options.setup {
            let current = all.last();
            let over = unsettled.iter().filter(|index| Some(**index) != current);
            let over: Vec<&str> = over.map(|index| index.name.as_str()).collect();
            self.close_all(elasticsearch, &over).await;
        }
        let unsettled: Vec<&str> = unsettled.iter().map(|index| index.name.as_str()).collect();
        for names in unsettled.chunks(NAMES_PER_REQUEST) {
            let mut backoff = Backoff::default();
            while let Err(failed) = calls::refresh(elasticsearch, names).await {
                self.again(elasticsearch, failed, &mut backoff).await?;
            }
        }
        elasticsearch.metrics.index_looked_up.inc_by(items.len() as u64);
        let names: Vec<&str> = indices.iter().map(|index| index.name.as_str()).collect();
        let mut all_found = Vec::new();
        for items in items.chunks(IDS_MAX.min(HITS_MAX / names.len()).max(1)) {
            let mut ids = BTreeMap::<String, Vec<usize>>::new();
            for item in items {
                if let Some(action) = action(body, *item) {
                    ids.entry(action.id).or_default().push(*item);
                }
            }
            let query = look_up(&names, &ids);
            let mut backoff = Backoff::default();
            let hits = loop {
                match calls::search(elasticsearch, stream, &query).await {
                    Ok(hits) => break hits,
                    Err(failed) => self.again(elasticsearch, failed, &mut backoff).await?,
                }
            };
            let mut found = BTreeMap::<String, Vec<String>>::new();
            for Hit { id, index } in hits {
                found.entry(id).or_default().push(index);
            }
            all_found.extend(found.into_iter().filter_map(|(id, indices)| {
                let items = ids.remove(&id)?;
                Some(Copies { id, items, indices })
            }));
        }
        Some(all_found)
    }

    async fn remove(&self, elasticsearch: &Elasticsearch, doubles: &[(String, String)]) -> u64 {
        let mut removed = 0;
        for doubles in doubles.chunks(IDS_MAX) {
            let line =
                |(index, id): &(String, String)| format!("{}\n", json!({"delete": {"_index": index, "_id": id}}));
            let lines: String = doubles.iter().map(line).collect();
            let (mut backoff, mut was_opened) = (Backoff::default(), false);
            removed += loop {
                match calls::delete(elasticsearch, lines.clone()).await {
                    Ok(removed) => break removed,
                    // Another process, or this one, has closed it since.
                    Err(Failed::Stop { .. }) if !was_opened => {
                        was_opened = true;
                        let names: BTreeSet<&str> = doubles.iter().map(|(index, _)| index.as_str()).collect();
                        let names: Vec<&str> = names.into_iter().collect();
                        for names in names.chunks(NAMES_PER_REQUEST) {
                            // If this fails, so does the removal, which says why.
                            let _ = calls::open(elasticsearch, names).await;
                        }
                    }
                    Err(failed) => {
                        if self.again(elasticsearch, failed, &mut backoff).await.is_none() {
                            break 0;
                        }
                    }
                }
            };
        }
        removed
    }

    /// Closes indices to writes, unless this process has seen to that.
    async fn close_all(&self, elasticsearch: &Elasticsearch, names: &[&str]) {
        let mut closed = self.closed.lock().await;
        let names: Vec<&str> = names.iter().copied().filter(|name| !closed.contains(*name)).collect();
        for names in names.chunks(NAMES_PER_REQUEST) {
            self.close(elasticsearch, names).await;
        }
        // Asked for again, should it come to that.
        if closed.len() > CLOSED_MAX {
            closed.clear();
        }
        closed.extend(names.into_iter().map(str::to_owned));
    }

    /// Closes indices to writes. Without the right to do so there is only the chance that nothing is under way.
    async fn close(&self, elasticsearch: &Elasticsearch, names: &[&str]) {
        let mut backoff = Backoff::default();
        while let Err(failed) = calls::close(elasticsearch, names).await {
            if !matches!(failed, Failed::Retry { .. }) {
                if !self.told_open.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        reason = failed.message(),
                        "cannot close an index to writes after a rollover: what was under way when a process was killed may be stored again"
                    );
                }
                return;
            }
            // A retry is never refused.
            self.again(elasticsearch, failed, &mut backoff).await;
        }
    }

    /// Waits for the next attempt. None when the cluster has refused for good.
    async fn again(&self, elasticsearch: &Elasticsearch, failed: Failed, backoff: &mut Backoff) -> Option<()> {
        if let Failed::Retry { reason, .. } = failed {
            elasticsearch.metrics.retried(reason);
            elasticsearch.trouble.failed(&failed, "cannot look up records in the index");
            backoff.wait(&failed).await;
            return Some(());
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason = failed.message(),
                "cannot look up records: what is sent again after a rollover of the data stream is stored again"
            );
        }
        None
    }
}
