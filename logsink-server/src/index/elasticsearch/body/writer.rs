//! One record as its two lines.

use logsink::Severity;

use super::{
    super::{
        fields::{FieldNames, Owner},
        json,
        route::{Routes, Stream, Target},
        time,
    },
    ANY, Shape,
    attributes::{ATTRIBUTES, List, attributes, distinct, fields, keep, target},
    id::Ids,
    keys::Seen,
    notes::Notes,
    parts::Parts,
    row::Row,
};
use crate::{
    otlp::{AnyView, KeyId, RecordView, Unread, Vocabulary},
    queue::Message,
    text::{self, Out},
};

/// What is known from one record to the next.
#[derive(Default)]
pub(super) struct Writer {
    shape: Shape,
    ids: Ids,
    /// Trace and span of the message, for records without.
    trace: Option<(u128, u64)>,
    parts: Parts,
    row: Row,
    clock: time::Clock,
    observed: time::Clock,
    /// What is written of each severity, once it was met.
    severities: [Out; 32],
}

/// What is known from one record to the next of one body.
pub(super) struct Pass<'a, 'r> {
    target: Target<'r>,
    /// Before this time none of the message's records can have been stored.
    pub(super) since_ns: u64,
    /// Memory for the attributes of a record that is not plain, and for what the index has to be told about them.
    pairs: Vec<(&'a str, AnyView<'a>)>,
    notes: Notes<'a>,
}

impl<'r> Pass<'_, 'r> {
    pub(super) fn new(routes: &'r Routes) -> Self {
        Self { target: Target::new(routes), since_ns: 0, pairs: Vec::new(), notes: Notes::default() }
    }

    /// All streams met.
    pub(super) fn into_streams(self) -> Vec<Stream> {
        self.target.into_streams()
    }
}

impl Writer {
    /// Before the messages of a body.
    pub(super) fn begin(&mut self, shape: Shape) {
        if self.shape != shape {
            *self = Self { shape, ..Self::default() };
        }
    }

    /// Before the records of a message.
    pub(super) fn follow_message(&mut self, message: &Message, origin: u64, pass: &mut Pass<'_, '_>) {
        self.ids.follow_message(message, origin);
        self.trace = message.headers.trace();
        self.parts.follow_message();
        // What has the id of its place cannot have been stored before it stood there; a batch that is sent twice, not before
        // its records happened.
        pass.since_ns = message.headers.appended_ns();
        pass.target.follow_message(time::clamp(pass.since_ns));
    }

    /// The line that says what to do with the document in the next one.
    #[inline]
    fn action(&self, out: &mut Out, index: u32, time_ns: u64, target: &mut Target<'_>) {
        out.literal(b"{\"create\":{");
        out.put(target.action(time::clamp(time_ns)));
        out.literal(b"\"_id\":");
        self.ids.write(out, index);
        out.literal(b"}}\n");
    }

    /// Before a record.
    #[inline]
    pub(super) fn begin_record(&mut self, vocabulary: &Vocabulary) {
        self.row.begin(vocabulary, self.shape);
    }

    /// The next attribute of the record that has begun.
    #[inline(always)]
    pub(super) fn attribute(&mut self, key: KeyId, value: AnyView<'_>) {
        self.row.put(key, value);
    }

    /// The same, when it is text; whether it is UTF-8.
    #[inline(always)]
    pub(super) fn text(&mut self, key: KeyId, text: Unread<'_>) -> bool {
        self.row.put_text(key, text)
    }

    /// Writes the two lines of the record that has begun.
    #[inline]
    pub(super) fn write<'a>(
        &mut self,
        out: &mut Out,
        record: &RecordView<'a>,
        keys: Option<&Vocabulary>,
        time_ns: u64,
        pass: &mut Pass<'a, '_>,
    ) {
        let names = self.shape.names;
        if self.parts.follow(self.shape, record.resource, record.scope) {
            pass.target.follow_resource(&record.resource);
        }
        if self.ids.are_numbered {
            pass.since_ns = pass.since_ns.min(time_ns);
        }
        self.action(out, record.index, time_ns, &mut pass.target);
        out.literal(b"{\"@timestamp\":\"");
        self.clock.write(out, time::clamp(time_ns));
        out.literal(b"\",\"tie\":");
        self.ids.write(out, record.index);
        out.put(self.severity(record.severity));
        match record.body {
            AnyView::Str(text) => json::field(out, b",\"message\":\"", text),
            body => json::field(out, b",\"message\":\"", &body.text()),
        }
        ids(out, record, self.trace, names);
        match keys.filter(|_| self.row.is_plain() && !self.parts.notes().is_ambiguous()) {
            Some(keys) => {
                out.put(names.target());
                match self.row.target() {
                    Some(target) => out.put(target),
                    None => out.string(record.scope.name),
                }
                self.row.write(out, self.parts.notes(), keys);
            }
            None => self.strange(out, record, pass),
        }
        self.rest(out, record);
        out.put(self.parts.json());
        out.literal(b"}\n");
    }

    /// Writes the attributes of a record that is not plain.
    #[inline(never)]
    fn strange<'a>(&self, out: &mut Out, record: &RecordView<'a>, pass: &mut Pass<'a, '_>) {
        let Pass { pairs, notes, .. } = pass;
        pairs.clear();
        pairs.extend(record.attributes());
        let seen = Seen::of(pairs, Owner::Record);
        if seen.are_repetitive {
            // Elasticsearch refuses an object that has a key twice.
            let pairs = distinct(pairs);
            return self.attributes(out, record, &pairs, &Seen::of(&pairs, Owner::Record), notes);
        }
        self.attributes(out, record, pairs, &seen, notes);
    }

    fn attributes<'a>(
        &self,
        out: &mut Out,
        record: &RecordView<'a>,
        pairs: List<'_, 'a>,
        seen: &Seen,
        notes: &mut Notes<'a>,
    ) {
        out.put(self.shape.names.target());
        out.string(target(pairs, seen).unwrap_or(record.scope.name));
        fields(out, pairs, seen, self.shape.names);
        let start = out.len();
        out.literal(ATTRIBUTES);
        notes.clear();
        attributes(out, pairs, seen, notes);
        if notes.has_long_path || notes.has_long && self.shape.is_flat_object {
            keep(out, start, ATTRIBUTES);
            notes.opaque(ANY.into());
        }
        if notes.has_flat_end && self.shape.is_flat_object {
            notes.opaque(ANY.into());
        }
        notes.write(out, self.parts.notes(), record.attributes(), pairs, seen);
    }

    /// `,"severity_number":9,"level":"info"`
    #[inline]
    fn severity(&mut self, severity: Severity) -> &[u8] {
        let written = &mut self.severities[usize::from(severity.0 & 31)];
        if written.len() == 0 {
            written.literal(b",\"severity_number\":");
            json::int(written, severity.0);
            written.put(self.shape.names.level());
            written.string(severity.name());
        }
        written.as_bytes()
    }

    /// What no search looks at by itself, kept because it was sent.
    #[inline]
    fn rest(&mut self, out: &mut Out, record: &RecordView<'_>) {
        if record.time_unix_nano != 0 && record.observed_time_unix_nano != 0 {
            out.literal(b",\"observed_timestamp\":\"");
            self.observed.write(out, time::clamp(record.observed_time_unix_nano));
            out.byte(b'"');
        }
        if !record.severity_text.is_empty() {
            json::field(out, b",\"severity_text\":\"", record.severity_text);
        }
        if !record.event_name.is_empty() {
            out.put(self.shape.names.event_name());
            out.string(record.event_name);
        }
        if record.flags != 0 {
            out.literal(b",\"flags\":");
            json::int(out, record.flags);
        }
    }
}

/// The ids of trace and span, of which either may be missing; those of the message `around` the record when it has neither.
#[inline]
fn ids(out: &mut Out, record: &RecordView<'_>, around: Option<(u128, u64)>, names: FieldNames) {
    let own = (record.trace_id().map(u128::from_be_bytes), record.span_id().map(u64::from_be_bytes));
    let (trace, span) = match (own, around) {
        ((None, None), Some((trace, span))) => (Some(trace), Some(span)),
        (own, _) => own,
    };
    if let Some(id) = trace {
        out.put(names.trace_id());
        out.digits([text::hex((id >> 64) as u64), text::hex(id as u64)], 32);
    }
    if let Some(id) = span {
        out.put(names.span_id());
        out.digits([text::hex(id)], 16);
    }
}
