//! Severity numbers of the OpenTelemetry log data model, and the six names people use for them.

use std::{fmt, str::FromStr};

/// A severity number, 1 to 24 (OpenTelemetry log data model, "Field: SeverityNumber"); 0 when the sender gave none.
///
/// Four numbers share a name: 9 to 12 are all `info`. A level name in an expression stands for its whole range, so
/// `level=info` matches 12 and `level>=warn` starts at 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Severity(pub u8);

impl Severity {
    /// The sender gave no severity.
    pub const UNSPECIFIED: Self = Self(0);
    /// 1
    pub const TRACE: Self = Self(1);
    /// 5
    pub const DEBUG: Self = Self(5);
    /// 9
    pub const INFO: Self = Self(9);
    /// 13
    pub const WARN: Self = Self(13);
    /// 17
    pub const ERROR: Self = Self(17);
    /// 21
    pub const FATAL: Self = Self(21);

    /// The first number of each level, least severe first.
    pub(crate) const LEVELS: [Self; 6] = [Self::TRACE, Self::DEBUG, Self::INFO, Self::WARN, Self::ERROR, Self::FATAL];

    /// The lower-case name of the range that the number is in; `unspecified` for 0 and for what is above 24.
    pub fn name(self) -> &'static str {
        match self.0 {
            1..=4 => "trace",
            5..=8 => "debug",
            9..=12 => "info",
            13..=16 => "warn",
            17..=20 => "error",
            21..=24 => "fatal",
            _ => "unspecified",
        }
    }

    /// The first number of this number's range: what `level` compares.
    pub fn floor(self) -> Self {
        match self.0 {
            n @ 1..=24 => Self((n - 1) / 4 * 4 + 1),
            _ => Self::UNSPECIFIED,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "trace" => Self::TRACE,
            "debug" => Self::DEBUG,
            "info" => Self::INFO,
            "warn" | "warning" => Self::WARN,
            "error" => Self::ERROR,
            "fatal" => Self::FATAL,
            _ => return Err(format!("unknown level `{text}`: write trace, debug, info, warn, error or fatal")),
        })
    }
}

impl From<&tracing_core::Level> for Severity {
    fn from(level: &tracing_core::Level) -> Self {
        match *level {
            tracing_core::Level::TRACE => Self::TRACE,
            tracing_core::Level::DEBUG => Self::DEBUG,
            tracing_core::Level::INFO => Self::INFO,
            tracing_core::Level::WARN => Self::WARN,
            tracing_core::Level::ERROR => Self::ERROR,
        }
    }
}

/// The level as a threshold of `tracing`, which knows nothing above `error`.
impl From<Severity> for tracing_core::LevelFilter {
    fn from(severity: Severity) -> Self {
        match severity.0 {
            0..=4 => Self::TRACE,
            5..=8 => Self::DEBUG,
            9..=12 => Self::INFO,
            13..=16 => Self::WARN,
            _ => Self::ERROR,
        }
    }
}
