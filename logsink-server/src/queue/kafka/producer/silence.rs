//! Tells a client that does not work from brokers that do not.
//!
//! librdkafka gives a producer up for good when it cannot promise idempotence any more, such as after the brokers have lost what
//! they knew of it, and says so. Or it stays without brokers though they are there, or with them and sends nothing
//! (librdkafka#5301), and says nothing. That is told by a fresh client that is answered ([`probe`]) while the old one is not, or
//! is and yet gets a message not acknowledged that was sent after that. What was under way in the old one fails: senders repeat
//! what was not acknowledged, and the index knows repeats.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{Current, Inner, Producer, client::Client};
use crate::queue::{
    QueueError,
    kafka::{config_error, probe},
};

/// How long a client may be without an answer before a fresh one is asked.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Between two questions to fresh clients.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// What a client may take that has to connect again: `reconnect.backoff.max.ms` and the connection itself.
const SECOND_CHANCE: Duration = Duration::from_secs(3);

/// What the client did not hear.
#[derive(Default)]
pub(super) struct Silence {
    state: Mutex<State>,
    /// A fresh client is being asked, or was within [`PROBE_EVERY`].
    probing: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Since when nothing was answered; none while all is well.
    since: Option<Instant>,
    /// When the client was found to hear the brokers though messages were not acknowledged.
    doubted: Option<Instant>,
}

impl Silence {
    /// The brokers have told something: they are heard.
    pub(super) fn told(&self) {
        self.state().since = None;
    }

    /// They have a message: all is well.
    pub(super) fn acknowledged(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer {
    /// The client has waited in vain, for the answer to a message that was `sent` then or to a question; when nothing was heard
    /// for long, a fresh one is asked.
    pub(super) fn unheard(&self, waited: Duration, sent: Option<Instant>) {
        let silence = &self.0.silence;
        let (silent, is_doubted) = {
            let mut state = silence.state();
            let now = Instant::now();
            let since = *state.since.get_or_insert_with(|| now.checked_sub(waited).unwrap_or(now));
            let is_doubted = state.doubted.zip(sent).is_some_and(|(doubted, sent)| sent > doubted);
            (now.duration_since(since), is_doubted)
        };
        if silent < SILENCE_MAX && !is_doubted || silence.probing.swap(true, Relaxed) {
            return;
        }
        let inner = Arc::clone(&self.0);
        // It ends by itself, within the time-outs of its questions.
        drop(tokio::spawn(async move {
            let asking = Arc::clone(&inner);
            let asked = spawn_blocking(move || asking.probe(silent, is_doubted)).await;
            if let Ok(Err(error)) = asked {
                tracing::error!(%error, "cannot replace the Kafka producer");
            }
            sleep(PROBE_EVERY).await;
            inner.silence.probing.store(false, Relaxed);
        }));
    }
}

impl Inner {
    /// Replaces the client when a fresh one is answered and this one is not, or had its second chance. Blocks.
    fn probe(&self, silent: Duration, is_doubted: bool) -> Result<(), QueueError> {
        let (config, client) = {
            let current = self.current();
            (current.config.clone(), current.client.clone())
        };
        if !probe::answers(&config, &self.topic.options.topic) {
            return Ok(());
        }
        if is_doubted {
            let reason = "it hears the brokers and no message is acknowledged, and a fresh client hears them too";
            return self.replace(&mut self.current(), reason);
        }
        let asked = client.inner().fetch_metadata(None, SECOND_CHANCE);
        drop(client);
        if asked.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
            *self.silence.state() = State { since: None, doubted: Some(Instant::now()) };
            return Ok(());
        }
        let reason = format!("no broker has answered it for {silent:.0?}, and a fresh client is answered");
        self.replace(&mut self.current(), &reason)
    }

    /// Goes on with a new client. Who waits for the old one is told to send again.
    pub(super) fn replace(&self, current: &mut Current, reason: &str) -> Result<(), QueueError> {
        let topic = &self.topic.options.topic;
        tracing::error!(topic, reason, "the Kafka producer does not work: going on with a new one");
        self.metrics.kafka_replaced("producer");
        current.renew(topic)?;
        *self.silence.state() = State::default();
        Ok(())
    }
}

impl Current {
    /// Puts a new client in the place of the old, with these settings; the old one ends when nobody has it any more.
    pub(super) fn renew(&mut self, topic: &str) -> Result<Client, QueueError> {
        let client = Client::new(&self.config, topic).map_err(config_error)?;
        client.set_partitions(self.client.partitions());
        Ok(std::mem::replace(&mut self.client, client))
    }
}
