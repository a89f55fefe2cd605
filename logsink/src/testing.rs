//! For tests of applications: [`capture`] gives a test its own events to assert on.
//!
//! ```
//! use tracing::Level;
//!
//! let capture = logsink::testing::capture();
//! tracing::info_span!("checkout", user = "alice").in_scope(|| tracing::warn!(items = 3, "cart is full"));
//! capture.assert_logged(Level::WARN, "cart is full");
//! let event = &capture.events()[0];
//! assert_eq!(event.text("user"), "alice");
//! assert_eq!(event.get("items"), Some(&3.into()));
//! assert_eq!(event.spans, ["checkout"]);
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_core::{
    Dispatch, Level,
    dispatcher::{self, DefaultGuard},
};
use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::{
    LogsinkLayer,
    callsite::name,
    encode::view::RecordView,
    filter::{
        self, EventView,
        rules::{Document, RuleSet},
    },
    layer,
    metrics::Metrics,
    queue::{self, Consumer},
    reload::Reload,
};

/// Some 100,000 events between two looks at them; the system gives memory only to what is used.
const BYTES_MAX: usize = 16 << 20;

/// What separates the names in `span.path`.
const PATH_SEPARATOR: char = ':';

/// From here until the returned value is dropped, the events of the calling thread are kept for the test, of all levels, and
/// encoded as they would be for a sink. Records of the `log` crate too, unless the test's process has another logger.
///
/// Tests that run in parallel have a thread each and see their own events only. In an async test this covers what is polled on
/// its thread, across `.await`: all of it under `#[tokio::test]`. A thread or a task elsewhere is given [`Captured::dispatch`]:
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(async {
/// use tracing::{Level, instrument::WithSubscriber};
///
/// let capture = logsink::testing::capture();
/// let task = async { tracing::info!("in a task") };
/// tokio::spawn(task.with_subscriber(capture.dispatch())).await.unwrap();
/// let dispatch = capture.dispatch();
/// let thread = move || tracing::dispatcher::with_default(&dispatch, || tracing::info!("on a thread"));
/// std::thread::spawn(thread).join().unwrap();
/// assert_eq!(capture.events().len(), 2);
/// # });
/// ```
pub fn capture() -> Captured {
    #[cfg(feature = "log")]
    {
        // The process's other tests may have done it, or have a logger of their own.
        let _ = crate::install_log_bridge();
        log::set_max_level(log::LevelFilter::Trace);
    }
    let rules = Document::parse("filter = \"trace\"").and_then(|document| RuleSet::compile(&[document], ""));
    let Ok(rules) = rules else { unreachable!("a level alone is a filter") };
    let (producer, consumer) = queue::channel(BYTES_MAX);
    let metrics = Arc::new(Metrics::new());
    let layer = LogsinkLayer::new(producer, Reload::new(rules), metrics.clone(), layer::Capture::default());
    let dispatch = Dispatch::new(Registry::default().with(layer.sole()));
    let scope = dispatcher::set_default(&dispatch);
    Captured { kept: Mutex::new(Kept { consumer, events: Vec::new() }), metrics, dispatch, _scope: scope }
}

/// The events of a test. See [`capture`].
#[must_use = "events are captured until it is dropped: bind it to a name"]
pub struct Captured {
    kept: Mutex<Kept>,
    metrics: Arc<Metrics>,
    dispatch: Dispatch,
    _scope: DefaultGuard,
}

struct Kept {
    consumer: Consumer,
    events: Vec<Event>,
}

/// An event as it would be sent.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Its level.
    pub level: Level,
    /// Its target: the module, unless it names another.
    pub target: String,
    /// Its message; empty when it has none.
    pub message: String,
    /// Its own fields and those of the spans around it, which an own one of the same name hides, in the order in which they are
    /// sent.
    pub fields: Vec<(String, Value)>,
    /// The names of the spans around it, the outermost first.
    pub spans: Vec<String>,
    /// Where it was written.
    pub file: Option<String>,
    /// Where it was written.
    pub line: Option<u32>,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Text, also what was formatted by `Debug` or `Display`; bytes in base64.
    Text(String),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// `true` or `false`.
    Bool(bool),
}

impl Captured {
    /// The events so far.
    ///
    /// # Panics
    /// When events were lost, since a test that looks at them would be wrong: more than 16 MiB of them between two calls, or
    /// one whose values panicked.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        // Whole also after an assertion of the test has failed.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { consumer, events } = &mut *kept;
        consumer.drain(&mut |run| events.extend(queue::records(run).map(Event::read)));
        let lost = self.metrics.snapshot();
        assert!(lost.lost() == 0, "events were lost: {lost}");
        events.clone()
    }

    /// Whether there is an event of this level with `text` in its message.
    ///
    /// # Panics
    /// As [`Captured::events`].
    #[track_caller]
    pub fn has_logged(&self, level: Level, text: &str) -> bool {
        self.events().iter().any(|event| event.level == level && event.message.contains(text))
    }

    /// Expects an event of this level with `text` in its message.
    ///
    /// # Panics
    /// When there is none, with a list of those that there are; and as [`Captured::events`].
    #[track_caller]
    pub fn assert_logged(&self, level: Level, text: &str) {
        assert!(self.has_logged(level, text), "no event {level} with {text:?} in its message, but:\n{self:?}");
    }

    /// Expects no such event.
    ///
    /// # Panics
    /// When there is one; and as [`Captured::events`].
    #[track_caller]
    pub fn assert_not_logged(&self, level: Level, text: &str) {
        assert!(!self.has_logged(level, text), "an event {level} with {text:?} in its message, among:\n{self:?}");
    }

    /// The subscriber, for threads and tasks that are not polled on the test's thread.
    pub fn dispatch(&self) -> Dispatch {
        self.dispatch.clone()
    }
}

/// One event a line.
impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events().iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl Event {
    /// A field's value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text of a field.
    ///
    /// # Panics
    /// When there is no such field, or it is no text.
    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Value::Text(text)) => text,
            other => panic!("the field {key} is {other:?} in {self}"),
        }
    }

    fn read(record: &[u8]) -> Self {
        let view = RecordView::new(record, "", crate::Severity::UNSPECIFIED);
        let mut event = Self {
            level: level(view.number()),
            target: view.target().to_owned(),
            message: view.message().into_owned(),
            fields: Vec::new(),
            spans: Vec::new(),
            file: None,
            line: None,
        };
        for (key, value) in view.attributes() {
            match (&*key, Value::from(value)) {
                (name::TARGET | name::MODULE | name::THREAD_NAME | name::THREAD_ID | name::SPAN_NAME, _) => {}
                (name::FILE, Value::Text(file)) => event.file = Some(file),
                (name::LINE, Value::Int(line)) => event.line = u32::try_from(line).ok(),
                (name::SPAN_PATH, Value::Text(path)) => {
                    event.spans = path.split(PATH_SEPARATOR).map(str::to_owned).collect();
                }
                (_, value) => event.fields.push((key.into_owned(), value)),
            }
        }
        event
    }
}

/// `WARN shop::cart in checkout: cart is full items=3`
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level, self.target)?;
        if !self.spans.is_empty() {
            write!(f, " in {}", self.spans.join(":"))?;
        }
        write!(f, ": {}", self.message)?;
        self.fields.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Bool(truth) => write!(f, "{truth}"),
        }
    }
}

impl From<filter::Value<'_>> for Value {
    fn from(value: filter::Value<'_>) -> Self {
        match value {
            filter::Value::Text(text) => Self::Text(text.into_owned()),
            filter::Value::Int(number) => Self::Int(number),
            filter::Value::Double(number) => Self::Double(number),
            filter::Value::Bool(truth) => Self::Bool(truth),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

/// The level of a severity number that this library has written.
fn level(number: u8) -> Level {
    match number {
        0..=4 => Level::TRACE,
        5..=8 => Level::DEBUG,
        9..=12 => Level::INFO,
        13..=16 => Level::WARN,
        _ => Level::ERROR,
    }
}

#[cfg(test)]
mod tests;
