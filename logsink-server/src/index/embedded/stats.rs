//! What the store counts. Each thing that is passed over, deleted or left out has a counter here.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;

/// Counters since the start, by what they count.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) replayed: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) blocks_published: AtomicU64,
    pub(super) blocks_expired: AtomicU64,
    pub(super) events_expired: AtomicU64,
    pub(super) blocks_damaged: AtomicU64,
    pub(super) sides_rebuilt: AtomicU64,
}

/// What the store holds and what has happened to it since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbeddedStats {
    /// Published blocks.
    pub blocks: u64,
    /// Bytes of the published blocks on disk.
    pub bytes: u64,
    /// Events in published blocks.
    pub events: u64,
    /// Events in memory, covered by the log.
    pub events_open: u64,
    /// Messages passed over because this place of the log had been read.
    pub replayed: u64,
    /// Messages passed over because their sender had sent the same batch before.
    pub resent: u64,
    /// Blocks published.
    pub blocks_published: u64,
    /// Blocks deleted by retention.
    pub blocks_expired: u64,
    /// Events in the blocks that retention deleted.
    pub events_expired: u64,
    /// Blocks found damaged: searches do without them.
    pub blocks_damaged: u64,
    /// Side files made again.
    pub sides_rebuilt: u64,
}

impl Store {
    pub(super) fn stats(&self) -> EmbeddedStats {
        let state = self.state();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sealed = state.sealed.as_ref().map_or(0, |(open, _)| open.rows);
        EmbeddedStats {
            blocks: state.blocks.len() as u64,
            bytes: state.blocks.iter().map(|block| block.entry.bytes()).sum(),
            events: state.blocks.iter().map(|block| u64::from(block.entry.rows)).sum(),
            events_open: (state.open.rows + sealed) as u64,
            replayed: count(&self.counts.replayed),
            resent: count(&self.counts.resent),
            blocks_published: count(&self.counts.blocks_published),
            blocks_expired: count(&self.counts.blocks_expired),
            events_expired: count(&self.counts.events_expired),
            blocks_damaged: count(&self.counts.blocks_damaged),
            sides_rebuilt: count(&self.counts.sides_rebuilt),
        }
    }
}
