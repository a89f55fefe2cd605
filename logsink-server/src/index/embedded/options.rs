//! How the store keeps events: plain data.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::queue::DeadLetters;

/// How the store keeps events.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Its directory; made when it is not there.
    pub dir: PathBuf,
    /// Events older than this are deleted, a block at a time. Default: none are.
    pub retention_age: Option<Duration>,
    /// The bytes that blocks may take on disk; above it the oldest are deleted. Default: no limit.
    pub retention_bytes: Option<u64>,
    /// Events in a block. Default 65,536: measured to be the best between the cost of opening a block and that of reading it.
    pub block_rows: usize,
    /// Bytes that a block's messages take in the log, which bounds the memory of the open block and what the log has to keep
    /// for it. Default 64 MiB: twice what 65,536 ordinary events have.
    pub block_bytes: usize,
    /// A block is published when its first message came in this long ago. Default one hour: it bounds how far behind the
    /// files are for those who read them with other programs, and what a restart has to read again, at 24 blocks a day.
    pub block_age: Duration,
    /// Where messages go that are not OTLP. Default: nowhere, and such a message is an error that stops the line.
    pub dead_letters: Option<Arc<dyn DeadLetters>>,
}

impl EmbeddedOptions {
    /// The defaults, in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention_age: None,
            retention_bytes: None,
            block_rows: 65_536,
            block_bytes: 64 << 20,
            block_age: Duration::from_secs(3600),
            dead_letters: None,
        }
    }
}

impl fmt::Debug for EmbeddedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedOptions").field("dir", &self.dir).finish_non_exhaustive()
    }
}
