//! What the library's own threads and the clients on them log, on stderr, for whoever looks into trouble with the sink.
//!
//! It never becomes an event of the application. On those threads a subscriber of its own stands before the application's, so
//! that the level asked for here changes nothing anywhere else. Off by default.

use std::{
    fmt::{self, Write as _},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tracing_core::{
    Dispatch, Event, Level, LevelFilter, Metadata, Subscriber, callsite, dispatcher, field, span, subscriber::Interest,
};

use crate::encode::cut;

/// A connection that fails at TRACE says thousands of lines a second; a terminal and a container's log can bear these.
const LINES_MAX: u32 = 100;
const LINES_INTERVAL: Duration = Duration::from_secs(1);

/// A line is no place for a whole HTTP/2 frame.
const LINE_BYTES_MAX: usize = 1024;

/// As `rank` has it; the most verbose that any pipeline of the process was told.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// From here on, threads that call [`listen`] say what is logged on them at this level or above.
pub(crate) fn set(level: LevelFilter) {
    let rank = level.into_level().map_or(0, |level| rank(&level));
    if LEVEL.fetch_max(rank, Relaxed) < rank {
        callsite::rebuild_interest_cache();
    }
}

/// Whether a line of this level is wanted.
pub(crate) fn wants(level: &Level) -> bool {
    rank(level) <= LEVEL.load(Relaxed)
}

/// Says what is logged on the calling thread until it ends, if that is wanted.
pub(crate) fn listen() {
    static LISTENER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Listener));
    if LEVEL.load(Relaxed) > 0 {
        // Not to be undone: the thread does nothing else.
        std::mem::forget(dispatcher::set_default(&LISTENER));
    }
}

/// One line, if that level is wanted and there were not too many.
pub(crate) fn say(level: &Level, target: &str, message: impl fmt::Display) {
    if !wants(level) {
        return;
    }
    let mut line = Line(String::new());
    // A line that is full takes no more.
    let _ = write!(line, "[{level} {target}] {message}");
    static BUDGET: Mutex<Budget> = Mutex::new(Budget { since: None, lines: 0, left_out: 0 });
    let budget = BUDGET.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
    if let Some(left_out) = budget {
        if left_out > 0 {
            super::say(format_args!("[{left_out} lines left out]"));
        }
        super::say(line.0);
    }
}

/// How many lines may still be said.
struct Budget {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Budget {
    /// Asks for a line; with it goes the number of those that were refused before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= LINES_INTERVAL) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

fn rank(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// The subscriber of the library's own threads.
struct Listener;

impl Subscriber for Listener {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        if meta.is_event() && wants(meta.level()) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        meta.is_event() && wants(meta.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE]
            .into_iter()
            .rfind(wants)
            .map(LevelFilter::from)
            .or(Some(LevelFilter::OFF))
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        say(event.metadata().level(), event.metadata().target(), fields.0);
    }

    // Spans are not wanted; whoever makes one all the same gets one and the same.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// `message key=value …`
struct Fields(String);

impl field::Visit for Fields {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a `String` does not fail, and a `Debug` that does has written what it could.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }
}

/// One line of bounded length: line ends within it are shown as spaces.
struct Line(String);

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_BYTES_MAX.saturating_sub(self.0.len());
        let fitting = cut(text, room);
        self.0.extend(fitting.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
        if fitting.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_told() {
        let start = Instant::now();
        let mut budget = Budget { since: None, lines: 0, left_out: 0 };
        for _ in 0..LINES_MAX {
            assert_eq!(budget.take(start), Some(0));
        }
        assert_eq!(budget.take(start), None);
        assert_eq!(budget.take(start + LINES_INTERVAL / 2), None);
        assert_eq!(budget.take(start + LINES_INTERVAL), Some(2));
        assert_eq!(budget.take(start + LINES_INTERVAL), Some(0));
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        let mut line = Line(String::new());
        write!(line, "a\nb").unwrap();
        assert_eq!(line.0, "a b");
        write!(line, "{}", "€".repeat(LINE_BYTES_MAX)).unwrap_err();
        assert!(line.0.len() <= LINE_BYTES_MAX && line.0.len() > LINE_BYTES_MAX - 3);
    }
}
