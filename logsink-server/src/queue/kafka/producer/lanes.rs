//! Which partition a message goes to, and when. A partition's batch is open for librdkafka's `linger.ms` from its first message;
//! then it is closed until all of it has been answered for, and what comes meanwhile waits here. Messages without a key go into the
//! batch that is open, else they open one where a partition is free.
//!
//! So librdkafka is never left with messages that it may not send yet. It lets a partition of an idempotent producer have five
//! *messages* under way (`inflight` in `rd_kafka_toppar_producer_serve`) and, while others wait behind them, polls without a
//! pause, which was half of what ingest cost.
//!
//! Pure: [`Lanes`] decides; [`Client`](super::client::Client) sends.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long a partition that failed is passed over while others work: what librdkafka takes to hear of another leader.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// What waits for a lane.
pub(super) trait Waiting {
    /// Messages of one key go to one partition, in their order; those without one go to any.
    fn key(&self) -> Option<&[u8]>;
    /// What it takes of a batch.
    fn bytes(&self) -> usize;
    /// Nobody waits for an answer any more.
    fn is_abandoned(&self) -> bool;
}

/// A lane for each partition, and what waits for any.
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    any: Queue<T>,
    /// How long a batch is open.
    linger: Duration,
    /// Bytes of a batch; one message may have more.
    bytes_max: usize,
    arrived: u64,
    /// Where the search for a free lane begins.
    turn: usize,
    is_closed: bool,
}

struct Lane<T> {
    under_way: usize,
    /// When the first message of what is under way was handed over.
    opened: Option<Instant>,
    /// What has been handed over since.
    bytes: usize,
    own: Queue<T>,
    failed_at: Option<Instant>,
}

/// In the order of arrival, each message with its number, which rises by one whatever the queue.
type Queue<T> = VecDeque<(u64, T)>;

impl<T: Waiting> Lanes<T> {
    /// Without lanes until [`resize`](Self::resize) is told how many partitions there are.
    pub(super) fn new(linger: Duration, bytes_max: usize) -> Self {
        Self { lanes: Vec::new(), any: Queue::new(), linger, bytes_max, arrived: 0, turn: 0, is_closed: false }
    }

    /// How many partitions there are, as far as is known.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// The topic has so many partitions. What waits for one that has gone may go to any.
    pub(super) fn resize(&mut self, partitions: usize) {
        while self.lanes.len() > partitions {
            self.any.extend(self.lanes.pop().map(|lane| lane.own).unwrap_or_default());
        }
        self.lanes.resize_with(partitions, Lane::new);
        self.any.make_contiguous().sort_unstable_by_key(|(number, _)| *number);
    }

    /// Lets a message wait. When closed, drops it.
    pub(super) fn put(&mut self, message: T) {
        if self.is_closed {
            return;
        }
        self.arrived += 1;
        let len = self.lanes.len();
        let queue = match message.key() {
            Some(key) if len > 0 => &mut self.lanes[partition_of(key, len)].own,
            _ => &mut self.any,
        };
        queue.push_back((self.arrived, message));
    }

    /// A partition that is to get something now, and what; to be called until there is none.
    pub(super) fn next(&mut self, now: Instant) -> Option<(usize, Vec<T>)> {
        loop {
            let at = self.choose(now)?;
            let (lane, any) = (self.lanes.get_mut(at)?, &mut self.any);
            if lane.under_way == 0 {
                (lane.opened, lane.bytes) = (Some(now), 0);
                self.turn = at + 1;
            }
            let mut messages = Vec::new();
            while let Some((next, is_own)) = older(&lane.own, any) {
                let (len, is_abandoned) = (next.bytes(), next.is_abandoned());
                if !is_abandoned && lane.under_way > 0 && lane.bytes + len > self.bytes_max {
                    break;
                }
                let next = if is_own { lane.own.pop_front() } else { any.pop_front() };
                if !is_abandoned {
                    lane.bytes += len;
                    lane.under_way += 1;
                    messages.extend(next.map(|(_, message)| message));
                }
            }
            if !messages.is_empty() {
                return Some((at, messages));
            }
        }
    }

    /// A message that the lane got was answered for, well or not.
    pub(super) fn answered(&mut self, lane: usize, is_well: bool, now: Instant) {
        // Its partition may have gone meanwhile.
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        lane.under_way = lane.under_way.saturating_sub(1);
        // What has been answered for in part has been sent.
        lane.opened = None;
        lane.failed_at = (!is_well).then_some(now);
    }

    /// Forgets what nobody waits for any more: it is not in anyone's budget either.
    pub(super) fn sweep(&mut self) {
        self.any.retain(|(_, message)| !message.is_abandoned());
        self.lanes.iter_mut().for_each(|lane| lane.own.retain(|(_, message)| !message.is_abandoned()));
    }

    /// Forgets all that waits, and takes no more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.any.clear();
        self.lanes.iter_mut().for_each(|lane| lane.own.clear());
    }

    /// The lane that takes the next message.
    fn choose(&self, now: Instant) -> Option<usize> {
        let fits = |lane: &Lane<T>| {
            let Some((next, _)) = older(&lane.own, &self.any) else { return false };
            let open = lane.opened.is_some_and(|opened| now.saturating_duration_since(opened) < self.linger);
            lane.under_way == 0 || open && lane.bytes + next.bytes() <= self.bytes_max
        };
        if let Some(own) = self.lanes.iter().position(|lane| !lane.own.is_empty() && fits(lane)) {
            return Some(own);
        }
        if self.any.is_empty() {
            return None;
        }
        let works = |lane: &Lane<T>| lane.failed_at.is_none_or(|failed| now.duration_since(failed) >= PAUSE);
        // When none works, any may be the first that does again.
        let none_works = !self.lanes.iter().any(works);
        let takes = |lane: &Lane<T>| fits(lane) && (none_works || works(lane));
        let open = self.lanes.iter().position(|lane| lane.under_way > 0 && takes(lane));
        let len = self.lanes.len();
        open.or_else(|| (0..len).map(|step| (self.turn + step) % len).find(|&at| takes(&self.lanes[at])))
    }
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self { under_way: 0, opened: None, bytes: 0, own: Queue::new(), failed_at: None }
    }
}

/// The message that arrived first, and whether it is one of `own`.
fn older<'q, T>(own: &'q Queue<T>, any: &'q Queue<T>) -> Option<(&'q T, bool)> {
    match (own.front(), any.front()) {
        (Some(of_own), Some(of_any)) if of_own.0 > of_any.0 => Some((&of_any.1, false)),
        (Some((_, next)), _) => Some((next, true)),
        (None, of_any) => of_any.map(|(_, next)| (next, false)),
    }
}

/// As librdkafka's own partitioner (`consistent`) does it: a sender's messages meet in one partition, whether it writes to Kafka
/// itself or through a server.
fn partition_of(key: &[u8], partitions: usize) -> usize {
    crc32fast::hash(key) as usize % partitions
}

#[cfg(test)]
mod tests;
