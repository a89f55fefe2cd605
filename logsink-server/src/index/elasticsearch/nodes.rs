//! Which node a request goes to, and when: the one with the most room among those that answer.
//!
//! A node that did not answer, or answered nonsense, is left out, for a pause that doubles with each failure; then it gets
//! one request on trial. When no node is left, requests wait for the first whose pause ends: the cluster is away.
//!
//! [`State`] is pure and decides; [`Nodes`] makes callers wait.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use super::limit::{Limit, Sent, Took};
use crate::metrics::{Metrics, Node as Label};

/// The first pause of a node that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest: a node that was restarted should not lie idle for long.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The nodes of the cluster, shared by all requests.
pub(super) struct Nodes {
    state: Mutex<State>,
    /// A request has ended: a node has room, or is well again.
    changed: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    nodes: Vec<Node>,
    /// Where the search for a node begins: the round in round robin.
    turn: usize,
    /// The same for what is asked beside `_bulk`: in one round, each kind could get always the same node.
    turn_any: usize,
}

struct Node {
    /// For people and metrics: host and port.
    name: String,
    limit: Limit,
    under_way: usize,
    /// Failures in a row.
    failures: u32,
    last_failure: Option<Failure>,
    /// Left out until then; then on trial until an answer comes.
    out_until: Option<Instant>,
}

struct Failure {
    at: Instant,
    asked: Asked,
}

/// A request's place at a node, until it is answered or dropped.
pub(super) struct Place {
    nodes: Arc<Nodes>,
    node: usize,
    sent: Sent,
}

/// What a node's answer says about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It works.
    Well,
    /// It may not work: others are asked for a while.
    Failed,
}

/// What a node was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Bulk,
    /// Anything small.
    Question,
}

enum Choice {
    Node(usize),
    /// All have their fill, or are left out, the first of them until then.
    Wait(Option<Instant>),
}

// === impl Nodes ===

impl Nodes {
    /// Nodes by their names, each taking `requests_max` requests of `bytes_max` at most.
    pub(super) fn new(
        names: impl IntoIterator<Item = String>,
        requests_max: usize,
        bytes_max: usize,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let node = |name| Node {
            name,
            limit: Limit::new(requests_max, bytes_max),
            under_way: 0,
            failures: 0,
            last_failure: None,
            out_until: None,
        };
        let state = State { nodes: names.into_iter().map(node).collect(), turn: 0, turn_any: 0 };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), metrics })
    }

    /// Waits for room at a node, for a request of `bytes`.
    pub(super) async fn place(self: &Arc<Self>, bytes: usize) -> Place {
        loop {
            let changed = self.changed.notified();
            let now = Instant::now();
            let choice = self.state().choose(now);
            let until = match choice {
                Choice::Node(node) => return self.take(node, bytes, now),
                Choice::Wait(until) => until,
            };
            match until {
                // Too late or too early is no matter: it is looked at again.
                Some(until) => _ = timeout(until.saturating_duration_since(now), changed).await,
                None => changed.await,
            }
        }
    }

    fn take(self: &Arc<Self>, node: usize, bytes: usize, now: Instant) -> Place {
        let mut state = self.state();
        let chosen = &mut state.nodes[node];
        chosen.under_way += 1;
        let sent = Sent { at: now, under_way: chosen.under_way, bytes };
        self.show(chosen);
        Place { nodes: Arc::clone(self), node, sent }
    }

    /// Requests that may be under way at all nodes that work, and the bytes of one.
    pub(super) fn appetite(&self) -> (usize, usize) {
        let state = self.state();
        let works = |node: &&Node| node.out_until.is_none();
        let requests = state.nodes.iter().filter(works).map(|node| node.limit.requests()).sum::<usize>();
        let bytes = state.nodes.iter().filter(works).map(|node| node.limit.bytes()).min();
        // While none works, what is under way is what a trial needs.
        (requests.max(1), bytes.or_else(|| state.nodes.iter().map(|node| node.limit.bytes()).min()).unwrap_or(1))
    }

    /// Whether another node than those that failed could be asked at once.
    pub(super) fn has_others(&self) -> bool {
        self.state().nodes.iter().any(|node| node.out_until.is_none())
    }

    /// The node to ask something small, whatever its limits; the next one when it is asked again.
    pub(super) fn any(&self) -> usize {
        let mut state = self.state();
        let now = Instant::now();
        let len = state.nodes.len();
        let turn = state.turn_any;
        state.turn_any = (turn + 1) % len;
        let in_turn = (0..len).map(|step| (turn + step) % len);
        in_turn.clone().find(|&at| state.nodes[at].is_due(now)).unwrap_or(turn)
    }

    /// Takes note of what the answer to something `asked` says about a node.
    pub(super) fn sign(&self, node: usize, asked: Asked, sign: Sign, sent_at: Instant) {
        let mut state = self.state();
        let alone = state.nodes.len() == 1;
        let node = &mut state.nodes[node];
        match sign {
            // Who answers questions may take no bodies.
            Sign::Well if asked == Asked::Question && node.is_out_for(Asked::Bulk) => {}
            Sign::Well => {
                node.failures = 0;
                if node.out_until.take().is_some() && !alone {
                    tracing::info!(node = node.name, "the node answers again");
                }
            }
            // What was under way when it failed fails with it, and says nothing new.
            Sign::Failed if node.last_failure.as_ref().is_none_or(|failure| sent_at > failure.at) => {
                let now = Instant::now();
                let pause = PAUSE_MIN.saturating_mul(1 << node.failures.min(16)).min(PAUSE_MAX);
                let was_in = node.out_until.is_none();
                node.failures += 1;
                node.last_failure = Some(Failure { at: now, asked });
                node.out_until = Some(now + pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
                if was_in && !alone {
                    tracing::warn!(node = node.name, "the node does not answer; others are asked meanwhile");
                }
            }
            Sign::Failed => {}
        }
        self.show(node);
        drop(state);
        self.changed.notify_waiters();
    }

    fn show(&self, node: &Node) {
        let label = Label { node: node.name.clone() };
        let metrics = &self.metrics;
        metrics.index_requests_max.get_or_create(&label).set(node.limit.requests() as i64);
        metrics.index_requests.get_or_create(&label).set(node.under_way as i64);
        metrics.index_request_bytes_max.get_or_create(&label).set(node.limit.bytes() as i64);
        metrics.index_node_up.get_or_create(&label).set(i64::from(node.out_until.is_none()));
    }

    // A panic while it is held leaves plain numbers.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// The node with the largest share of its limit free, the next in turn among equals.
    fn choose(&mut self, now: Instant) -> Choice {
        let len = self.nodes.len();
        let in_turn = (0..len).map(|step| (self.turn + step) % len);
        let free = in_turn.filter(|&at| self.nodes[at].has_room(now));
        match free.min_by(|&a, &b| self.nodes[a].load().total_cmp(&self.nodes[b].load())) {
            Some(at) => {
                self.turn = (at + 1) % len;
                Choice::Node(at)
            }
            None => Choice::Wait(self.nodes.iter().filter_map(|node| node.out_until).filter(|&at| at > now).min()),
        }
    }
}

// === impl Node ===

impl Node {
    fn is_due(&self, now: Instant) -> bool {
        self.out_until.is_none_or(|until| until <= now)
    }

    fn is_out_for(&self, asked: Asked) -> bool {
        self.out_until.is_some() && self.last_failure.as_ref().is_some_and(|failure| failure.asked == asked)
    }

    fn has_room(&self, now: Instant) -> bool {
        let on_trial = self.out_until.is_some();
        self.is_due(now) && self.under_way < if on_trial { 1 } else { self.limit.requests() }
    }

    fn load(&self) -> f64 {
        self.under_way as f64 / self.limit.requests() as f64
    }
}

// === impl Place ===

impl Place {
    /// The node's index.
    pub(super) fn node(&self) -> usize {
        self.node
    }

    /// Gives the place back with what became of the request. `took` is none when the answer says nothing about load.
    pub(super) fn answered(self, took: Option<Took>, sign: Sign) {
        let now = Instant::now();
        let sent = self.sent;
        {
            let mut state = self.nodes.state();
            let node = &mut state.nodes[self.node];
            if let Some(took) = took {
                node.limit.answered(&sent, took, now);
            }
            let label = Label { node: node.name.clone() };
            let seconds = (now - sent.at).as_secs_f64();
            self.nodes.metrics.index_request_seconds.get_or_create(&label).observe(seconds);
        }
        self.nodes.sign(self.node, Asked::Bulk, sign, sent.at);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.nodes.state();
        let node = &mut state.nodes[self.node];
        node.under_way -= 1;
        self.nodes.show(node);
        drop(state);
        self.nodes.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> Arc<Nodes> {
        Nodes::new(names.iter().map(|&name| name.to_owned()), 2, 1 << 20, Metrics::new())
    }

    /// What `place` would choose now.
    fn choice(nodes: &Nodes, after: Duration) -> Option<usize> {
        match nodes.state().choose(Instant::now() + after) {
            Choice::Node(node) => Some(node),
            Choice::Wait(_) => None,
        }
    }

    #[tokio::test]
    async fn requests_go_where_the_most_room_is_and_in_turn_among_equals() {
        let nodes = nodes(&["a", "b", "c"]);
        let mut places = Vec::new();
        for _ in 0..6 {
            places.push(nodes.place(1).await);
        }
        assert_eq!(places.iter().map(Place::node).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(choice(&nodes, Duration::ZERO), None, "all have their fill");
        drop(places.remove(4));
        assert_eq!(choice(&nodes, Duration::ZERO), Some(1));
    }

    #[tokio::test]
    async fn a_failed_node_is_left_out_and_tried_with_one_request() {
        let nodes = nodes(&["a", "b"]);
        let (a, b) = (nodes.place(1).await, nodes.place(1).await);
        let second = nodes.place(1).await;
        a.answered(Some(Took::Lost), Sign::Failed);
        second.answered(Some(Took::Lost), Sign::Failed);
        assert_eq!(nodes.state().nodes[0].failures, 1, "what was under way fails with it");
        assert_eq!(nodes.appetite().0, 2, "the other's");
        b.answered(Some(Took::All), Sign::Well);
        for _ in 0..3 {
            assert_eq!(choice(&nodes, Duration::ZERO), Some(1));
        }
        // Its pause over, it is tried, once.
        nodes.state().nodes[0].out_until = Some(Instant::now());
        let (first, second) = (nodes.place(1).await, nodes.place(1).await);
        let trial = if first.node() == 0 { first } else { second };
        assert_eq!(trial.node(), 0);
        assert!(!nodes.state().nodes[0].has_room(Instant::now()));
        trial.answered(Some(Took::All), Sign::Well);
        assert_eq!(nodes.state().nodes[0].failures, 0);
        assert!(nodes.state().nodes[0].has_room(Instant::now()));
    }

    #[tokio::test]
    async fn who_answers_questions_may_yet_take_no_bodies() {
        let nodes = nodes(&["a", "b"]);
        let out = |asked, sign| {
            nodes.sign(0, asked, sign, Instant::now());
            nodes.state().nodes[0].out_until.is_some()
        };
        assert!(out(Asked::Bulk, Sign::Failed));
        assert!(out(Asked::Question, Sign::Well), "the pause stays");
        assert_eq!(nodes.state().nodes[0].failures, 1, "and the next is longer");
        assert!(!out(Asked::Bulk, Sign::Well));
        // One that does not answer questions either is well again with the first answer.
        assert!(out(Asked::Question, Sign::Failed));
        assert!(!out(Asked::Question, Sign::Well));
    }

    #[tokio::test]
    async fn pauses_grow_to_a_bound() {
        let nodes = nodes(&["a"]);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let now = Instant::now() + Duration::from_nanos(1);
            nodes.sign(0, Asked::Bulk, Sign::Failed, now);
            // A later failure is news.
            nodes.state().nodes[0].last_failure = None;
            pauses.push(nodes.state().nodes[0].out_until.unwrap() - now);
        }
        assert!(pauses[0] <= PAUSE_MIN, "{pauses:?}");
        assert!(pauses[11] >= PAUSE_MAX / 2 - Duration::from_millis(1) && pauses[11] <= PAUSE_MAX, "{pauses:?}");
    }

    #[tokio::test]
    async fn when_all_are_out_requests_wait_for_the_first() {
        let nodes = nodes(&["a", "b"]);
        nodes.sign(0, Asked::Bulk, Sign::Failed, Instant::now());
        nodes.sign(1, Asked::Bulk, Sign::Failed, Instant::now());
        assert!(!nodes.has_others());
        let place = timeout(Duration::from_secs(10), nodes.place(1)).await.expect("a pause ends");
        place.answered(Some(Took::All), Sign::Well);
        assert!(nodes.has_others());
    }
}
