//! What an application may give: values of every type, on callsites made by hand, because the macros allow neither a thousand
//! fields nor empty and repeated names.

use std::{error::Error, fmt, sync::OnceLock};

use tracing::field::{DebugValue, DisplayValue, Value as Recorded};
use tracing_core::{
    Callsite, Event, Kind, Level, Metadata, callsite::Identifier, dispatcher, field::FieldSet, subscriber::Interest,
};

use super::Value;

/// A value of a field, as an application gives it.
#[derive(Debug, Clone)]
pub(super) enum Given {
    Nothing,
    Int(i64),
    Unsigned(u64),
    Wide(i128),
    WideUnsigned(u128),
    Double(f64),
    Bool(bool),
    Text(String),
    Bytes(&'static [u8]),
    Error(&'static (dyn Error + 'static)),
    Debugged(DebugValue<Shown>),
    Displayed(DisplayValue<Shown>),
}

/// Writes its text in pieces, and then reports an error if it is told to.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) pieces: Vec<String>,
    pub(super) fails: bool,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| f.write_str(piece))?;
        if self.fails { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error with the errors that caused it.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) message: String,
    pub(super) cause: Option<Box<Chain>>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Chain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl Given {
    pub(super) fn as_value(&self) -> Option<&dyn Recorded> {
        Some(match self {
            Self::Nothing => return None,
            Self::Int(value) => value,
            Self::Unsigned(value) => value,
            Self::Wide(value) => value,
            Self::WideUnsigned(value) => value,
            Self::Double(value) => value,
            Self::Bool(value) => value,
            Self::Text(value) => value,
            Self::Bytes(value) => value,
            Self::Error(value) => value,
            Self::Debugged(value) => value,
            Self::Displayed(value) => value,
        })
    }

    /// The value that OTLP must show for it, when nothing is cut.
    pub(super) fn expected(&self) -> Option<Value> {
        Some(match self {
            Self::Nothing => return None,
            Self::Int(value) => Value::IntValue(*value),
            // OTLP has no other integers: what does not fit is shown in digits.
            Self::Unsigned(value) => {
                i64::try_from(*value).map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue)
            }
            Self::Wide(value) => Value::StringValue(value.to_string()),
            Self::WideUnsigned(value) => Value::StringValue(value.to_string()),
            Self::Double(value) => Value::DoubleValue(*value),
            Self::Bool(value) => Value::BoolValue(*value),
            Self::Text(value) => Value::StringValue(value.clone()),
            Self::Bytes(value) => Value::BytesValue(value.to_vec()),
            Self::Error(error) => {
                let mut chain = vec![*error];
                while let Some(source) = chain[chain.len() - 1].source() {
                    chain.push(source);
                }
                Value::StringValue(chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(": "))
            }
            // What is written before a failure counts.
            Self::Debugged(DebugValue { .. }) | Self::Displayed(DisplayValue { .. }) => {
                Value::StringValue(self.pieces().concat())
            }
        })
    }

    fn pieces(&self) -> Vec<String> {
        // The wrappers hide their content; it writes itself.
        struct Pieces(Vec<String>);
        impl fmt::Write for Pieces {
            fn write_str(&mut self, piece: &str) -> fmt::Result {
                self.0.push(piece.to_owned());
                Ok(())
            }
        }
        let mut pieces = Pieces(Vec::new());
        let _ = match self {
            Self::Debugged(value) => fmt::write(&mut pieces, format_args!("{value:?}")),
            Self::Displayed(value) => fmt::write(&mut pieces, format_args!("{value}")),
            _ => Ok(()),
        };
        pieces.0
    }

    pub(super) fn bytes(&self) -> usize {
        match self.expected() {
            Some(Value::StringValue(text)) => text.len(),
            Some(Value::BytesValue(bytes)) => bytes.len(),
            _ => 16,
        }
    }
}

/// Names and values, in the order of the callsite's fields.
pub(super) type Fields = Vec<(&'static str, Given)>;

struct Site(OnceLock<Metadata<'static>>);

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().expect("set before anybody asks")
    }
}

fn callsite(name: &'static str, level: Level, kind: Kind, fields: &Fields) -> &'static Metadata<'static> {
    let site: &'static Site = Box::leak(Box::new(Site(OnceLock::new())));
    let names: &'static [&'static str] = Vec::leak(fields.iter().map(|(name, _)| *name).collect());
    let set = FieldSet::new(names, Identifier(site));
    site.0.get_or_init(|| Metadata::new(name, "hand::made", level, Some("hand.rs"), Some(7), Some("hand"), set, kind))
}

fn values(fields: &Fields) -> Vec<Option<&dyn Recorded>> {
    fields.iter().map(|(_, given)| given.as_value()).collect()
}

/// What the macros do.
pub(super) fn emit(level: Level, fields: &Fields) {
    let meta = callsite("event", level, Kind::EVENT, fields);
    dispatcher::get_default(|dispatch| {
        assert!(dispatch.enabled(meta));
        dispatch.event(&Event::new(meta, &meta.fields().value_set_all(&values(fields))));
    });
}

pub(super) fn enter(name: &'static str, fields: &Fields) -> tracing::span::EnteredSpan {
    let meta = callsite(name, Level::INFO, Kind::SPAN, fields);
    dispatcher::get_default(|dispatch| assert!(dispatch.enabled(meta)));
    tracing::Span::new(meta, &meta.fields().value_set_all(&values(fields))).entered()
}
