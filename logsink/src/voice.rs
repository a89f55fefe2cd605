//! What the library has to say of itself goes to stderr, a line at a time: a logger cannot speak of its own trouble through
//! itself.

pub(crate) mod diagnostics;

use std::fmt;

/// Writes one line to stderr.
pub(crate) fn say(line: impl fmt::Display) {
    write(format!("logsink: {line}\n").as_bytes());
}

/// In one piece, so that lines do not mix. Not `eprintln!`, which panics when stderr is a pipe that nobody reads; nor through
/// the standard library's lock, which another thread may have held when this process was forked.
#[cfg(unix)]
fn write(line: &[u8]) {
    use std::{io::Write, mem::ManuallyDrop, os::fd::FromRawFd};
    // SAFETY: the descriptor is only written to, and not closed. Where the process has closed it, the write fails.
    let stderr = unsafe { std::fs::File::from_raw_fd(libc::STDERR_FILENO) };
    let _ = ManuallyDrop::new(stderr).write_all(line);
}

#[cfg(not(unix))]
fn write(line: &[u8]) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(line);
}
