//! Records of the `log` crate become events of `tracing`, with their true target, module, file and line, and with their
//! key-values as attributes.
//!
//! An event of `tracing` has the fields of its callsite, and all records of a level share one. So the key-values take another
//! way: they are encoded here and lie ready in a thread-local while the event is dispatched, and the layer appends them.

use std::{
    cell::RefCell,
    fmt, mem,
    sync::{Mutex, PoisonError},
};

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use tracing_log::AsTrace;

use crate::{
    callsite::name,
    encode::{Scalar, cut, event::EXCEPTION_MESSAGE, push_attribute, push_text, write_error, write_marker},
    queue,
    voice::diagnostics,
};

/// A value that is longer is cut and marked: records with key-values are copied once more than others.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// A key that is longer is cut.
const KEY_BYTES_MAX: usize = 256;

/// A quarter of a chunk, as the fields of spans have: what has no room is left out and counted.
const KEY_VALUES_BYTES_MAX: usize = 16 << 10;

/// The key-values of a record.
#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    /// Encoded attributes, no key twice.
    pub(crate) attributes: Vec<u8>,
    /// How many values there are, these and those left out.
    pub(crate) count: u32,
    /// Values that were cut.
    pub(crate) truncated: u32,
    /// Values that were left out.
    pub(crate) left_out: u32,
}

thread_local! {
    /// Of the record that this thread is dispatching.
    static CURRENT: RefCell<KeyValues> = RefCell::default();
}

/// Calls `append` with the key-values of the record that is being dispatched, when it has any.
pub(crate) fn with_current<R>(append: impl FnOnce(&KeyValues) -> R) -> Option<R> {
    // No record's values are formatted while this is borrowed; a thread that is ending has none.
    let append = |current: &RefCell<KeyValues>| {
        let current = current.try_borrow().ok()?;
        (current.count > 0).then(|| append(&current))
    };
    CURRENT.try_with(append).ok().flatten()
}

/// Sends the records of the `log` crate through `tracing`, to its current subscriber. [`init`](crate::init) does it by itself;
/// this is for a subscriber of your own with [`layer`](crate::layer()), in the place of `tracing_log::LogTracer`, which knows no
/// key-values. Sets `log`'s level to what `tracing` wants at this time; a rule that later wants more needs a
/// `log::set_max_level`.
///
/// Numbers, truth values, text and errors (with their sources) keep their type; all else is sent as it is displayed.
///
/// # Errors
/// When another logger is set; that it is this one already is no error.
pub fn install_log_bridge() -> Result<(), log::SetLoggerError> {
    static BRIDGE: Bridge = Bridge;
    static OURS: Mutex<bool> = Mutex::new(false);
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ours {
        log::set_logger(&BRIDGE)?;
        *ours = true;
    }
    follow_level();
    Ok(())
}

/// Records of `log` below every rule's level end at one load, as `tracing`'s do; the rules may move that level.
pub(crate) fn follow_level() {
    use log::LevelFilter as Log;
    use tracing_core::LevelFilter as Level;
    log::set_max_level(match Level::current() {
        Level::OFF => Log::Off,
        Level::ERROR => Log::Error,
        Level::WARN => Log::Warn,
        Level::INFO => Log::Info,
        Level::DEBUG => Log::Debug,
        Level::TRACE => Log::Trace,
    });
}

/// The process's logger.
#[derive(Debug)]
pub(crate) struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        if queue::is_own_thread() {
            return diagnostics::wants(&metadata.level().as_trace());
        }
        metadata.level().as_trace() <= tracing_core::LevelFilter::current()
            && tracing_core::dispatcher::get_default(|dispatch| dispatch.enabled(&metadata.as_trace()))
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if queue::is_own_thread() {
            return diagnostics::say(&record.level().as_trace(), record.target(), record.args());
        }
        let source = record.key_values();
        let mut encoder = Encoder::default();
        // A source that reports an error has still given what it could.
        let _ = source.visit(&mut encoder);
        // Also when there are none: this record may be made within another one, whose key-values are not its own.
        let outer = swap(encoder.done);
        let restore = Restore(Some(outer));
        // The event says nothing about its fate.
        let _ = tracing_log::format_trace(record);
        drop(restore);
    }

    fn flush(&self) {}
}

fn swap(values: KeyValues) -> KeyValues {
    CURRENT.try_with(|current| current.replace(values)).unwrap_or_default()
}

/// Puts the outer record's key-values back, also when formatting this one panics.
struct Restore(Option<KeyValues>);

impl Drop for Restore {
    fn drop(&mut self) {
        swap(self.0.take().unwrap_or_default());
    }
}

/// Encodes key-values as attributes.
#[derive(Default)]
struct Encoder {
    done: KeyValues,
    keys: Vec<String>,
}

impl<'kvs> VisitSource<'kvs> for Encoder {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.done.count += 1;
        let key = cut(key.as_str(), KEY_BYTES_MAX);
        // The record itself says these; and the first of a name counts, as with fields of `tracing`.
        let is_taken = [name::TARGET, name::FILE, name::LINE, name::MODULE].contains(&key);
        if is_taken || self.keys.iter().any(|known| known == key) {
            self.done.left_out += 1;
            return Ok(());
        }
        value.visit(ValueEncoder { encoder: self, key })
    }
}

struct ValueEncoder<'e, 'k> {
    encoder: &'e mut Encoder,
    key: &'k str,
}

impl ValueEncoder<'_, '_> {
    /// Adds one attribute, if it has room.
    fn push(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let KeyValues { attributes, left_out, .. } = &mut self.encoder.done;
        let start = attributes.len();
        write(attributes);
        if attributes.len() > KEY_VALUES_BYTES_MAX {
            attributes.truncate(start);
            *left_out += 1;
        } else {
            self.encoder.keys.push(key.to_owned());
        }
    }

    fn scalar(&mut self, value: Scalar) {
        let key = self.key;
        self.push(key, |out| push_attribute(out, key, value.as_bytes()));
    }

    fn text(&mut self, key: &str, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        let mut text = Bounded::default();
        // An implementation that reports an error has still written what it could.
        let _ = write(&mut text);
        let text = text.finish(&mut self.encoder.done.truncated);
        self.push(key, |out| push_text(out, key, &text));
    }
}

impl<'v> VisitValue<'v> for ValueEncoder<'_, '_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.text(self.key, |out| write!(out, "{value}"));
        Ok(())
    }

    /// A value that is not there is not sent, as with `None` in `tracing`.
    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            // OTLP has no unsigned integer: the digits are kept rather than the type.
            Err(_) => self.visit_any(value.into()),
        }
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.scalar(Scalar::int(value));
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.scalar(Scalar::double(value));
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.scalar(Scalar::bool(value));
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.text(self.key, |out| out.write_str(value));
        Ok(())
    }

    fn visit_borrowed_error(&mut self, error: &'v (dyn std::error::Error + 'static)) -> Result<(), kv::Error> {
        self.visit_error(error)
    }

    fn visit_error(&mut self, error: &(dyn std::error::Error + 'static)) -> Result<(), kv::Error> {
        self.text(self.key, |out| write_error(out, error));
        let is_known = self.encoder.keys.iter().any(|key| key == EXCEPTION_MESSAGE);
        if matches!(self.key, "error" | "err") && !is_known {
            self.text(EXCEPTION_MESSAGE, |out| write!(out, "{error}"));
        }
        Ok(())
    }
}

/// Text up to [`VALUE_BYTES_MAX`].
#[derive(Default)]
struct Bounded {
    text: String,
    missing: usize,
}

impl Bounded {
    fn finish(mut self, truncated: &mut u32) -> String {
        if self.missing > 0 {
            *truncated += 1;
            let missing = mem::take(&mut self.missing);
            // Writing to a `String` does not fail.
            let _ = write_marker(&mut self.text, missing);
        }
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = if self.missing > 0 { 0 } else { VALUE_BYTES_MAX - self.text.len() };
        let fitting = cut(text, room);
        self.text.push_str(fitting);
        self.missing += text.len() - fitting.len();
        Ok(())
    }
}
