//! The embedded store: Parquet blocks with token filters beside them, in directories by day.
//!
//! Messages come in from the disk log and are searchable at once: the open block is a list of them in memory, covered by
//! the log. When it is large or old enough it is published: Parquet file, side file, then the manifest, which names the
//! block and says which messages are in it, in one rename. After a crash the log is read again from [`Embedded::resume_at`]
//! and what the manifest has is passed over, so every event is there once, also when its sender sent its batch twice.
//!
//! When the disk refuses, the block stays in memory and searchable, and once the next one is full too, writes fail until
//! there is room again: memory holds two blocks at most.

mod block;
mod columns;
mod key;
mod manifest;
mod open;
mod options;
mod probe;
mod publish;
mod ranges;
mod retention;
mod row;
mod search;
mod seen;
mod side;
mod stats;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{File, TryLockError},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Semaphore;

use self::{
    block::Block,
    manifest::Manifest,
    open::Open,
    publish::When,
    search::{Notice, Snapshot},
    seen::{Novelty, Seen},
    stats::Counts,
};
pub use self::{options::EmbeddedOptions, stats::EmbeddedStats};
use super::{IndexError, IndexReader, IndexWriter, Written};
use crate::{
    query::{Page, Query},
    queue::{BoxFuture, Message},
};

/// How often age is looked at: of the open block, and of what retention deletes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Held by the process that uses the directory.
const LOCK: &str = "LOCK";

/// The embedded store. Shared by its writer and its searches. Dropping it waits for a publish under way, and publishes
/// nothing by itself: what is open is in the log.
#[derive(Debug)]
pub struct Embedded {
    store: Arc<Store>,
    searching: Arc<Semaphore>,
    upkeep: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Store {
    options: EmbeddedOptions,
    state: Mutex<State>,
    /// Held while blocks are published or deleted: the manifest has one writer. Taken before `state`.
    publishing: Mutex<()>,
    counts: Counts,
    /// Ends the upkeep thread.
    stop: (Mutex<bool>, Condvar),
    /// Locked until the last user of the store is gone.
    _lock: File,
}

#[derive(Debug)]
struct State {
    /// What writes go into.
    open: Open,
    /// A full block on its way to the disk, and what was seen when it was sealed.
    sealed: Option<(Arc<Open>, Arc<Seen>)>,
    /// Published blocks.
    blocks: Vec<Arc<Block>>,
    next_id: u64,
    /// Everything seen, the open block included.
    seen: Seen,
    /// What the manifest on disk says was seen.
    seen_durably: Arc<Seen>,
}

impl Embedded {
    /// Opens the store in `options.dir`, or makes an empty one, and deletes what a crash left behind.
    ///
    /// # Errors
    /// When the directory cannot be used or its manifest is damaged; says which file and what to do. A damaged block is not
    /// an error: see [`Embedded::damaged`].
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, IndexError> {
        let failed =
            |error: std::io::Error| IndexError::Failed(format!("cannot use {}: {error}", options.dir.display()));
        std::fs::create_dir_all(&options.dir).map_err(failed)?;
        if let Some(parent) = options.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The log forgets what the manifest has: the directory's own name must survive a power cut too.
            manifest::sync_dir(parent).map_err(failed)?;
        }
        let lock = take_lock(&options.dir)?;
        let manifest = Manifest::load(&options.dir)?;
        publish::sweep(&options.dir, &manifest).map_err(failed)?;
        let blocks = manifest.blocks.into_iter().map(|entry| Arc::new(Block::new(&options.dir, entry))).collect();
        let state = State {
            open: Open::default(),
            sealed: None,
            blocks,
            next_id: manifest.next_id,
            seen: manifest.seen.clone(),
            seen_durably: Arc::new(manifest.seen),
        };
        let store = Arc::new(Store {
            options,
            state: Mutex::new(state),
            publishing: Mutex::new(()),
            counts: Counts::default(),
            stop: (Mutex::new(false), Condvar::new()),
            _lock: lock,
        });
        let working = store.clone();
        let upkeep = std::thread::Builder::new()
            .name("embedded-upkeep".to_owned())
            .spawn(move || working.upkeep())
            .map_err(|error| IndexError::Failed(format!("cannot start a thread: {error}")))?;
        let searching = Arc::new(Semaphore::new(search::CONCURRENT_MAX));
        Ok(Arc::new(Self { store, searching, upkeep: Some(upkeep) }))
    }

    /// The log offset to read from after a restart: every message before it is durable here. Some after it may be too; they
    /// are passed over when they come again.
    pub fn resume_at(&self) -> i64 {
        self.store.state().seen_durably.first_missing().cast_signed()
    }

    /// What the store holds and what has happened to it.
    pub fn stats(&self) -> EmbeddedStats {
        self.store.stats()
    }

    /// The blocks that were found damaged, each with its file and what is wrong. Searches answer without them.
    pub fn damaged(&self) -> Vec<String> {
        self.store.state().blocks.iter().filter_map(|block| block.damage()).collect()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        *lock(&self.store.stop.0) = true;
        self.store.stop.1.notify_all();
        if let Some(upkeep) = self.upkeep.take() {
            // A panic there was reported by its hook.
            let _ = upkeep.join();
        }
    }
}

impl IndexWriter for Embedded {
    fn write<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<Written, IndexError>> {
        let messages = messages.to_vec();
        Box::pin(async move {
            let store = self.store.clone();
            let (mut written, dead) = off_thread(move || store.write(&messages)).await?;
            for (message, reason) in dead {
                let Some(letters) = &self.store.options.dead_letters else {
                    return Err(IndexError::Failed(format!("the message at {} {reason}", message.position.offset)));
                };
                letters
                    .put(&message, None, &reason, &message.payload)
                    .await
                    .map_err(|error| IndexError::Unavailable(format!("cannot keep a dead letter: {error}")))?;
                written.dead += 1;
                self.store.note_dead(&message);
            }
            Ok(written)
        })
    }

    fn durable(&self, _partition: i32) -> Option<i64> {
        Some(self.store.durable())
    }

    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        let store = self.store.clone();
        Box::pin(off_thread(move || store.publish(When::Now)))
    }
}

impl IndexReader for Embedded {
    fn search<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, IndexError>> {
        let (store, query) = (self.store.clone(), query.clone());
        Box::pin(async move {
            // The semaphore is never closed. The turn ends with the work, which goes on when its caller has given up.
            let turn = self.searching.clone().acquire_owned().await;
            off_thread(move || {
                let _turn = turn;
                store.search(&query)
            })
            .await
        })
    }

    fn warnings(&self) -> Vec<String> {
        search::bounded(self.damaged().into_iter().map(|what| format!("a damaged block is left out: {what}")).collect())
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        let store = self.store.clone();
        Box::pin(off_thread(move || store.ready()))
    }
}

/// Runs work that computes or waits for the disk where it does not hold up the runtime.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IndexError> + Send + 'static,
) -> Result<T, IndexError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(IndexError::Failed(format!("the store's work ended early: {error}"))),
    }
}

/// Takes the directory's lock, which the system gives back when the process ends, however it ends.
fn take_lock(dir: &Path) -> Result<File, IndexError> {
    let failed = |error: &dyn fmt::Display| IndexError::Failed(format!("cannot lock {}: {error}", dir.display()));
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK));
    let file = file.map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(failed(&"another process uses it")),
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves each of these values whole: they are changed in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

// === impl Store ===

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes messages into the open block, and publishes it when it is full. Returns those that are not OTLP.
    fn write(&self, messages: &[Message]) -> Result<(Written, Vec<(Message, String)>), IndexError> {
        let (mut written, mut dead) = (Written::default(), Vec::new());
        for message in messages {
            let offset = place(message)?;
            written.dropped += message.dropped.len() as u64;
            let taken = match open::Message::read(message, now_ns()) {
                Ok(taken) => taken,
                Err(_) if self.state().seen.has(offset) => continue,
                Err(error) => {
                    dead.push((message.clone(), format!("is not OTLP: {error}")));
                    continue;
                }
            };
            written.stored += taken.rows as u64;
            // Full before it is pushed only when publishing failed: nothing is taken in until it succeeds.
            self.publish(When::Full)?;
            self.take(message, offset, taken);
            self.publish(When::Full)?;
        }
        Ok((written, dead))
    }

    fn take(&self, message: &Message, offset: u64, taken: open::Message) {
        let mut state = self.state();
        let batch = message.headers.instance.as_deref().zip(message.headers.sequence);
        match state.seen.note(offset, batch) {
            Novelty::New => state.open.push(taken),
            Novelty::Replayed => _ = self.counts.replayed.fetch_add(1, Ordering::Relaxed),
            Novelty::Resent => {
                self.counts.resent.fetch_add(1, Ordering::Relaxed);
                state.open.push(open::Message::nothing(message, now_ns()));
            }
        }
    }

    /// A dead letter is done with.
    fn note_dead(&self, message: &Message) {
        let mut state = self.state();
        if place(message).is_ok_and(|offset| state.seen.note(offset, None) == Novelty::New) {
            state.open.push(open::Message::nothing(message, now_ns()));
        }
    }

    /// Every message written below this offset is in the manifest, and its records in published blocks.
    fn durable(&self) -> i64 {
        let state = self.state();
        let sealed = state.sealed.as_ref().and_then(|(open, _)| open.offset_min());
        let open = state.open.offset_min();
        sealed.into_iter().chain(open).min().unwrap_or_else(|| state.seen.end().cast_signed())
    }

    fn search(&self, query: &Query) -> Result<Page, IndexError> {
        // One look under the lock: a block on its way to the disk is in exactly one of the three places.
        let snapshot = {
            let state = self.state();
            let sealed = state.sealed.iter().flat_map(|(open, _)| &open.messages);
            Snapshot { open: sealed.chain(&state.open.messages).cloned().collect(), blocks: state.blocks.clone() }
        };
        search::search(snapshot, query, &mut |notice| self.note(notice))
    }

    fn note(&self, notice: Notice) {
        match notice {
            Notice::SideRebuilt => _ = self.counts.sides_rebuilt.fetch_add(1, Ordering::Relaxed),
            Notice::Damaged(block, what) => {
                if block.set_damage(what.clone()) {
                    self.counts.blocks_damaged.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(events = block.entry.rows, "a block is damaged and left out of searches: {what}");
                }
            }
        }
    }

    /// Whether the directory can still be written.
    fn ready(&self) -> Result<(), IndexError> {
        let state = self.state();
        if state.sealed.is_some() && self.is_full(&state.open) {
            return Err(IndexError::Unavailable(format!(
                "{} takes no more events: a full block could not be written",
                self.options.dir.display()
            )));
        }
        drop(state);
        match std::fs::metadata(self.options.dir.as_path()) {
            Ok(_) => Ok(()),
            Err(error) => Err(IndexError::Failed(format!("cannot use {}: {error}", self.options.dir.display()))),
        }
    }

    fn is_full(&self, open: &Open) -> bool {
        open.rows >= self.options.block_rows || open.bytes >= self.options.block_bytes
    }

    /// Publishes and deletes what has come of age, until the store is dropped.
    fn upkeep(&self) {
        let mut stop = lock(&self.stop.0);
        while !*stop {
            (stop, _) = self.stop.1.wait_timeout(stop, UPKEEP_INTERVAL).unwrap_or_else(PoisonError::into_inner);
            if *stop {
                return;
            }
            drop(stop);
            let since_ns = self.state().open.since_ns;
            let old = now_ns().saturating_sub(since_ns) >= nanos(self.options.block_age);
            let done = self.publish(if old { When::Now } else { When::Sealed }).and_then(|()| self.expire(now_ns()));
            if let Err(error) = done {
                tracing::error!(%error, "the store's upkeep failed, it is tried again");
            }
            stop = lock(&self.stop.0);
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The message's offset in the one log that this store reads.
fn place(message: &Message) -> Result<u64, IndexError> {
    match (message.position.partition, u64::try_from(message.position.offset)) {
        (0, Ok(offset)) => Ok(offset),
        _ => Err(IndexError::Failed(format!(
            "the embedded store reads the disk log, which has no place {:?}",
            message.position
        ))),
    }
}
