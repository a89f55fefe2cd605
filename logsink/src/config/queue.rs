//! How much memory waiting events get, and what happens when it is spent.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::Deserialize;
use tracing_core::LevelFilter;

use super::{refuse, within};
use crate::{ConfigError, Severity, queue, queue::Levels, worker::Bounds};

/// Memory for events that wait, between the application's threads and the sinks.
///
/// ```toml
/// [queue]
/// bytes_max = 67108864
/// overflow = "drop_oldest"
/// protect = "error"
///
/// [queue.level]
/// error = "block"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Queue {
    /// Bytes of memory for events that wait. Default 64 MiB: about half a million events of 120 bytes, some seconds of a busy
    /// service's log while its sink restarts. Half of it is the chunks that threads write to (64 KiB each: a thread that logs
    /// holds one), an eighth the reserve of `protect`, and the rest the batches that wait, shared equally by the sinks.
    pub bytes_max: usize,
    /// What happens when it is spent. Default: `drop_newest`.
    pub overflow: Overflow,
    /// How long an event may wait for room where the policy is `block`, in milliseconds; then it is dropped and counted.
    /// Default 1,000.
    pub block_ms_max: u64,
    /// Events at this level and above have a reserve when others are dropped. Default: `error`; `off` for none.
    pub protect: Threshold,
    /// Another policy for single levels, `drop_newest` or `block`: `{ error = "block" }` lets errors wait while the rest is
    /// dropped. Such a level may use the reserve, too.
    pub level: BTreeMap<Level, LevelOverflow>,
}

/// What happens when the memory for events is spent. What is dropped is counted by level as `queue_full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// New events are dropped: the beginning of a trouble is kept.
    DropNewest,
    /// The oldest batch is dropped for the newest: the end of a trouble is kept. (A thread that is faster than the worker still
    /// drops its newest.)
    DropOldest,
    /// The thread that emits an event waits for room, up to `block_ms_max`; then its event is dropped. In an async runtime the
    /// thread that waits is one of the runtime's.
    Block,
    /// What the sink does not take in time goes to a spool on disk, and to the sink from there, in order; a flush then ends when
    /// everything is sent or durable. See [`Spool`](super::Spool). (A thread that is faster than the worker still drops its
    /// newest.)
    Spill,
}

/// What happens to events of one level when the memory is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelOverflow {
    /// They are dropped.
    DropNewest,
    /// They wait, see [`Overflow::Block`].
    Block,
}

/// One of the levels of `tracing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// A least level, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Threshold {
    Off,
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
            overflow: Overflow::DropNewest,
            block_ms_max: 1_000,
            protect: Threshold::Error,
            level: BTreeMap::new(),
        }
    }
}

/// Below this the queue's chunks of 64 KiB do not go round between the threads.
const BYTES_MIN: usize = 1 << 20;
/// Longer than this a thread that waits looks like one that hangs.
const BLOCK_MS_MAX: u64 = 60_000;
/// Of the bytes, what the threads' chunks get.
const CHUNKS_FRACTION: usize = 2;
/// Of the bytes, what the reserve gets on either side of the pump.
const RESERVE_FRACTION: usize = 16;

impl Queue {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("queue.bytes_max", self.bytes_max, BYTES_MIN, usize::MAX)?;
        within("queue.block_ms_max", self.block_ms_max, 1, BLOCK_MS_MAX)?;
        for (level, overflow) in &self.level {
            let same = match overflow {
                LevelOverflow::Block => self.overflow == Overflow::Block,
                LevelOverflow::DropNewest => self.overflow != Overflow::Block,
            };
            if same {
                let problem =
                    "says what `queue.overflow` says already: leave it out, or name the other of drop_newest and block";
                return refuse(&format!("queue.level.{level}"), problem);
            }
        }
        Ok(())
    }

    /// The threads' end.
    pub(crate) fn channel(&self) -> queue::Settings {
        queue::Settings {
            bytes_max: self.bytes_max / CHUNKS_FRACTION,
            reserve_bytes: self.reserve_bytes(),
            levels: Levels::new(|level| self.keeps(level), |level| self.blocks(level)),
            wait_max: Duration::from_millis(self.block_ms_max),
        }
    }

    /// One of `lanes` lanes.
    pub(crate) fn bounds(&self, overflow: Overflow, lanes: usize) -> Bounds {
        let all = self.bytes_max - self.bytes_max / CHUNKS_FRACTION - 2 * self.bytes_max / RESERVE_FRACTION;
        // Where all levels wait, the batch has waited already when its protected records come to the reserve.
        let waits = |level| overflow != Overflow::Block && self.blocks(level);
        Bounds {
            bytes_max: all / lanes,
            reserve_bytes: self.reserve_bytes() / lanes,
            overflow,
            wait_max: Duration::from_millis(self.block_ms_max),
            levels: Levels::new(|level| self.keeps(level) || waits(level), waits),
        }
    }

    fn reserve_bytes(&self) -> usize {
        self.bytes_max / RESERVE_FRACTION
    }

    fn keeps(&self, level: Severity) -> bool {
        let least = match self.protect {
            Threshold::Off => return false,
            Threshold::Trace => Severity::TRACE,
            Threshold::Debug => Severity::DEBUG,
            Threshold::Info => Severity::INFO,
            Threshold::Warn => Severity::WARN,
            Threshold::Error => Severity::ERROR,
        };
        level >= least
    }

    fn blocks(&self, level: Severity) -> bool {
        let named = match level {
            Severity::TRACE => Level::Trace,
            Severity::DEBUG => Level::Debug,
            Severity::INFO => Level::Info,
            Severity::WARN => Level::Warn,
            // `fatal` is what only a rule makes of an event.
            _ => Level::Error,
        };
        match self.level.get(&named) {
            Some(overflow) => *overflow == LevelOverflow::Block,
            None => self.overflow == Overflow::Block,
        }
    }
}

impl Threshold {
    /// The same for `tracing`.
    pub(crate) fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Reads one of the names that a TOML file takes.
pub(super) fn named<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    T::deserialize(toml::Value::from(text)).ok()
}

impl FromStr for Overflow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text).ok_or_else(|| format!("`{text}` is not known: write drop_newest, drop_oldest, block or spill"))
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text).ok_or_else(|| format!("`{text}` is not known: write off, error, warn, info, debug or trace"))
    }
}
