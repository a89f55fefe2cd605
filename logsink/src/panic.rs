//! The panic hook: what is buffered when a thread panics is sent, and the panic itself becomes an event where that is asked for.
//!
//! It waits only where the process dies of the panic, which no handler of `exit` sees: with `panic = "abort"`, or for a panic
//! that cannot unwind (within a destructor during unwinding, or out of an `extern "C"` function). Any other panic ends a
//! task, a thread, or `main`, after which the process ends as it always does; then it is enough to have the events sent soon.

use std::{
    any::Any,
    backtrace::Backtrace,
    panic::PanicHookInfo,
    sync::{
        Once,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing_core::Level;

use crate::{
    Guard,
    encode::{cut, write_marker},
    exit,
    init::Pipeline,
    queue,
};

/// How long a process that dies of a panic waits for the sink: what an operator bears when everything else fails too.
const DEATH_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker pool whose tasks panic by the thousand asks for a flush this often at most.
const HURRY_INTERVAL_MS: u64 = 100;

/// A quarter of the largest record; some 100 frames.
const STACKTRACE_BYTES_MAX: usize = 16 << 10;

/// Longer messages are mostly somebody's whole data.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// What the standard library says when a panic cannot unwind.
const CANNOT_UNWIND: [&str; 2] = ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// Whether panics become events.
static REPORTS: AtomicBool = AtomicBool::new(false);

/// Adds a panic hook that has this pipeline's events sent when a thread panics. [`init`](crate::init) does it by itself unless
/// the setting `panic_hook` is off; this is for a guard of [`layer`](crate::layer()).
///
/// The hook that is there runs first. Where the process dies of the panic (`panic = "abort"`, or a panic that cannot unwind),
/// ours waits for the sink, two seconds at most; otherwise it waits for nothing, since the thread or task goes on unwinding and
/// the guard or the process's end sends the rest. It does nothing on the library's own threads and in a forked process.
/// A hook that is set later and does not call the present one takes its place. Does nothing when called on a panicking thread,
/// which may not set hooks.
///
/// ```no_run
/// # use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};
/// let (layer, guard) = logsink::layer()?;
/// tracing_subscriber::registry().with(layer).init();
/// logsink::install_panic_hook(&guard);
/// # Ok::<(), logsink::InitError>(())
/// ```
pub fn install_panic_hook(guard: &Guard) {
    install(guard.pipeline(), false);
}

/// The same; with `report` panics also become events.
pub(crate) fn install(pipeline: &Pipeline, report: bool) {
    if thread::panicking() {
        return;
    }
    pipeline.set_flushed_by_panics();
    REPORTS.fetch_or(report, Relaxed);
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            previous(info);
            after_panic(info);
        }));
    });
}

fn after_panic(info: &PanicHookInfo<'_>) {
    // Waiting for ourselves would never end, and an event about our own trouble would make more of it. The worker says that
    // its thread panicked.
    if queue::is_own_thread() {
        return;
    }
    if REPORTS.load(Relaxed) {
        report(info);
    }
    if is_death(info) {
        let deadline = Instant::now() + DEATH_TIMEOUT;
        for pipeline in concerned() {
            pipeline.flush(deadline.saturating_duration_since(Instant::now()));
        }
    } else if is_time_to_hurry() {
        concerned().for_each(|pipeline| pipeline.hurry());
    }
}

fn concerned() -> impl Iterator<Item = std::sync::Arc<Pipeline>> {
    exit::pipelines().into_iter().filter(|pipeline| pipeline.is_flushed_by_panics())
}

/// Whether the process ends right after the hook.
fn is_death(info: &PanicHookInfo<'_>) -> bool {
    // `PanicHookInfo::can_unwind` says it, but is not stable.
    cfg!(panic = "abort") || CANNOT_UNWIND.contains(&message(info.payload()))
}

fn is_time_to_hurry() -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let last = LAST.load(Relaxed);
    now.abs_diff(last) >= HURRY_INTERVAL_MS && LAST.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
}

/// Logs the panic as the panicking thread's event, so that it has the fields and the trace of the span it happened in.
fn report(info: &PanicHookInfo<'_>) {
    let message = shortened(message(info.payload()), MESSAGE_BYTES_MAX);
    let stacktrace = shortened(&Backtrace::force_capture().to_string(), STACKTRACE_BYTES_MAX);
    let thread = thread::current();
    let thread = thread.name().unwrap_or("<unnamed>");
    let (file, line) = info.location().map_or(("", 0), |location| (location.file(), location.line()));
    tracing::event!(
        target: "panic",
        Level::ERROR,
        {
            "exception.type" = "panic",
            "exception.message" = message,
            "exception.stacktrace" = stacktrace,
            "code.file.path" = file,
            "code.line.number" = line,
            "thread.name" = thread
        },
        "thread '{thread}' panicked at {file}:{line}: {message}"
    );
}

/// What was panicked with, if it is text.
fn message(payload: &dyn Any) -> &str {
    match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "Box<dyn Any>",
    }
}

fn shortened(text: &str, bytes_max: usize) -> String {
    let mut short = cut(text, bytes_max).to_owned();
    let missing = text.len() - short.len();
    if missing > 0 {
        // Writing to a `String` does not fail.
        let _ = write_marker(&mut short, missing);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character_and_marked() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("a€b", 3), "a…[truncated, 4 bytes]");
    }

    #[test]
    fn a_payload_that_is_no_text_has_a_name() {
        assert_eq!(message(&"text"), "text");
        assert_eq!(message(&"text".to_owned()), "text");
        assert_eq!(message(&5), "Box<dyn Any>");
    }
}
