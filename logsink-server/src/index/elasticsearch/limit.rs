//! How much one node takes at a time: requests under way, and bytes a request. Pure: time is passed in.
//!
//! Requests follow latency as TCP Vegas does (Brakmo and Peterson 1995; Netflix's concurrency-limits has it for services):
//! of `n` requests under way, `n · (1 − unloaded / latency)` wait in the node's queue, where `unloaded` is the least latency
//! seen. Fewer than [`QUEUED_MIN`]: one request more a round trip. More than [`QUEUED_MAX`]: one less. What the node refuses
//! or leaves unanswered cuts the number at once and by a share, as in TCP's additive increase and multiplicative decrease
//! (and Vector's adaptive concurrency); once a round trip, because what was under way then tells of the same crowd.
//!
//! Latency is compared between full requests of one size only. Every [`FORGET_AFTER`] answers the least latency is measured
//! anew from half the requests, or a queue that we keep full ourselves would pass for the unloaded node.
//!
//! Bytes follow latency too: a request that takes seconds holds memory, is late when it has to be sent again, and costs the
//! node no less for being large. They shrink above [`SLOW`] and grow back below [`FAST`]; a 413 sets a ceiling.

use std::time::{Duration, Instant};

/// Requests in the node's queue below which it gets one more: with none waiting it may be idle between two of them.
const QUEUED_MIN: f64 = 1.0;
/// Requests in its queue above which it gets one less.
const QUEUED_MAX: f64 = 3.0;
/// What is left of the number of requests after a refusal: what CUBIC leaves.
const CUT: f64 = 0.7;
/// Answers to full requests after which the least latency is forgotten: some seconds under load.
const FORGET_AFTER: u32 = 256;
/// A full request takes longer: the next ones are smaller.
const SLOW: Duration = Duration::from_secs(2);
/// A full request takes less: the next ones may be larger.
const FAST: Duration = Duration::from_millis(500);
/// The smallest request: below, what a request costs by itself is most of it.
pub(super) const BYTES_MIN: usize = 256 << 10;
/// The lowest ceiling: below, it is single documents that are too large, and a request is halved when it happens.
const CEILING_MIN: usize = 16 << 10;
/// How long a 413 is remembered: the limit behind it changes with a restart of the node or of a proxy.
const CEILING_LASTS: Duration = Duration::from_secs(600);
/// Requests that a node gets at first.
const START: f64 = 2.0;

/// One node's limits.
#[derive(Debug)]
pub(super) struct Limit {
    requests_max: usize,
    bytes_max: usize,
    requests: f64,
    bytes: usize,
    /// Requests larger than this were refused with 413, then.
    ceiling: Option<(usize, Instant)>,
    /// The least latency of a full request, in seconds.
    unloaded: Option<f64>,
    answers: u32,
    /// When a limit was cut last.
    cut_at: Option<Instant>,
}

/// What was known when a request was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: Instant,
    /// Requests under way at the node, this one included.
    pub(super) under_way: usize,
    /// Of the body, before compression.
    pub(super) bytes: usize,
}

/// What became of a request, as far as the limits care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Took {
    /// The node has dealt with it.
    All,
    /// It, or some of its documents, was refused as too much for now.
    Refused,
    /// No answer that makes sense.
    Lost,
    /// 413.
    TooLarge,
}

impl Limit {
    pub(super) fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            requests_max,
            bytes_max,
            requests: START.min(requests_max as f64),
            bytes: bytes_max,
            ceiling: None,
            unloaded: None,
            answers: 0,
            cut_at: None,
        }
    }

    /// Requests that may be under way.
    pub(super) fn requests(&self) -> usize {
        // It is between 1 and `requests_max`.
        self.requests as usize
    }

    /// Bytes of one request.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes note of an answer.
    pub(super) fn answered(&mut self, sent: &Sent, took: Took, now: Instant) {
        let is_news = self.cut_at.is_none_or(|cut| sent.at > cut);
        match took {
            Took::All => {
                let is_full = sent.bytes >= self.bytes / 4 * 3;
                if is_full && is_news {
                    self.follow(sent, now.saturating_duration_since(sent.at), now);
                }
            }
            Took::Refused if is_news => {
                // A node that refuses the only request gets smaller ones.
                if self.requests() <= 1 {
                    self.resize(self.bytes.min(sent.bytes) as f64 * CUT, now);
                }
                self.cut(CUT, now);
            }
            Took::Lost if is_news => {
                self.resize(self.bytes as f64 / 2.0, now);
                self.cut(0.5, now);
            }
            Took::TooLarge => {
                self.ceiling = Some(((sent.bytes / 2).max(CEILING_MIN), now));
                self.resize(self.bytes as f64, now);
            }
            Took::Refused | Took::Lost => {}
        }
    }

    fn follow(&mut self, sent: &Sent, latency: Duration, now: Instant) {
        let seconds = latency.as_secs_f64().max(1e-6);
        self.answers += 1;
        if self.answers >= FORGET_AFTER {
            self.answers = 0;
            self.unloaded = None;
            return self.cut(0.5, now);
        }
        let unloaded = self.unloaded.map_or(seconds, |least| least.min(seconds));
        self.unloaded = Some(unloaded);
        let queued = sent.under_way as f64 * (1.0 - unloaded / seconds);
        // Where fewer are under way than may be, latency says nothing about how it would be with more.
        if queued < QUEUED_MIN && sent.under_way >= self.requests() {
            self.requests += 1.0 / self.requests;
        } else if queued > QUEUED_MAX {
            self.requests -= 1.0 / self.requests;
        }
        self.requests = self.requests.clamp(1.0, self.requests_max as f64);
        if latency > SLOW {
            self.cut_at = Some(now);
            self.resize(self.bytes as f64 * 0.75, now);
        } else if latency < FAST && self.bytes < self.bytes_max {
            // A quarter more for as many answers as are under way.
            self.resize(self.bytes as f64 * (1.0 + 0.25 / self.requests), now);
        }
    }

    fn cut(&mut self, left: f64, now: Instant) {
        self.requests = (self.requests * left).clamp(1.0, self.requests_max as f64);
        self.cut_at = Some(now);
    }

    fn resize(&mut self, bytes: f64, now: Instant) {
        self.ceiling = self.ceiling.filter(|(_, at)| now.saturating_duration_since(*at) < CEILING_LASTS);
        let max = self.ceiling.map_or(self.bytes_max, |(ceiling, _)| ceiling.min(self.bytes_max));
        // A ceiling may be below the smallest request that we would choose ourselves.
        let resized = (bytes as usize).max(BYTES_MIN).min(max.max(1));
        if resized.abs_diff(self.bytes) > self.bytes / 8 {
            // Latencies of another size.
            self.unloaded = None;
        }
        self.bytes = resized;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: usize = 4 << 20;

    /// A node with `cores` that takes `work` seconds for a full request, and as long again when twice as many are there.
    struct Node {
        limit: Limit,
        now: Instant,
        cores: f64,
        work: f64,
    }

    impl Node {
        fn new(cores: f64, work: f64) -> Self {
            Self { limit: Limit::new(16, BYTES), now: Instant::now(), cores, work }
        }

        /// A round trip: as many requests as may be, all full.
        fn round(&mut self) {
            let (under_way, bytes) = (self.limit.requests(), self.limit.bytes());
            let sent = Sent { at: self.now + Duration::from_nanos(1), under_way, bytes };
            let crowd = (under_way as f64 / self.cores).max(1.0);
            self.now += Duration::from_secs_f64(self.work * crowd * bytes as f64 / BYTES as f64);
            for _ in 0..under_way {
                self.limit.answered(&sent, Took::All, self.now);
            }
        }

        fn refuse(&mut self, took: Took) {
            let sent = Sent { at: self.now + Duration::from_nanos(1), under_way: 1, bytes: self.limit.bytes() };
            self.now += Duration::from_millis(10);
            self.limit.answered(&sent, took, self.now);
        }
    }

    #[test]
    fn a_node_that_only_takes_time_gets_all_that_may_be() {
        // 20 ms each, however many there are.
        let mut node = Node::new(64.0, 0.02);
        let most = (0..60)
            .map(|_| {
                node.round();
                node.limit.requests()
            })
            .max();
        assert_eq!((most, node.limit.bytes()), (Some(16), BYTES));
    }

    #[test]
    fn a_node_with_two_cores_gets_a_short_queue() {
        let mut node = Node::new(2.0, 0.1);
        for round in 0..500 {
            node.round();
            let requests = node.limit.requests();
            assert!(requests <= 7, "round {round}: {requests} requests for two cores");
        }
        let mean = (0..200)
            .map(|_| {
                node.round();
                node.limit.requests()
            })
            .sum::<usize>()
            / 200;
        assert!((2..=6).contains(&mean), "{mean} requests for two cores");
    }

    #[test]
    fn slow_requests_shrink_and_grow_back() {
        let mut node = Node::new(1.0, 30.0);
        for _ in 0..100 {
            node.round();
        }
        let small = node.limit.bytes();
        assert!(small < BYTES / 4, "{small}");
        node.work = 0.05;
        for _ in 0..100 {
            node.round();
        }
        assert_eq!(node.limit.bytes(), BYTES);
    }

    #[test]
    fn refusals_cut_once_a_round_trip() {
        let mut node = Node::new(64.0, 0.02);
        for _ in 0..60 {
            node.round();
        }
        let (before, at) = (node.limit.requests, node.now);
        let sent = Sent { at: at + Duration::from_nanos(1), under_way: 10, bytes: BYTES };
        for n in 1..=10 {
            node.limit.answered(&sent, Took::Refused, at + Duration::from_millis(n));
        }
        assert_eq!(node.limit.requests, before * CUT);
        assert_eq!(node.limit.bytes(), BYTES, "there are fewer requests to be had first");
    }

    #[test]
    fn a_refused_lone_request_is_made_smaller() {
        let mut node = Node::new(1.0, 0.02);
        for _ in 0..30 {
            node.refuse(Took::Refused);
        }
        assert_eq!((node.limit.requests(), node.limit.bytes()), (1, BYTES_MIN));
    }

    #[test]
    fn too_large_sets_a_ceiling_for_a_while() {
        let mut node = Node::new(1.0, 0.02);
        node.refuse(Took::TooLarge);
        for _ in 0..50 {
            node.round();
        }
        assert_eq!(node.limit.bytes(), BYTES / 2);
        node.now += CEILING_LASTS;
        for _ in 0..50 {
            node.round();
        }
        assert_eq!(node.limit.bytes(), BYTES);
        // A proxy that takes next to nothing.
        for _ in 0..20 {
            node.refuse(Took::TooLarge);
        }
        assert_eq!(node.limit.bytes(), CEILING_MIN);
    }

    proptest! {
        /// Whatever comes, the limits stay within their bounds.
        #[test]
        fn keeps_to_its_bounds(
            answers in prop::collection::vec((0..4_u8, 0_u64..5_000, 0_usize..(8 << 20), 1_usize..20), 0..300),
            requests_max in 1_usize..20,
        ) {
            let mut limit = Limit::new(requests_max, BYTES);
            let mut now = Instant::now();
            for (took, millis, bytes, under_way) in answers {
                let took = [Took::All, Took::Refused, Took::Lost, Took::TooLarge][usize::from(took)];
                let sent = Sent { at: now, under_way, bytes };
                now += Duration::from_millis(millis);
                limit.answered(&sent, took, now);
                prop_assert!((1..=requests_max).contains(&limit.requests()));
                prop_assert!((1..=BYTES).contains(&limit.bytes()));
            }
        }
    }
}
