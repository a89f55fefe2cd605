//! How far the group is behind: a partition's end in Kafka less the position committed for it.
//!
//! The end is asked for, one partition at a time: librdkafka knows it from its fetches only, and what is paused because the
//! index does not keep up is not fetched.

use std::time::{Duration, Instant};

use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::KafkaResult};

use super::poller::Poller;

/// How often each partition is asked about.
const ROUND: Duration = Duration::from_secs(5);
/// How long the polling thread waits for an answer: an end of the reader is noticed so late at most.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Lag {
    turn: usize,
    at: Option<Instant>,
}

impl Lag {
    /// Asks about the next partition when it is time for it.
    pub(super) fn measure(&mut self, poller: &Poller) {
        let now = Instant::now();
        if self.at.is_some_and(|at| now < at) {
            return;
        }
        let (partition, partitions, committed) = {
            let state = poller.shared.state();
            let partitions = state.assigned.len();
            if partitions == 0 {
                return;
            }
            self.turn = (self.turn + 1) % partitions;
            let partition = state.assigned[self.turn];
            (partition, partitions, state.positions.get(&partition).copied())
        };
        match lag(poller, partition, committed) {
            Ok(lag) => {
                poller.shared.metrics.lag(partition, Some(lag));
                self.at = Some(now + ROUND / u32::try_from(partitions).unwrap_or(u32::MAX));
            }
            Err(error) => {
                // The last number stands: reading and committing say what is the matter.
                tracing::debug!(%error, partition, topic = poller.topic, "cannot ask how far behind the reader is");
                self.at = Some(now + ROUND);
            }
        }
    }
}

fn lag(poller: &Poller, partition: i32, committed: Option<i64>) -> KafkaResult<i64> {
    let consumer = &poller.consumer;
    let (start, end) = consumer.fetch_watermarks(&poller.topic, partition, ANSWER_TIMEOUT)?;
    let committed = match committed {
        Some(committed) => committed,
        // Nothing was committed since the partition came: the group's own position counts.
        None => {
            let mut list = TopicPartitionList::new();
            list.add_partition(&poller.topic, partition);
            let committed = consumer.committed_offsets(list, ANSWER_TIMEOUT)?;
            match committed.elements().first().map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => start,
            }
        }
    };
    // Retention may have deleted what was never read.
    Ok((end - committed.max(start)).max(0))
}
