//! What the formats need of a record, read from its OTLP bytes.

use std::borrow::Cow;

use crate::{
    Severity,
    transport::wire::{Value, field, fields},
};

/// Lists and maps deeper than this are shown by their size: nobody reads them, and who sends them may mean harm.
const DEPTH_MAX: usize = 16;

/// One `LogRecord`.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    /// Nanoseconds since 1970: the event's own time, else the time at which it was seen.
    pub(super) time: u64,
    pub(super) severity: Severity,
    pub(super) body: Any<'a>,
    /// The first attribute of each of these names; where the library writes them, they stand before an event's own fields.
    pub(super) target: Option<Any<'a>>,
    pub(super) span_path: Option<Any<'a>>,
    pub(super) file: Option<Any<'a>>,
    pub(super) line: Option<Any<'a>>,
    pub(super) thread: Option<Any<'a>>,
    /// All attributes except the one in `target`, names and values in their order.
    pub(super) attributes: Vec<(&'a [u8], Any<'a>)>,
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
}

/// An `AnyValue`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Any<'a> {
    #[default]
    Empty,
    /// Should be UTF-8.
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// An `ArrayValue`; how deep it may still go.
    List(&'a [u8], usize),
    /// A `KeyValueList`; how deep it may still go.
    Map(&'a [u8], usize),
    /// Too deep: so many bytes.
    Deep(usize),
}

/// Calls `each` with the service's name and a record, for all records.
pub(super) fn each(payload: &[u8], each: &mut dyn FnMut(Option<Any<'_>>, &Record<'_>)) {
    // `ExportLogsServiceRequest.resource_logs = 1`, `ResourceLogs { resource = 1, scope_logs = 2 }`,
    // `ScopeLogs.log_records = 2`, `Resource.attributes = 1`.
    for resource_logs in messages(payload, 1) {
        let resource = field(resource_logs, 1).map_or(&[][..], Value::bytes);
        let service = messages(resource, 1).map(pair).find(|(key, _)| *key == b"service.name").map(|(_, value)| value);
        for record in messages(resource_logs, 2).flat_map(|scope_logs| messages(scope_logs, 2)) {
            each(service, &Record::new(record));
        }
    }
}

fn messages(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter(move |(have, _)| *have == number).map(|(_, value)| value.bytes())
}

/// `KeyValue { key = 1, value = 2 }`
fn pair(message: &[u8]) -> (&[u8], Any<'_>) {
    pair_within(message, DEPTH_MAX)
}

fn pair_within(message: &[u8], depth: usize) -> (&[u8], Any<'_>) {
    let key = field(message, 1).map_or(&[][..], Value::bytes);
    (key, Any::new(field(message, 2).map_or(&[][..], Value::bytes), depth))
}

impl<'a> Record<'a> {
    fn new(message: &'a [u8]) -> Self {
        let mut record = Self::default();
        let mut observed = 0;
        for (number, value) in fields(message) {
            match number {
                1 => record.time = value.number(),
                2 => record.severity = Severity(u8::try_from(value.number()).unwrap_or_default()),
                5 => record.body = Any::new(value.bytes(), DEPTH_MAX),
                6 => record.attribute(pair(value.bytes())),
                9 => record.trace_id = value.bytes(),
                10 => record.span_id = value.bytes(),
                11 => observed = value.number(),
                _ => {}
            }
        }
        if record.time == 0 {
            record.time = observed;
        }
        record
    }

    fn attribute(&mut self, (key, value): (&'a [u8], Any<'a>)) {
        let known = match key {
            b"target" if self.target.is_none() => {
                self.target = Some(value);
                return;
            }
            b"span.path" => &mut self.span_path,
            b"code.file.path" => &mut self.file,
            b"code.line.number" => &mut self.line,
            b"thread.name" => &mut self.thread,
            _ => return self.attributes.push((key, value)),
        };
        known.get_or_insert(value);
        self.attributes.push((key, value));
    }

    /// The attributes that are the event's and its spans' fields: not where in the code and on which thread it was.
    pub(super) fn fields(&self) -> impl Iterator<Item = (Cow<'a, str>, Any<'a>)> {
        const PLACES: [&[u8]; 7] = [
            b"span.path",
            b"span.name",
            b"code.file.path",
            b"code.line.number",
            b"code.namespace",
            b"thread.name",
            b"thread.id",
        ];
        let fields = self.attributes.iter().filter(|(key, _)| !PLACES.contains(key));
        fields.map(|(key, value)| (String::from_utf8_lossy(key), *value))
    }
}

impl<'a> Any<'a> {
    /// `AnyValue`: string = 1, bool = 2, int = 3, double = 4, array = 5, kvlist = 6, bytes = 7.
    fn new(message: &'a [u8], depth: usize) -> Self {
        match fields(message).last() {
            Some((1, value)) => Self::Text(value.bytes()),
            Some((2, value)) => Self::Bool(value.number() != 0),
            Some((3, value)) => Self::Int(value.number() as i64),
            Some((4, value)) => Self::Double(f64::from_bits(value.number())),
            Some((5 | 6, value)) if depth == 0 => Self::Deep(value.bytes().len()),
            Some((5, value)) => Self::List(value.bytes(), depth - 1),
            Some((6, value)) => Self::Map(value.bytes(), depth - 1),
            Some((7, value)) => Self::Bytes(value.bytes()),
            _ => Self::Empty,
        }
    }
}

/// The elements of [`Any::List`]: `ArrayValue.values = 1`.
pub(super) fn elements(list: &[u8], depth: usize) -> impl Iterator<Item = Any<'_>> {
    messages(list, 1).map(move |value| Any::new(value, depth))
}

/// The entries of [`Any::Map`]: `KeyValueList.values = 1`.
pub(super) fn entries(map: &[u8], depth: usize) -> impl Iterator<Item = (&[u8], Any<'_>)> {
    messages(map, 1).map(move |pair| pair_within(pair, depth))
}

/// A point in time as RFC 3339 in UTC, with so many digits of a second's fraction (9 at most).
pub(crate) fn put_time(text: &mut String, unix_nano: u64, digits: usize) {
    use std::fmt::Write as _;
    let time = std::time::Duration::from_nanos(unix_nano);
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Howard Hinnant's `civil_from_days`, for days from 1970 on: years begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = time.subsec_nanos() / 10_u32.pow(9 - digits as u32);
    // Writing to a string does not fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:0digits$}Z");
}
