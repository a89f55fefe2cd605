//! The thread that watches the client: asks the brokers what polling must not wait for.
//!
//! - Where the group stood when a partition came, and whether that is still there: what retention has deleted unread is counted.
//! - Whether the topic is still the same one.
//! - How far behind the reader is ([`Lag`]).
//! - Whether the client still works ([`Pulse`]); the polling thread replaces one that does not.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use logsink::transport::kafka::topic_id;
use rdkafka::{ClientConfig, Offset, TopicPartitionList, consumer::Consumer, error::KafkaResult};

use super::{
    Shared,
    buffer::Jump,
    client::Client,
    lag::Lag,
    pulse::{Pulse, Suspicion},
};
use crate::queue::{QueueError, kafka::probe};

/// How often the thread looks around when nothing wakes it.
const TICK: Duration = Duration::from_secs(1);
/// How long it waits for an answer: the end of the reader is noticed so late at most.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1000);
/// What a client may take that has to connect again: `reconnect.backoff.max.ms` and the connection itself.
const SECOND_CHANCE: Duration = Duration::from_secs(3);
/// How often the client is asked where the group stands, which brokers and coordinator have to answer.
const ASK_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 4 });

/// A running watch of one client.
pub(super) struct Watch {
    shared: Arc<Shared>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(shared: &Arc<Shared>, client: &Arc<Client>, config: &ClientConfig) -> Result<Self, QueueError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            shared: Arc::clone(shared),
            client: Arc::clone(client),
            config: config.clone(),
            is_over: Arc::clone(&is_over),
            last_asked: -1,
            lag: Lag::default(),
            pulse: Pulse::default(),
            ask_at: Instant::now(),
        };
        let thread = thread::Builder::new().name("logsink-kafka-watch".into()).spawn(move || watcher.run());
        let thread = thread
            .map_err(|error| QueueError::Failed(format!("cannot start the thread that watches Kafka: {error}")))?;
        Ok(Self { shared: Arc::clone(shared), is_over, thread: Some(thread) })
    }

    /// Waits until the thread has let go of the client.
    pub(super) fn end(mut self) {
        self.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that watches Kafka has failed");
        }
    }

    fn stop(&self) {
        self.is_over.store(true, Relaxed);
        // Under the lock, so that it is not about to wait.
        let _state = self.shared.state();
        self.shared.alarm.notify_all();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What cannot wait for its turn.
struct Work {
    /// Partitions that came, with their epochs.
    unasked: Vec<(i32, u32)>,
    jumps: Vec<Jump>,
}

struct Watcher {
    shared: Arc<Shared>,
    client: Arc<Client>,
    config: ClientConfig,
    is_over: Arc<AtomicBool>,
    /// The last partition that was asked where it begins and ends.
    last_asked: i32,
    lag: Lag,
    pulse: Pulse,
    ask_at: Instant,
}

impl Watcher {
    fn run(mut self) {
        while let Some(Work { unasked, jumps }) = self.next() {
            if !unasked.is_empty()
                && let Err(error) = self.ask(&unasked)
            {
                // Nothing is committed of them until it is known: it is asked again at the next tick.
                tracing::debug!(%error, topic = self.shared.topic, "cannot ask where the group stands");
            }
            for jump in jumps {
                self.judge(jump);
            }
            self.measure();
            if Instant::now() >= self.ask_at {
                self.ask_at = Instant::now() + ASK_EVERY;
                self.identify();
                self.feel();
            }
        }
    }

    /// Waits for something to do.
    fn next(&self) -> Option<Work> {
        let mut state = self.shared.state();
        let is_idle = |state: &mut super::State| !self.is_over.load(Relaxed) && !state.closing && !state.has_new();
        let waited = self.shared.alarm.wait_timeout_while(state, TICK, is_idle);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if self.is_over.load(Relaxed) || state.closing {
            return None;
        }
        Some(Work { unasked: state.unasked(), jumps: mem::take(&mut state.jumps) })
    }

    /// Asks where the group stood in partitions that came, and tells what of that is not there any more. Ends at the first that does
    /// not answer, as one without a leader: other work is not kept waiting for more than one. The next time begins after it, so that
    /// it keeps none of the others from being known.
    fn ask(&mut self, partitions: &[(i32, u32)]) -> KafkaResult<()> {
        let numbers: Vec<i32> = partitions.iter().map(|&(partition, _)| partition).collect();
        let committed = self.committed(&numbers, ANSWER_TIMEOUT)?;
        let next = partitions.partition_point(|&(partition, _)| partition <= self.last_asked);
        for &(partition, epoch) in partitions[next..].iter().chain(&partitions[..next]) {
            self.last_asked = partition;
            let (start, end) = self.client.fetch_watermarks(&self.shared.topic, partition, ANSWER_TIMEOUT)?;
            if let Some(&committed) = committed.get(&partition) {
                self.tell(partition, committed, start, end);
            }
            self.lag.begin(partition, committed.get(&partition).copied().unwrap_or(start));
            let lag = self.lag.of(partition, None, start, end);
            self.shared.show_lag(partition, lag);
            self.shared.state().asked(partition, epoch);
        }
        Ok(())
    }

    fn tell(&self, partition: i32, committed: i64, start: i64, end: i64) {
        let topic = &self.shared.topic;
        if committed < start {
            self.lost(Jump { partition, from: committed, to: start });
        } else if committed > end {
            tracing::error!(
                topic,
                partition,
                committed,
                end,
                "the group's position is behind the partition's end: the topic was made anew, or the partition has lost its \
                 end. Reading from its beginning"
            );
        }
    }

    /// Offsets that did not come: whether retention took them, or there never was a message.
    fn judge(&self, jump: Jump) {
        match self.client.fetch_watermarks(&self.shared.topic, jump.partition, ANSWER_TIMEOUT) {
            Ok((start, _)) if start > jump.from => self.lost(Jump { to: start.min(jump.to), ..jump }),
            // Compaction, or what a transaction leaves.
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, ?jump, "offsets were passed over, and Kafka does not say why"),
        }
    }

    fn lost(&self, gap: Jump) {
        let (topic, messages) = (&self.shared.topic, gap.to - gap.from);
        self.shared.metrics.queue_lost.inc_by(u64::try_from(messages).unwrap_or(0));
        tracing::error!(
            topic,
            partition = gap.partition,
            messages,
            from = gap.from,
            to = gap.to,
            "Kafka has deleted messages before they were read: give the topic a longer retention or the drain more room"
        );
    }

    fn measure(&mut self) {
        let partitions: Vec<_> = {
            let state = self.shared.state();
            let known = |&partition: &i32| state.assigned(partition).is_some_and(|own| !own.is_unasked);
            state
                .partitions()
                .into_iter()
                .filter(known)
                .map(|partition| (partition, state.position(partition)))
                .collect()
        };
        let Some((partition, committed)) = self.lag.turn(&partitions) else { return };
        match self.client.fetch_watermarks(&self.shared.topic, partition, ANSWER_TIMEOUT) {
            Ok((start, end)) => {
                let lag = self.lag.of(partition, committed, start, end);
                self.shared.show_lag(partition, lag);
                self.wants(partition, start, end);
            }
            // The last number stands: `feel` says what is the matter.
            Err(error) => tracing::debug!(%error, partition, topic = self.shared.topic, "cannot ask for the lag"),
        }
    }

    /// Suspects a partition that stands still though it has not reached `end`.
    fn wants(&mut self, partition: i32, start: i64, end: i64) {
        let wanted = {
            let state = self.shared.state();
            let own = state.assigned(partition).filter(|_| !state.is_paused);
            own.map(|own| own.next.unwrap_or_else(|| self.lag.start(partition).max(start)))
        };
        let Some(offset) = wanted else { return self.pulse.rests(partition) };
        let Some(Suspicion::Still { since, .. }) = self.pulse.wants(partition, offset, end, Instant::now()) else {
            return;
        };
        if probe::reads(&self.config, &self.shared.topic, partition, offset) {
            let reason =
                format!("partition {partition} stands at {offset} for {since:.0?} and a fresh client reads there");
            self.condemn(reason);
        } else {
            // What is there are marks of transactions, or the broker is away.
            self.pulse.rests(partition);
        }
    }

    /// Asks for the topic's id. A topic that was made anew may be longer than the position in the old one: nothing else tells.
    fn identify(&self) {
        let Some(id) = topic_id(self.client.client(), &self.shared.topic, ANSWER_TIMEOUT) else { return };
        let mut state = self.shared.state();
        let known = state.topic_id.replace(id);
        state.is_anew |= known.is_some_and(|known| known != id);
    }

    /// Asks the client what brokers and coordinator answer; a fresh client, when it has had no answer for long.
    fn feel(&mut self) {
        let partitions = self.shared.state().partitions();
        let partitions = if partitions.is_empty() { vec![0] } else { partitions };
        let is_answered = self.committed(&partitions, ANSWER_TIMEOUT).is_ok();
        let Some(Suspicion::Silent(silent)) = self.pulse.asked(is_answered, Instant::now()) else { return };
        if !probe::answers(&self.config, &self.shared.topic) {
            return self.pulse.acquit();
        }
        // They may have come back this second.
        if self.committed(&partitions, SECOND_CHANCE).is_err() {
            self.condemn(format!("no broker has answered it for {silent:.0?}, and a fresh client is answered"));
        }
    }

    fn condemn(&self, reason: String) {
        if !self.is_over.load(Relaxed) {
            self.shared.state().verdict = Some(reason);
        }
    }

    /// Where the group stands, of the partitions that have a position.
    fn committed(&self, partitions: &[i32], timeout: Duration) -> KafkaResult<BTreeMap<i32, i64>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.shared.topic, partition);
        }
        let committed = self.client.committed_offsets(list, timeout)?;
        let of = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        };
        Ok(committed.elements().into_iter().filter_map(of).collect())
    }
}
