//! Sends letters back into the topic that they came from, a window of them at a time.

use std::collections::VecDeque;

use crate::queue::{
    QueueError,
    dead::{DeadLetter, Replayed},
    kafka::{
        producer::{Limit, Outgoing, Producer, Sent},
        to_kafka,
        writer::overhead,
    },
};

/// Bytes and letters under way at a time. A letter's time runs from when it is handed to the producer, with all that is under way
/// before it: 8 MiB within its 16 s are half a megabyte a second, and 1,000 small letters are one batch or two of librdkafka's.
/// Any broker takes that. A letter that is larger goes alone.
const WINDOW_BYTES_MAX: usize = 8 << 20;
const WINDOW_LETTERS_MAX: usize = 1_000;
/// How many lessons one letter teaches: brokers that tell what the topic takes need one. Where they do not, what is sent as one is
/// halved, ten times at most, and then what a message may have.
const LESSONS_MAX: u32 = 16;

/// Letters on their way.
pub(super) struct Replay<'p> {
    producer: &'p Producer,
    waiting: VecDeque<Waiting>,
    /// In the order in which they were handed over.
    under_way: VecDeque<UnderWay>,
    bytes: usize,
    /// How often the topic's limit was learnt, with a new client each time.
    lessons: u32,
    done: Replayed,
}

struct Waiting {
    letter: DeadLetter,
    /// Lessons that it has taught.
    taught: u32,
}

struct UnderWay {
    waiting: Waiting,
    sent: Sent,
    /// The topic's limit, and the lessons, as of when it was handed over.
    limit: Limit,
    lessons: u32,
}

impl<'p> Replay<'p> {
    pub(super) fn new(producer: &'p Producer, letters: Vec<DeadLetter>) -> Self {
        let waiting = letters.into_iter().map(|letter| Waiting { letter, taught: 0 }).collect();
        let (under_way, done) = (VecDeque::new(), Replayed::default());
        Self { producer, waiting, under_way, bytes: 0, lessons: 0, done }
    }

    /// Sends all that Kafka takes. What fails for itself does not keep the others.
    pub(super) async fn run(mut self) -> Replayed {
        if let Err(error) = self.send_all().await {
            self.done.stopped = Some(error.into());
            // They may be with the brokers already: which of them have arrived is to be said.
            while let Some(UnderWay { waiting, sent, .. }) = self.under_way.pop_front() {
                match self.producer.answer(sent).await {
                    Ok(()) => self.done.sent += 1,
                    Err(_) => self.done.left.push(waiting.letter.id),
                }
            }
            self.done.left.extend(self.waiting.into_iter().map(|waiting| waiting.letter.id));
        }
        self.done
    }

    /// # Errors
    /// What would be the same for every letter.
    async fn send_all(&mut self) -> Result<(), QueueError> {
        self.producer.topic().await?;
        loop {
            while self.has_room()
                && let Some(waiting) = self.waiting.pop_front()
            {
                self.send(waiting)?;
            }
            let Some(oldest) = self.under_way.pop_front() else { return Ok(()) };
            self.settle(oldest).await?;
        }
    }

    fn has_room(&self) -> bool {
        let next = self.waiting.front().map_or(0, |waiting| waiting.letter.bytes.len());
        let fits = self.bytes + next <= WINDOW_BYTES_MAX && self.under_way.len() < WINDOW_LETTERS_MAX;
        fits || self.under_way.is_empty()
    }

    fn send(&mut self, waiting: Waiting) -> Result<(), QueueError> {
        let DeadLetter { bytes, .. } = &waiting.letter;
        let headers = waiting.letter.replay_headers();
        let limit = self.producer.limit();
        let sent = self.producer.send(Outgoing {
            key: headers.instance.clone().unwrap_or_default(),
            payload: bytes.clone(),
            headers: to_kafka(&headers),
            time_ms: headers.appended_ms,
        });
        match sent {
            Ok(sent) => {
                self.bytes += bytes.len();
                self.under_way.push_back(UnderWay { waiting, sent, limit, lessons: self.lessons });
                Ok(())
            }
            Err(error) => {
                self.waiting.push_front(waiting);
                Err(error)
            }
        }
    }

    /// Waits for the answer to a letter.
    async fn settle(&mut self, letter: UnderWay) -> Result<(), QueueError> {
        let UnderWay { mut waiting, sent, limit, lessons } = letter;
        self.bytes -= waiting.letter.bytes.len();
        match self.producer.answer(sent).await {
            Ok(()) => self.done.sent += 1,
            // It was with the client that the lesson has ended.
            Err(_) if lessons < self.lessons => self.waiting.push_front(waiting),
            Err(QueueError::TooLarge { bytes, .. }) => {
                let least = bytes + overhead(&waiting.letter.replay_headers());
                if least > limit.message || waiting.taught >= LESSONS_MAX {
                    let topic = &self.producer.options().topic;
                    let why = format!("it has {bytes} bytes, and a message of {topic} {} at most", limit.message);
                    self.done.refused.push((waiting.letter.id, why));
                    return Ok(());
                }
                // It may be smaller than the topic's limit, and was sent as one with others.
                waiting.taught += 1;
                self.waiting.push_front(waiting);
                self.producer.learn(bytes, limit).await?;
                self.lessons += 1;
            }
            Err(error) => {
                self.done.left.push(waiting.letter.id);
                return Err(error);
            }
        }
        Ok(())
    }
}
