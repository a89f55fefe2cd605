//! From memory to disk: a full open block becomes files and then a line of the manifest.
//!
//! The order makes every crash harmless: files that no manifest names are deleted at the next start, and their events are
//! still in the log. The events of a block are in the search's sight all the while, first in memory, then in the files;
//! one change under the state's lock moves them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Store,
    block::{self, Block, BlockError},
    key::Key,
    manifest::{self, Entry, Manifest},
    now_ns,
    open::Open,
    retention,
    seen::Seen,
};
use crate::{index::IndexError, otlp::RecordView};

/// Files that one publish makes at most. Events of more days than this at once come from broken clocks: the days with the
/// fewest events share a file.
const DAYS_MAX: usize = 16;

const DAY_NS: i64 = 86_400_000_000_000;

/// What is worth publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// A full open block.
    Full,
    /// That, and a block that was sealed and could not be published.
    Sealed,
    /// Everything.
    Now,
}

impl Store {
    /// Publishes what is worth it.
    ///
    /// # Errors
    /// When the disk refuses: the events stay in memory.
    pub(super) fn publish(&self, when: When) -> Result<(), IndexError> {
        let due = |store: &Self| {
            let state = store.state();
            store.is_full(&state.open)
                || when != When::Full && state.sealed.is_some()
                || when == When::Now && !state.open.is_empty()
        };
        if !due(self) {
            return Ok(());
        }
        let _publishing = super::lock(&self.publishing);
        // Twice at most: what could not be published before, then what is open.
        while due(self) {
            let (sealed, seen, next_id) = {
                let mut state = self.state();
                let state = &mut *state;
                let (open, seen) = state
                    .sealed
                    .get_or_insert_with(|| (Arc::new(std::mem::take(&mut state.open)), Arc::new(state.seen.clone())));
                (open.clone(), seen.clone(), state.next_id)
            };
            self.publish_sealed(&sealed, seen, next_id)?;
        }
        self.expire_locked(now_ns())
    }

    fn publish_sealed(&self, sealed: &Open, seen: Arc<Seen>, next_id: u64) -> Result<(), IndexError> {
        let entries = write_blocks(&self.options.dir, sealed, next_id).map_err(|error| match error {
            BlockError::Damaged(what) | BlockError::Io(what) => {
                IndexError::Unavailable(format!("cannot publish a block in {}: {what}", self.options.dir.display()))
            }
        })?;
        let next_id = next_id + entries.len() as u64;
        let added: Vec<_> = entries.into_iter().map(|entry| Arc::new(Block::new(&self.options.dir, entry))).collect();
        let mut blocks = self.state().blocks.clone();
        blocks.extend(added.iter().cloned());
        self.store_manifest(&blocks, next_id, &seen)?;
        let mut state = self.state();
        (state.blocks, state.sealed, state.next_id, state.seen_durably) = (blocks, None, next_id, seen);
        self.counts.blocks_published.fetch_add(added.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn store_manifest(&self, blocks: &[Arc<Block>], next_id: u64, seen: &Seen) -> Result<(), IndexError> {
        let entries = blocks.iter().map(|block| block.entry.clone()).collect();
        let manifest = Manifest { next_id, blocks: entries, seen: seen.clone() };
        manifest.store(&self.options.dir).map_err(|error| {
            IndexError::Unavailable(format!("cannot write the manifest in {}: {error}", self.options.dir.display()))
        })
    }

    /// Deletes the blocks that retention does not keep.
    pub(super) fn expire(&self, now_ns: i64) -> Result<(), IndexError> {
        let _publishing = super::lock(&self.publishing);
        self.expire_locked(now_ns)
    }

    /// As [`Store::expire`], with `publishing` held.
    fn expire_locked(&self, now_ns: i64) -> Result<(), IndexError> {
        let (blocks, next_id, seen) = {
            let state = self.state();
            (state.blocks.clone(), state.next_id, state.seen_durably.clone())
        };
        let (kept, expired) =
            retention::split(blocks, now_ns, self.options.retention_age, self.options.retention_bytes);
        if expired.is_empty() {
            return Ok(());
        }
        self.store_manifest(&kept, next_id, &seen)?;
        self.state().blocks = kept;
        for block in expired {
            let counts = &self.counts;
            counts.blocks_expired.fetch_add(1, Ordering::Relaxed);
            counts.events_expired.fetch_add(u64::from(block.entry.rows), Ordering::Relaxed);
            if let Err(error) = block.retire() {
                // The next start deletes it: no manifest names it.
                tracing::warn!(file = %block.path().display(), %error, "cannot delete an expired block");
            }
        }
        Ok(())
    }
}

/// Writes the events as blocks, a day each.
fn write_blocks(dir: &Path, open: &Open, next_id: u64) -> Result<Vec<Entry>, BlockError> {
    let mut rows: Vec<(Key, RecordView<'_>)> = Vec::with_capacity(open.rows);
    for message in &open.messages {
        message
            .for_each_row(&mut |key, record| rows.push((key, record)))
            .map_err(|error| BlockError::Io(format!("a message changed in memory: {error}")))?;
    }
    rows.sort_unstable_by_key(|(key, _)| *key);
    let mut entries = Vec::new();
    for (day, rows) in by_day(rows) {
        let day = day_name(day);
        if !dir.join(&day).is_dir() {
            fs::create_dir_all(dir.join(&day))?;
            manifest::sync_dir(dir)?;
        }
        let entry = Entry {
            id: next_id + entries.len() as u64,
            day,
            rows: u32::try_from(rows.len())
                .map_err(|_| BlockError::Io("more events than a block can have".to_owned()))?,
            time_min_ns: rows.first().map_or(0, |(key, _)| key.time_ns),
            time_max_ns: rows.last().map_or(0, |(key, _)| key.time_ns),
            published_ns: now_ns(),
            severities: 0,
            services: None,
            parquet_bytes: 0,
            parquet_crc32: 0,
            side_bytes: 0,
        };
        entries.push(block::write(dir, &rows, entry)?);
    }
    Ok(entries)
}

/// Cuts sorted rows into days. Beyond [`DAYS_MAX`] days, those with the fewest events go together, under the newest of
/// them.
fn by_day(rows: Vec<(Key, RecordView<'_>)>) -> Vec<(i64, Vec<(Key, RecordView<'_>)>)> {
    match (rows.first(), rows.last()) {
        (Some((first, _)), Some((last, _))) if day_of(first.time_ns) != day_of(last.time_ns) => {}
        (Some((first, _)), _) => return vec![(day_of(first.time_ns), rows)],
        _ => return Vec::new(),
    }
    let mut counts: HashMap<i64, usize> = HashMap::new();
    for (key, _) in &rows {
        *counts.entry(day_of(key.time_ns)).or_default() += 1;
    }
    let mut days: Vec<i64> = counts.keys().copied().collect();
    days.sort_unstable_by_key(|day| (Reverse(counts[day]), *day));
    let together = if days.len() > DAYS_MAX { days.split_off(DAYS_MAX - 1) } else { Vec::new() };
    let shared = together.iter().max().copied();
    let mut parts: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for row in rows {
        let day = day_of(row.0.time_ns);
        let day = if days.contains(&day) { day } else { shared.unwrap_or(day) };
        parts.entry(day).or_default().push(row);
    }
    parts.into_iter().collect()
}

fn day_of(time_ns: i64) -> i64 {
    time_ns.div_euclid(DAY_NS)
}

/// `2026-11-22`, for days since 1970.
fn day_name(day: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(day) * i128::from(DAY_NS));
    // Any 64-bit number of nanoseconds is within the years that jiff knows, and so is its day.
    time.map_or_else(|_| format!("day-{day}"), |time| time.strftime("%Y-%m-%d").to_string())
}

/// Deletes what a crash left in the store's directory: files that the manifest does not name.
pub(super) fn sweep(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    let named: HashSet<String> =
        manifest.blocks.iter().flat_map(|block| [block.parquet_name(), block.side_name()]).collect();
    for day in fs::read_dir(dir)? {
        let day = day?;
        let Some(day_name) = day.file_name().to_str().map(str::to_owned) else { continue };
        if !day.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(day.path())? {
            let file = file?;
            let Some(name) = file.file_name().to_str().map(str::to_owned) else { continue };
            // Only what this store writes: someone may have put a file of his own here.
            let ours = [".parquet", ".filters", ".parquet.tmp", ".filters.tmp"].iter().any(|end| name.ends_with(end))
                && name.split('.').next().is_some_and(|id| id.len() == 10 && id.bytes().all(|b| b.is_ascii_digit()));
            if ours && !named.contains(&format!("{day_name}/{name}")) {
                tracing::info!(file = %file.path().display(), "deleting what an interrupted write left behind");
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}
