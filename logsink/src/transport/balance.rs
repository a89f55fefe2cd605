//! Several sinks that are as good as one another: a batch goes to one of them, and on to the next when that one fails.
//!
//! Of two chosen at random, the one with fewer batches under way gets the batch (the power of two choices): a slow sink gets
//! less, and senders that choose at the same time do not all choose the same. One that fails is left out for a while, twice as
//! long each time; when all are left out they are tried all the same, for nothing else is left. Only when no sink has taken the
//! batch does its sender hear of it, and waits before the next round. A sink that asks to wait (`RetryInfo`) is obeyed: going
//! round its limit is no help.
//!
//! A sink that failed may have taken the batch before. The next one gets it under the same instance and sequence number, by
//! which the index knows it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{task::JoinHandle, time::Instant};

use super::{Accepted, Batch, SendError, Sending, Transport};
use crate::voice::say;

/// How long a sink is left out after its first failure in a row, and at most. The first is about what a restart takes; the
/// last, how long a sink that is back may wait for its share.
const LEFT_OUT_MIN: Duration = Duration::from_secs(1);
const LEFT_OUT_MAX: Duration = Duration::from_secs(30);

/// One sink.
pub(crate) struct Member<C> {
    /// As messages call it.
    pub(crate) url: String,
    transport: Arc<dyn Transport>,
    /// What else uses the connection.
    pub(crate) connection: C,
    /// Batches under way.
    outstanding: AtomicUsize,
    left_out: Mutex<LeftOut>,
}

/// Whether a sink is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LeftOut {
    /// Failures in a row.
    failures: u32,
    until: Option<Instant>,
}

impl LeftOut {
    /// After a failure. Those of batches that were under way together are one.
    fn fail(self, now: Instant) -> Self {
        if self.until.is_some_and(|until| now < until) {
            return self;
        }
        let wait = LEFT_OUT_MIN.saturating_mul(1 << self.failures.min(10)).min(LEFT_OUT_MAX);
        Self { failures: self.failures.saturating_add(1), until: Some(now + wait) }
    }

    fn is_over(self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

impl<C> Member<C> {
    pub(crate) fn new(url: String, transport: Arc<dyn Transport>, connection: C) -> Self {
        let (outstanding, left_out) = Default::default();
        Self { url, transport, connection, outstanding, left_out }
    }

    fn is_left_out(&self, now: Instant) -> bool {
        !self.left_out.lock().unwrap_or_else(PoisonError::into_inner).is_over(now)
    }

    fn fail(&self, error: &str) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if left_out.failures == 0 {
            say(format_args!("{} fails, going on with the others: {error}", self.url));
        }
        *left_out = left_out.fail(Instant::now());
    }

    fn succeed(&self) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if left_out.failures > 0 {
            say(format_args!("{} takes batches again", self.url));
            *left_out = LeftOut::default();
        }
    }
}

/// The sinks there are; may change at any time.
pub(crate) type Members<C> = Arc<ArcSwap<Vec<Arc<Member<C>>>>>;

/// Sends to any of several sinks.
pub(crate) struct Balanced<C> {
    members: Members<C>,
    /// What is said when there is none.
    none: String,
    /// Keeps the list up to date.
    watch: Option<JoinHandle<()>>,
}

impl<C: Send + Sync + 'static> Balanced<C> {
    pub(crate) fn new(members: Members<C>, none: String, watch: Option<JoinHandle<()>>) -> Self {
        Self { members, none, watch }
    }

    async fn deliver(&self, batch: Batch) -> Result<Accepted, SendError> {
        let members = self.members.load_full();
        let mut tried = vec![false; members.len()];
        let mut last = SendError::Retryable { message: self.none.clone(), after: None };
        while let Some(index) = self.pick(&members, &tried) {
            let member = &members[index];
            tried[index] = true;
            let answer = {
                let _under_way = UnderWay::new(&member.outstanding);
                member.transport.send(batch.clone()).await
            };
            match answer {
                Err(SendError::Retryable { message, after: None }) => {
                    member.fail(&message);
                    last = SendError::Retryable { message: format!("{}: {message}", member.url), after: None };
                }
                answer => {
                    if answer.is_ok() {
                        member.succeed();
                    }
                    return answer;
                }
            }
        }
        Err(last)
    }

    fn pick(&self, members: &[Arc<Member<C>>], tried: &[bool]) -> Option<usize> {
        let now = Instant::now();
        let left = |left_out: bool| {
            let all = members.iter().enumerate();
            all.filter(move |(index, member)| !tried[*index] && member.is_left_out(now) == left_out)
                .map(|(index, member)| (index, member.outstanding.load(Relaxed)))
                .collect::<Vec<_>>()
        };
        choose(&left(false), fastrand::usize).or_else(|| choose(&left(true), fastrand::usize))
    }
}

impl<C: Send + Sync + 'static> Transport for Balanced<C> {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(self.deliver(batch))
    }
}

impl<C> Drop for Balanced<C> {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

/// The better of two at random, by what is under way; `random` answers with a number of the range.
fn choose(candidates: &[(usize, usize)], mut random: impl FnMut(std::ops::Range<usize>) -> usize) -> Option<usize> {
    let (one, two) = match candidates.len() {
        0 => return None,
        1 => (0, 0),
        len => {
            let one = random(0..len);
            // Another one: the places after `one` move up.
            let two = random(0..len - 1);
            (one, if two >= one { two + 1 } else { two })
        }
    };
    let (one, two) = (candidates[one], candidates[two]);
    Some(if two.1 < one.1 { two.0 } else { one.0 })
}

/// Counts a batch while it is under way, however that ends.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Counts what it gets, and answers as it is told.
    #[derive(Default)]
    struct Fake {
        got: AtomicUsize,
        down: AtomicBool,
        waits: AtomicBool,
    }

    impl Transport for Fake {
        fn send(&self, _: Batch) -> Sending<'_> {
            self.got.fetch_add(1, Relaxed);
            let after = self.waits.load(Relaxed).then_some(Duration::from_secs(3));
            let down = self.down.load(Relaxed) || after.is_some();
            Box::pin(async move {
                if down { Err(SendError::Retryable { message: "away".into(), after }) } else { Ok(Accepted::default()) }
            })
        }
    }

    fn batch() -> Batch {
        Batch { payload: Default::default(), records: 1, sequence: 1, headers: Vec::new() }
    }

    fn balanced(count: usize) -> (Balanced<()>, Vec<Arc<Fake>>) {
        let fakes: Vec<_> = (0..count).map(|_| Arc::new(Fake::default())).collect();
        let member = |(n, fake): (usize, &Arc<Fake>)| Arc::new(Member::new(format!("s{n}"), fake.clone(), ()));
        let members = fakes.iter().enumerate().map(member).collect();
        (Balanced::new(Arc::new(ArcSwap::from_pointee(members)), "none".into(), None), fakes)
    }

    fn got(fakes: &[Arc<Fake>]) -> Vec<usize> {
        fakes.iter().map(|fake| fake.got.swap(0, Relaxed)).collect()
    }

    #[test]
    fn the_one_with_less_under_way_is_chosen() {
        let candidates = [(7, 3), (8, 1), (9, 2)];
        for (one, two, expected) in [(0, 0, 8), (0, 1, 9), (1, 0, 8), (2, 0, 9), (2, 1, 8)] {
            let mut draws = [one, two].into_iter();
            assert_eq!(choose(&candidates, |_| draws.next().unwrap()), Some(expected));
        }
        assert_eq!(choose(&[(4, 9)], |_| unreachable!()), Some(4));
        assert_eq!(choose(&[], |_| unreachable!()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_fails_is_left_out_and_comes_back() {
        let (balanced, fakes) = balanced(3);
        fakes[1].down.store(true, Relaxed);
        for _ in 0..100 {
            balanced.send(batch()).await.unwrap();
        }
        let first = got(&fakes);
        assert_eq!(first[1], 1, "tried once, and another took the batch: {first:?}");
        assert_eq!(first[0] + first[2], 100);
        assert!(first[0] > 10 && first[2] > 10, "both are used: {first:?}");
        // It is tried when its time is over, and left out for twice as long.
        tokio::time::advance(LEFT_OUT_MIN).await;
        for _ in 0..100 {
            balanced.send(batch()).await.unwrap();
        }
        assert_eq!(got(&fakes)[1], 1);
        tokio::time::advance(LEFT_OUT_MIN).await;
        balanced.send(batch()).await.unwrap();
        assert_eq!(got(&fakes)[1], 0);
        fakes[1].down.store(false, Relaxed);
        tokio::time::advance(LEFT_OUT_MIN).await;
        for _ in 0..100 {
            balanced.send(batch()).await.unwrap();
        }
        assert!(got(&fakes)[1] > 10);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_each_is_tried_and_the_sender_told() {
        let (balanced, fakes) = balanced(2);
        for fake in &fakes {
            fake.down.store(true, Relaxed);
        }
        for round in 1..3 {
            let error = balanced.send(batch()).await.unwrap_err();
            assert!(matches!(error, SendError::Retryable { ref message, after: None } if message.ends_with(": away")));
            assert_eq!(got(&fakes), [1, 1], "round {round}: left out or not");
        }
    }

    #[tokio::test]
    async fn a_sink_that_asks_to_wait_is_obeyed() {
        let (balanced, fakes) = balanced(2);
        for fake in &fakes {
            fake.waits.store(true, Relaxed);
        }
        let error = balanced.send(batch()).await.unwrap_err();
        assert!(matches!(error, SendError::Retryable { after: Some(_), .. }));
        assert_eq!(got(&fakes).iter().sum::<usize>(), 1);
    }

    #[tokio::test]
    async fn no_sink_at_all_is_worth_trying_again() {
        let (balanced, _) = balanced(0);
        let error = balanced.send(batch()).await.unwrap_err();
        assert_eq!(error, SendError::Retryable { message: "none".into(), after: None });
    }
}
