//! The client that asks the brokers about topics, and makes them: for one question, and then it ends.

use std::{ops::Deref, thread};

use rdkafka::admin::AdminClient;

use super::{KafkaOptions, Logged, config_error};
use crate::queue::QueueError;

/// Ends beside the tasks: that takes as long as a poll of its thread and the end of librdkafka's, a tenth of a second or more.
pub(super) struct Admin(Option<AdminClient<Logged>>);

impl Admin {
    pub(super) fn connect(options: &KafkaOptions) -> Result<Self, QueueError> {
        options.client(&[]).create_with_context(Logged).map(|client| Self(Some(client))).map_err(config_error)
    }
}

impl Deref for Admin {
    type Target = AdminClient<Logged>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it has its client until it is dropped")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let client = self.0.take();
        if let Err(error) = thread::Builder::new().name("logsink-kafka-end".into()).spawn(move || drop(client)) {
            tracing::warn!(%error, "no thread for the end of a Kafka client: it ended where it was");
        }
    }
}
