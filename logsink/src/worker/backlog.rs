//! What a lane has to send: sealed batches in order, bounded in bytes. The pump puts in, the lane's sender takes out.
//!
//! At the bound the lane's policy decides: the newest or the oldest batch loses its records, or the pump waits for room up to a
//! deadline and then drops the newest. Records of protected levels are kept in a reserve of their own when the others of
//! their batch are dropped. A batch that is alone larger than the bound is taken when nothing else waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::pending::Pending;
use crate::{batch::Envelope, config::Overflow, metrics::Reason, queue::Levels};

/// What bounds a backlog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Payload bytes of the batches that wait.
    pub(crate) bytes_max: usize,
    /// Payload bytes on top of it, for records of protected levels.
    pub(crate) reserve_bytes: usize,
    pub(crate) overflow: Overflow,
    /// How long the pump waits for room, where it waits.
    pub(crate) wait_max: Duration,
    pub(crate) levels: Levels,
}

/// A lane's batches between the pump and its sender.
#[derive(Debug)]
pub(super) struct Backlog {
    bounds: Bounds,
    envelope: Arc<Envelope>,
    state: Mutex<State>,
    /// Something was put in, or will never be again.
    arrived: Notify,
    /// Something was taken out, or will never be again.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Payload bytes in `entries`, less `reserved`.
    bytes: usize,
    /// Payload bytes of what is left of batches that were dropped.
    reserved: usize,
    barriers: usize,
    pump_ended: bool,
    sender_ended: bool,
    /// Why waiting for room is pointless.
    hopeless: Option<Reason>,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    /// What is left of a batch that was dropped.
    remainder: bool,
}

/// The name of the rules that judged a batch, when they are from a source.
pub(super) type Revision = Option<Arc<str>>;

/// What comes from the pump, in its order.
#[derive(Debug)]
pub(super) enum Item {
    Batch(Pending, Revision),
    /// To be dropped when all batches before it have ended: who waits for it hears that.
    Barrier(Barrier),
}

/// Dropped by the last lane that has reached it.
pub(super) type Barrier = mpsc::SyncSender<()>;

impl Backlog {
    pub(super) fn new(bounds: Bounds, envelope: Arc<Envelope>) -> Self {
        Self { bounds, envelope, state: Mutex::default(), arrived: Notify::new(), room: Condvar::new() }
    }

    /// Takes a batch, or drops records as the policy wants it. Waits only where the policy says so.
    pub(super) fn push(&self, batch: Pending, revision: Revision) {
        let bytes = batch.bytes();
        let mut state = self.lock();
        match self.bounds.overflow {
            Overflow::DropNewest => {}
            Overflow::DropOldest => state = self.drop_oldest(state, bytes),
            Overflow::Block | Overflow::Spill => {
                state = self.wait(state, |state| state.hopeless.is_some() || self.fits(state, bytes));
            }
        }
        if state.sender_ended {
            // Outside the lock: to drop it is to count its records.
            drop(state);
            return drop(batch);
        }
        if self.fits(&state, bytes) {
            state.put(Item::Batch(batch, revision), false);
            drop(state);
            return self.arrived.notify_one();
        }
        let reason = state.hopeless.unwrap_or(Reason::QueueFull);
        drop(state);
        if let Some(remainder) = batch.only(&self.envelope, reason, |severity| self.bounds.levels.keeps(severity)) {
            self.push_remainder(remainder, revision, reason);
        }
    }

    /// What a dropped batch had of protected levels goes to the reserve, and where it is spent the way of the other records.
    fn push_remainder(&self, remainder: Pending, revision: Revision, reason: Reason) {
        let bytes = remainder.bytes();
        let mut state = self.lock();
        if self.bounds.levels.any_blocks() {
            state = self.wait(state, |state| state.hopeless.is_some() || self.fits_reserve(state, bytes));
        }
        let ended = state.sender_ended;
        if !ended && self.fits_reserve(&state, bytes) {
            state.put(Item::Batch(remainder, revision), true);
            drop(state);
            return self.arrived.notify_one();
        }
        drop(state);
        if ended { drop(remainder) } else { remainder.lost(reason) }
    }

    /// Whether it is half full: time to make room, where that can be made otherwise than by sending.
    pub(super) fn is_pressed(&self) -> bool {
        self.lock().bytes >= self.bounds.bytes_max / 2
    }

    /// Whether somebody waits behind what is there.
    pub(super) fn has_barrier(&self) -> bool {
        self.lock().barriers > 0
    }

    /// Says whether waiting for room is pointless, and for what reason records are dropped then.
    pub(super) fn set_hopeless(&self, reason: Option<Reason>) {
        self.lock().hopeless = reason;
        self.room.notify_all();
    }

    /// Asks the sender to let go of a barrier, after everything that was put in before.
    pub(super) fn push_barrier(&self, barrier: Barrier) {
        let mut state = self.lock();
        if !state.sender_ended {
            state.put(Item::Barrier(barrier), false);
            state.barriers += 1;
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// What comes next.
    pub(super) fn pop(&self) -> Option<Item> {
        let mut state = self.lock();
        let Entry { item, remainder } = state.entries.pop_front()?;
        match &item {
            Item::Batch(batch, _) => {
                state.take_bytes(batch.bytes(), remainder);
                drop(state);
                self.room.notify_all();
            }
            Item::Barrier(_) => state.barriers -= 1,
        }
        Some(item)
    }

    /// Waits until [`Backlog::pop`] may have something, or the pump has ended.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether nothing is there, and nothing will come.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.pump_ended && state.entries.is_empty()
    }

    /// The pump has ended.
    pub(super) fn end_pump(&self) {
        self.lock().pump_ended = true;
        self.arrived.notify_one();
    }

    /// The sender has ended: what is there, and what comes, is dropped and so counted.
    pub(super) fn end_sender(&self) {
        let entries = {
            let mut state = self.lock();
            state.sender_ended = true;
            (state.bytes, state.reserved) = (0, 0);
            std::mem::take(&mut state.entries)
        };
        self.room.notify_all();
        drop(entries);
    }

    fn fits(&self, state: &State, bytes: usize) -> bool {
        state.bytes == 0 || state.bytes + bytes <= self.bounds.bytes_max
    }

    fn fits_reserve(&self, state: &State, bytes: usize) -> bool {
        state.reserved + bytes <= self.bounds.reserve_bytes
    }

    fn wait<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        mut enough: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'s, State> {
        let deadline = Instant::now() + self.bounds.wait_max;
        while !state.sender_ended && !enough(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Makes room by dropping the oldest batches, of which what is protected stays where it was.
    fn drop_oldest<'s>(&'s self, mut state: MutexGuard<'s, State>, bytes: usize) -> MutexGuard<'s, State> {
        while !state.sender_ended && !self.fits(&state, bytes) {
            let is_whole = |entry: &Entry| !entry.remainder && matches!(entry.item, Item::Batch(..));
            let Some(index) = state.entries.iter().position(is_whole) else { break };
            let Some(Entry { item: Item::Batch(oldest, revision), .. }) = state.entries.remove(index) else { break };
            state.take_bytes(oldest.bytes(), false);
            // The lock is kept, so that the sender does not overtake what is left of the batch.
            let levels = self.bounds.levels;
            let left = oldest.only(&self.envelope, Reason::QueueFull, |severity| levels.keeps(severity));
            if let Some(left) = left {
                if self.fits_reserve(&state, left.bytes()) {
                    state.reserved += left.bytes();
                    state.entries.insert(index, Entry { item: Item::Batch(left, revision), remainder: true });
                } else {
                    left.lost(Reason::QueueFull);
                }
            }
        }
        state
    }

    /// Whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, item: Item, remainder: bool) {
        if let Item::Batch(batch, _) = &item {
            let count = if remainder { &mut self.reserved } else { &mut self.bytes };
            *count += batch.bytes();
        }
        self.entries.push_back(Entry { item, remainder });
    }

    fn take_bytes(&mut self, bytes: usize, remainder: bool) {
        let count = if remainder { &mut self.reserved } else { &mut self.bytes };
        *count -= bytes;
    }
}

#[cfg(test)]
mod tests;
