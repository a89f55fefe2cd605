//! What the library has to say of itself goes to stderr, a line at a time: a logger cannot speak of its own trouble through
//! itself.

use std::{fmt, io::Write};

/// Writes one line to stderr.
pub(crate) fn say(line: impl fmt::Display) {
    // Not `eprintln!`, which panics when stderr is a pipe that nobody reads. In one piece, so that lines do not mix.
    let _ = std::io::stderr().write_all(format!("logsink: {line}\n").as_bytes());
}
