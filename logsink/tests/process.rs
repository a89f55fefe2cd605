//! Programs that end in many ways: what they have logged arrives, and none of them hangs.
//!
//! Each story runs a program in a process of its own, on the main thread of that process: thread-local destructors of the main
//! thread, `atexit` handlers, signals and forks are what is looked at. So this binary has a `main` of its own, which is the
//! list of stories or, where a variable names it, the program.

#[cfg(unix)]
#[path = "process/diagnostics.rs"]
mod diagnostics;
#[cfg(unix)]
#[path = "process/exit.rs"]
mod exit;
#[cfg(unix)]
#[path = "process/forks.rs"]
mod forks;
#[cfg(unix)]
#[path = "support/otlp_server.rs"]
mod otlp_server;
#[cfg(unix)]
#[path = "process/panics.rs"]
mod panics;
#[cfg(unix)]
#[path = "process/program.rs"]
mod program;
#[cfg(all(unix, feature = "log"))]
#[path = "process/records.rs"]
mod records;
#[cfg(unix)]
#[path = "process/signals.rs"]
mod signals;

#[cfg(unix)]
fn main() {
    program::main(
        &[
            exit::STORIES,
            forks::STORIES,
            panics::STORIES,
            signals::STORIES,
            diagnostics::STORIES,
            #[cfg(feature = "log")]
            records::STORIES,
        ],
        &[
            exit::PROGRAMS,
            forks::PROGRAMS,
            panics::PROGRAMS,
            signals::PROGRAMS,
            diagnostics::PROGRAMS,
            #[cfg(feature = "log")]
            records::PROGRAMS,
        ],
    );
}

#[cfg(not(unix))]
fn main() {}
