//! Which stream an event goes to: one for all, or one for each service, dataset or namespace by a pattern such as
//! `logs-{service}-{namespace}`.
//!
//! The values are the sender's own and may be hostile: they are made into what a name can hold, are bounded in length, and
//! only so many streams are made. What is beyond goes to one stream more, [`Pattern::overflow`], is counted, and is found like
//! everything else.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    IndexError,
    layout::{self, Days, Layout},
};
use crate::otlp::{AnyView, ResourceView};

/// The longest name of a stream: `.ds-`, a date and a number are put around it, and an index name has 255 bytes.
const NAME_BYTES_MAX: usize = 200;
/// The longest value of a placeholder, as in Elastic's naming scheme.
const VALUE_BYTES_MAX: usize = 100;
const OVERFLOW: &str = "overflow";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Service,
    Dataset,
    Namespace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

/// `[elasticsearch] data_stream`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    /// Bytes that a value may have.
    value_bytes_max: usize,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, IndexError> {
        let wrong = |what: String| IndexError::Failed(format!("data_stream: `{text}` {what}"));
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| wrong("has a `{` without `}`".into()))?;
            let field = match name {
                "service" => Field::Service,
                "dataset" => Field::Dataset,
                "namespace" => Field::Namespace,
                _ => return Err(wrong(format!("has `{{{name}}}`: write {{service}}, {{dataset}} or {{namespace}}"))),
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(field));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let texts = || parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
        let literal: usize = texts().map(String::len).sum();
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        // Half of the name is left to the values, where there are any.
        let fields = parts.len() - texts().count();
        let literal_max = if fields == 0 { NAME_BYTES_MAX } else { NAME_BYTES_MAX / 2 };
        if !begins_well || literal > literal_max || !texts().all(|text| text.chars().all(is_plain)) || fields > 3 {
            return Err(wrong(
                "is not a name for a data stream: write lower-case letters, digits, `-`, `_` and `.`, a letter or digit \
                 first, and perhaps {service}, {dataset} and {namespace}"
                    .into(),
            ));
        }
        let value_bytes_max = (NAME_BYTES_MAX - literal).checked_div(fields).unwrap_or(0).min(VALUE_BYTES_MAX);
        Ok(Self { parts, value_bytes_max })
    }

    /// The only stream, where the pattern names one.
    pub(super) fn fixed(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(name)] => Some(name),
            _ => None,
        }
    }

    /// The stream of what finds no stream of its own any more.
    pub(super) fn overflow(&self) -> String {
        self.fill(|_| OVERFLOW)
    }

    /// The streams as a search names them.
    pub(super) fn wildcard(&self) -> String {
        self.parts.iter().map(|part| if let Part::Text(text) = part { text } else { "*" }).collect()
    }

    /// The stream of a resource.
    fn stream(&self, resource: &ResourceView<'_>) -> String {
        let attributes = resource.attributes();
        let text = |key: &str| match attributes.get(key) {
            Some(AnyView::Str(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        self.fill(|field| match field {
            Field::Service => Some(resource.service).filter(|service| !service.is_empty()).unwrap_or("unknown"),
            Field::Dataset => text("data_stream.dataset").unwrap_or("generic"),
            Field::Namespace => text("data_stream.namespace")
                .or_else(|| text("service.namespace"))
                .or_else(|| text("deployment.environment.name"))
                .unwrap_or("default"),
        })
    }

    fn fill<'v>(&self, value: impl Fn(Field) -> &'v str) -> String {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(field) => name.extend(value(*field).chars().take(self.value_bytes_max).map(plain)),
            }
        }
        name
    }
}

/// What may stand in a value. `-` parts the values of Elastic's naming scheme.
fn plain(c: char) -> char {
    match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' => c,
        _ => '_',
    }
}

/// Where documents go, as it is known when a body is written.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    pub(super) pattern: Arc<Pattern>,
    pub(super) layout: Layout,
    /// Streams that are there.
    pub(super) known: Arc<BTreeSet<String>>,
    /// Names that others have: events for them go to the overflow stream.
    pub(super) taken: Arc<BTreeSet<String>>,
    /// Whether no more are made.
    pub(super) is_full: bool,
    /// How many a body may name: no more are ever made.
    pub(super) streams_max: usize,
    pub(super) now_ns: i64,
    /// See [`Days::around`].
    pub(super) kept_days: Option<i64>,
}

#[cfg(test)]
impl Routes {
    /// One data stream for all.
    pub(super) fn fixed(name: &str) -> Self {
        Self {
            pattern: Arc::new(Pattern { parts: vec![Part::Text(name.to_owned())], value_bytes_max: 0 }),
            layout: Layout::DataStream,
            known: Arc::default(),
            taken: Arc::default(),
            is_full: false,
            streams_max: 0,
            now_ns: 0,
            kept_days: None,
        }
    }
}

/// A stream that documents of a body go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) name: String,
    /// Whether it has to be made first.
    pub(super) is_new: bool,
    /// Its documents that have no stream of their own any more.
    pub(super) overflowed: u64,
}

/// Follows the records of a body to their streams.
pub(super) struct Target<'r> {
    routes: &'r Routes,
    streams: Vec<Stream>,
    /// The stream of the resource followed last.
    at: usize,
    overflows: bool,
    /// `"_index":"…",`; empty where the request's path says it.
    action: Vec<u8>,
    /// Of the message followed last.
    days: Days,
    /// The day that `action` stands for; only where each has its index.
    day: Option<i64>,
}

impl<'r> Target<'r> {
    pub(super) fn new(routes: &'r Routes) -> Self {
        let days = Days::around(0, routes.now_ns, routes.kept_days);
        let mut target =
            Self { routes, streams: Vec::new(), at: 0, overflows: false, action: Vec::new(), days, day: None };
        if let Some(name) = routes.pattern.fixed() {
            target.streams.push(Stream { name: name.to_owned(), is_new: false, overflowed: 0 });
        }
        target
    }

    pub(super) fn follow_message(&mut self, appended_ns: i64) {
        if self.routes.layout == Layout::Daily {
            self.days = Days::around(appended_ns, self.routes.now_ns, self.routes.kept_days);
            self.day = None;
        }
    }

    /// Called for each resource of a message, before its records.
    pub(super) fn follow_resource(&mut self, resource: &ResourceView<'_>) {
        let Routes { pattern, known, taken, is_full, streams_max, layout, .. } = self.routes;
        if pattern.fixed().is_some() {
            return;
        }
        let mut name = pattern.stream(resource);
        let is_known = known.contains(&name);
        // More names than may ever be made are not worth asking the cluster about.
        let new = self.streams.iter().filter(|stream| stream.is_new).count();
        self.overflows = !is_known && (*is_full || new > *streams_max || taken.contains(&name));
        if self.overflows {
            name = pattern.overflow();
        }
        let found = self.streams.iter().position(|stream| stream.name == name);
        self.at = found.unwrap_or_else(|| {
            let is_new = !is_known && !self.overflows;
            self.streams.push(Stream { name, is_new, overflowed: 0 });
            self.streams.len() - 1
        });
        self.day = None;
        if *layout == Layout::DataStream {
            write_action(&mut self.action, &self.streams[self.at].name, None);
        }
    }

    /// What an action line says before the id.
    #[inline]
    pub(super) fn action(&mut self, time_ns: i64) -> &[u8] {
        if self.routes.layout == Layout::Daily {
            self.follow_day(layout::day(time_ns));
        }
        if self.overflows {
            self.streams[self.at].overflowed += 1;
        }
        &self.action
    }

    fn follow_day(&mut self, day: i64) {
        if self.day != Some(day) {
            self.day = Some(day);
            if let Some(stream) = self.streams.get(self.at) {
                write_action(&mut self.action, &stream.name, Some(&self.days.suffix(day)));
            }
        }
    }

    /// All streams met.
    pub(super) fn into_streams(self) -> Vec<Stream> {
        self.streams
    }
}

fn write_action(action: &mut Vec<u8>, stream: &str, suffix: Option<&str>) {
    action.clear();
    action.extend_from_slice(b"\"_index\":\"");
    // A name has no characters that need an escape: see `plain`.
    action.extend_from_slice(stream.as_bytes());
    if let Some(suffix) = suffix {
        action.push(b'-');
        action.extend_from_slice(suffix.as_bytes());
    }
    action.extend_from_slice(b"\",");
}

#[cfg(test)]
mod tests;
