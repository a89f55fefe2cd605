//! The client, and the messages that lie in its memory.
//!
//! A copy of each message would cost a tenth of a drain's processor time, most of it for bytes that go from one processor's cache to
//! another's and back. So messages stay where librdkafka has received them, and hold on to the client.
//!
//! What they hold beside themselves is the rest of the answer that they came in (`fetch.max.bytes`, or one batch when it was
//! compressed), until the last of its messages is gone. Messages are read and written in order, so that is an answer or two; a write
//! that does not end while those after it do may hold two by itself, and no more writes than `[drain] concurrency` are under way.

#![allow(unsafe_code, reason = "messages that live as long as they hold their client; see SAFETY")]

use std::{
    mem,
    ops::Deref,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{ClientConfig, Message as _, consumer::BaseConsumer, message::BorrowedMessage};

use super::{Shared, rebalance::Context};
use crate::queue::{QueueError, kafka::config_error};

/// A smaller payload is copied: that costs less than to hold it, and holds nothing else.
const BORROWED_BYTES_MIN: usize = 4 << 10;
/// How long the end of a client waits for messages that are still somewhere.
const END_WAIT: Duration = Duration::from_secs(1);
/// Between two looks whether they are gone.
const LOOK: Duration = Duration::from_millis(5);
/// How long a poll waits for the next step of leaving the group.
const POLL: Duration = Duration::from_millis(100);

/// A member of a consumer group. It lives as long as anybody has one of its messages.
pub(super) struct Client(Option<BaseConsumer<Context>>);

impl Client {
    pub(super) fn connect(shared: &Arc<Shared>, config: &ClientConfig) -> Result<Arc<Self>, QueueError> {
        let consumer = config.create_with_context(Context::new(Arc::clone(shared))).map_err(config_error)?;
        Ok(Arc::new(Self(Some(consumer))))
    }

    /// Leaves the group, and waits for that. Messages that were read stay what they are.
    pub(super) fn leave(&self) {
        if let Err(error) = self.close_queue() {
            tracing::debug!(%error, "the Kafka client has left its group already");
            return;
        }
        while !self.closed() {
            // What it reads now is the next member's.
            self.poll(POLL);
        }
    }

    /// Ends the client: here when nobody has a message of it any more, else with the last of them.
    pub(super) fn end(mut self: Arc<Self>) {
        self.leave();
        let start = Instant::now();
        loop {
            match Arc::try_unwrap(self) {
                Ok(mut client) => return drop(client.0.take()),
                Err(held) if start.elapsed() < END_WAIT => self = held,
                Err(held) => return drop(held),
            }
            thread::sleep(LOOK);
        }
    }
}

impl Deref for Client {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("a client has its consumer until it is dropped")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        // The last who had a message may be a task: it must not wait for the client's threads to end.
        if let Err(error) = thread::Builder::new().name("logsink-kafka-end".into()).spawn(move || drop(consumer)) {
            tracing::warn!(%error, "no thread for the end of a Kafka client: it ended where it was");
        }
    }
}

/// The payload of a message that `client` has read, without a copy if it is large. A tombstone has none: it is a request without
/// records.
pub(super) fn payload(client: &Arc<Client>, message: BorrowedMessage<'_>) -> Bytes {
    let bytes = message.payload().unwrap_or_default();
    if bytes.len() < BORROWED_BYTES_MIN {
        return Bytes::copy_from_slice(bytes);
    }
    // SAFETY: a message may be used as long as its client is there. `Payload` holds the client, and drops it after the message.
    let message = unsafe { mem::transmute::<BorrowedMessage<'_>, BorrowedMessage<'static>>(message) };
    Bytes::from_owner(Payload { message, _client: Arc::clone(client) })
}

/// The order of the fields is that in which they are dropped.
struct Payload {
    message: BorrowedMessage<'static>,
    _client: Arc<Client>,
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.message.payload().unwrap_or_default()
    }
}
