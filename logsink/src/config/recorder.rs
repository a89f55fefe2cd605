//! Settings of the flight recorder.

use serde::Deserialize;

use super::{refuse, within};
use crate::{
    ConfigError, Severity,
    filter::{recording::Recording, rules::Document},
    queue::CHUNK_BYTES,
    recorder::SEGMENTS_MIN,
};

/// The flight recorder: keeps events that the rules do not let pass, and sends those of a span tree in which something
/// goes wrong. Off unless it has a filter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Recorder {
    /// Which events are kept, in `EnvFilter` directive syntax without spans: `debug,hyper=info`. Default: none, the recorder
    /// is off.
    pub filter: Option<String>,
    /// Events of this level and above, when they are sent, make the recorder send what it has kept of their span tree.
    /// Default `error`.
    pub trigger: String,
    /// Bytes of memory for all threads together; threads beyond it are not recorded. Default 16 MiB: 64 threads.
    pub bytes_max: usize,
    /// Bytes of memory for each thread, in steps of 64 KiB. Default 256 KiB: some 700 events.
    pub ring_bytes: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { filter: None, trigger: "error".to_owned(), bytes_max: 16 << 20, ring_bytes: 256 << 10 }
    }
}

/// What is larger is read too slowly to be read at all while its thread goes on.
const RING_BYTES_MAX: usize = 16 << 20;

impl Recorder {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("recorder.ring_bytes", self.ring_bytes, SEGMENTS_MIN * CHUNK_BYTES, RING_BYTES_MAX)?;
        within("recorder.bytes_max", self.bytes_max, self.ring_bytes, usize::MAX)?;
        self.recording().map(drop)
    }

    /// What is to be recorded; `None` when nothing is.
    pub(crate) fn recording(&self) -> Result<Option<Recording>, ConfigError> {
        let trigger = match self.trigger.parse::<Severity>() {
            Ok(trigger) => trigger,
            Err(message) => return refuse("recorder.trigger", &message),
        };
        let Some(directives) = self.filter.as_deref().filter(|filter| !filter.trim().is_empty()) else {
            return Ok(None);
        };
        match Document::of_filter(directives) {
            Ok(Document { filter: Some(filter), .. }) => Ok(Some(Recording { filter, trigger })),
            Ok(_) => Ok(None),
            Err(error) => {
                let hint = error.hint.map(|hint| format!(": {hint}")).unwrap_or_default();
                refuse("recorder.filter", &format!("{}{hint}", error.message))
            }
        }
    }
}
