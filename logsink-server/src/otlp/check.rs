//! The deep check: every length, string and nesting of a request, before anything relies on it, or while it is looked at.

use std::cell::RefCell;

use super::{
    plain::{Plain, Unread, familiar_pair, plain_pair, plain_text},
    tag,
    value::{AnyView, Elements, Pairs},
    view::{RecordView, ResourceView, ScopeView, next, severity},
    vocabulary::{KeyId, Vocabulary},
    wire::{DEPTH_MAX, Reader, WireError, WireFault},
};

/// What a request may hold. How many bytes it may have is for its door to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Records in a request. Two bytes make a record on the wire and about a kilobyte in an index.
    pub records_max: u32,
    /// Bytes of one record.
    pub record_bytes_max: u32,
    /// Attributes of one record, resource or scope, and what is nested in them (and in the body) counted too.
    pub attributes_max: u32,
}

impl Limits {
    /// No limit but the structural ones.
    pub const UNLIMITED: Self = Self { records_max: u32::MAX, record_bytes_max: u32::MAX, attributes_max: u32::MAX };
}

impl Default for Limits {
    /// Ten times what senders put into a batch by default (the OpenTelemetry Collector and our library: 8,192 records), and
    /// eight times the attributes that the SDKs allow (128).
    fn default() -> Self {
        Self { records_max: 100_000, record_bytes_max: 1 << 20, attributes_max: 1_024 }
    }
}

/// What a checked request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary<'a> {
    /// Its log records.
    pub records: u32,
    /// `service.name` of the first resource; empty when it has none.
    pub service: &'a str,
}

/// Who is shown the records of a request while it is scanned. A closure is shown each record, and nothing of its attributes but
/// what it asks for.
pub trait Visit<'a> {
    /// A record begins. `vocabulary` has the keys of all records before.
    fn begin(&mut self, vocabulary: &Vocabulary) {
        _ = vocabulary;
    }

    /// An attribute of the record at hand, in wire order, with the number of its key: what [`RecordView::attributes`] would read
    /// again.
    fn attribute(&mut self, key: KeyId, value: AnyView<'a>) {
        _ = (key, value);
    }

    /// An attribute that is text, which may not be UTF-8. False when it is not: the request is refused.
    fn text(&mut self, key: KeyId, text: Unread<'a>) -> bool {
        let Some(text) = text.read() else { return false };
        self.attribute(key, AnyView::Str(text));
        true
    }

    /// The record, after its attributes. With the vocabulary when each of its keys has a number and none stands twice.
    fn record(&mut self, record: &RecordView<'a>, keys: Option<&Vocabulary>);
}

impl<'a, F: FnMut(&RecordView<'a>)> Visit<'a> for F {
    fn record(&mut self, record: &RecordView<'a>, _: Option<&Vocabulary>) {
        self(record);
    }
}

thread_local! {
    /// The keys of what this thread has checked: those of one request are mostly those of the one before.
    static CHECKED: RefCell<Vocabulary> = RefCell::default();
}

/// Checks a whole request: lengths, wire types, UTF-8, nesting and `limits`.
///
/// # Errors
/// What is wrong, and at which byte of the payload.
pub fn check<'a>(payload: &'a [u8], limits: &Limits) -> Result<Summary<'a>, WireError> {
    CHECKED.with_borrow_mut(|keys| {
        Checker { limits, vocabulary: Some(keys), visit: &mut Nobody, records: 0, values: 0 }.request(payload)
    })
}

/// Who wants to see nothing.
struct Nobody;

impl<'a> Visit<'a> for Nobody {
    fn text(&mut self, _: KeyId, text: Unread<'a>) -> bool {
        text.is_text()
    }

    fn record(&mut self, _: &RecordView<'a>, _: Option<&Vocabulary>) {}
}

/// Checks a whole request as [`check`] does, but for limits, and shows every record on the way, in wire order. Returns how many
/// there were. A resource or a scope is known before the first of its records is shown, wherever it stands in its message.
/// Without a vocabulary no key has a number.
///
/// # Errors
/// When the payload is not an `ExportLogsServiceRequest`. The records before the fault were shown, and some attributes of the one
/// that has it: who must not act on a part of a request has to take back what it did.
pub fn scan<'a>(
    payload: &'a [u8],
    vocabulary: Option<&mut Vocabulary>,
    visit: &mut impl Visit<'a>,
) -> Result<u32, WireError> {
    let checker = Checker { limits: &Limits::UNLIMITED, vocabulary, visit, records: 0, values: 0 };
    checker.request(payload).map(|summary| summary.records)
}

struct Checker<'l, 'e, V> {
    limits: &'l Limits,
    vocabulary: Option<&'e mut Vocabulary>,
    visit: &'e mut V,
    records: u32,
    /// Values seen in the record, resource or scope at hand.
    values: u32,
}

impl<'a, V: Visit<'a>> Checker<'_, '_, V> {
    fn request(mut self, payload: &'a [u8]) -> Result<Summary<'a>, WireError> {
        if let Some(vocabulary) = &mut self.vocabulary {
            vocabulary.renew();
        }
        let mut request = Reader::new(payload);
        let mut service = None;
        while let Some(key) = request.key()? {
            match key {
                tag::request::RESOURCE_LOGS => {
                    let resource = self.resource_logs(request.message()?)?;
                    service.get_or_insert(resource.service);
                }
                _ => request.skip(key, tag::request::KNOWN)?,
            }
        }
        Ok(Summary { records: self.records, service: service.unwrap_or_default() })
    }

    fn resource_logs(&mut self, mut message: Reader<'a>) -> Result<ResourceView<'a>, WireError> {
        // What is wrong here is found, and named, on the way.
        let ahead = next(&mut { message }, tag::resource_logs::RESOURCE).ok().flatten();
        let view = ahead.map(|resource| ResourceView::read(resource.bytes())).unwrap_or_default();
        let mut resource = None;
        while let Some(key) = message.key()? {
            match key {
                tag::resource_logs::RESOURCE => {
                    once(&resource, "resource", &message)?;
                    resource = Some(());
                    self.resource(message.message()?)?;
                }
                tag::resource_logs::SCOPE_LOGS => self.scope_logs(message.message()?, view)?,
                tag::resource_logs::SCHEMA_URL => _ = message.string("schema_url")?,
                _ => message.skip(key, tag::resource_logs::KNOWN)?,
            }
        }
        Ok(view)
    }

    fn resource(&mut self, mut message: Reader<'a>) -> Result<(), WireError> {
        self.values = 0;
        while let Some(key) = message.key()? {
            match key {
                tag::resource::ATTRIBUTES => _ = self.key_value(message.message()?, 0)?,
                tag::resource::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                tag::resource::ENTITY_REFS => entity_ref(message.message()?)?,
                _ => message.skip(key, tag::resource::KNOWN)?,
            }
        }
        Ok(())
    }

    fn scope_logs(&mut self, mut message: Reader<'a>, resource: ResourceView<'a>) -> Result<(), WireError> {
        let ahead = next(&mut { message }, tag::scope_logs::SCOPE).ok().flatten();
        let view = ahead.and_then(|scope| ScopeView::read(scope).ok()).unwrap_or_default();
        let mut scope = None;
        while let Some(key) = message.key()? {
            match key {
                tag::scope_logs::LOG_RECORDS => {
                    if self.records == self.limits.records_max {
                        return Err(over(&message, "records in the request", self.limits.records_max));
                    }
                    let record = message.message()?;
                    if record.bytes().len() > self.limits.record_bytes_max as usize {
                        return Err(over(&record, "bytes in a record", self.limits.record_bytes_max));
                    }
                    self.record(record, resource, view)?;
                    self.records += 1;
                }
                tag::scope_logs::SCOPE => {
                    once(&scope, "scope", &message)?;
                    scope = Some(());
                    self.scope(message.message()?)?;
                }
                tag::scope_logs::SCHEMA_URL => _ = message.string("schema_url")?,
                _ => message.skip(key, tag::scope_logs::KNOWN)?,
            }
        }
        Ok(())
    }

    fn scope(&mut self, mut message: Reader<'a>) -> Result<(), WireError> {
        self.values = 0;
        while let Some(key) = message.key()? {
            match key {
                tag::scope::NAME => _ = message.string("scope name")?,
                tag::scope::VERSION => _ = message.string("scope version")?,
                tag::scope::ATTRIBUTES => _ = self.key_value(message.message()?, 0)?,
                tag::scope::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                _ => message.skip(key, tag::scope::KNOWN)?,
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        mut message: Reader<'a>,
        resource: ResourceView<'a>,
        scope: ScopeView<'a>,
    ) -> Result<(), WireError> {
        self.values = 0;
        if let Some(vocabulary) = &mut self.vocabulary {
            vocabulary.begin();
            self.visit.begin(vocabulary);
        }
        let mut record = RecordView::new(message.bytes(), self.records, resource, scope);
        let mut body = None;
        while let Some(key) = message.key()? {
            match key {
                tag::record::ATTRIBUTES => match self.familiar(message.rest()) {
                    0 => self.attribute(message.message()?)?,
                    bytes => message.advance(bytes),
                },
                tag::record::TIME_UNIX_NANO => record.time_unix_nano = message.fixed64()?,
                tag::record::OBSERVED_TIME_UNIX_NANO => record.observed_time_unix_nano = message.fixed64()?,
                tag::record::SEVERITY_NUMBER => record.severity = severity(message.varint()?),
                tag::record::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                tag::record::SEVERITY_TEXT => record.severity_text = message.string("severity_text")?,
                tag::record::BODY => {
                    once(&body, "body", &message)?;
                    body = Some(());
                    let value = message.message()?;
                    record.body = match plain_text(value.bytes()) {
                        Some(text) => AnyView::Str(text),
                        None => self.any_value(value, 0)?,
                    };
                }
                tag::record::FLAGS => record.flags = message.fixed32()?,
                tag::record::TRACE_ID => record.trace_id = message.len_bytes()?,
                tag::record::SPAN_ID => record.span_id = message.len_bytes()?,
                tag::record::EVENT_NAME => record.event_name = message.string("event_name")?,
                _ => message.skip(key, tag::record::KNOWN)?,
            }
        }
        self.show(&record);
        Ok(())
    }

    // What is done with a record is not for the registers of those that read it.
    #[inline(never)]
    fn show(&mut self, record: &RecordView<'a>) {
        let keys = self.vocabulary.as_deref().filter(|vocabulary| vocabulary.is_plain());
        self.visit.record(record, keys);
    }

    /// Reads attributes of a record as long as each has the key that is expected and a plain value. `rest` is what follows the
    /// first one's tag. Returns how many bytes of it those are.
    #[inline(never)]
    fn familiar(&mut self, rest: &'a [u8]) -> usize {
        const TAG: u8 = tag::record::ATTRIBUTES as u8;
        let Some(vocabulary) = &mut self.vocabulary else { return 0 };
        let (mut left, mut bytes) = (rest, 0);
        while self.values < self.limits.attributes_max
            && let Some((id, key)) = vocabulary.expected()
            && let Some((value, after)) = familiar_pair(left, key)
        {
            match value {
                // What it is not, and where, is said by who looks at it next.
                Plain::Text(text) if !self.visit.text(id, text) => break,
                Plain::Text(_) => {}
                Plain::Other(value) => self.visit.attribute(id, value),
            }
            vocabulary.take(id);
            self.values += 1;
            bytes = rest.len() - after.len();
            match after {
                [TAG, after @ ..] => left = after,
                _ => break,
            }
        }
        bytes
    }

    /// An attribute of a record.
    #[inline(never)]
    fn attribute(&mut self, message: Reader<'a>) -> Result<(), WireError> {
        let (name, value) = self.key_value(message, 0)?;
        let key = self.vocabulary.as_mut().map(|vocabulary| vocabulary.take_text(name));
        self.visit.attribute(key.unwrap_or_default(), value);
        Ok(())
    }

    #[inline(always)]
    fn key_value(&mut self, message: Reader<'a>, depth: u32) -> Result<(&'a str, AnyView<'a>), WireError> {
        self.count(&message)?;
        match plain_pair(message.bytes()) {
            Some(pair) if depth <= DEPTH_MAX => Ok(pair),
            _ => self.any_pair(message, depth),
        }
    }

    #[inline(never)]
    fn any_pair(&mut self, mut message: Reader<'a>, depth: u32) -> Result<(&'a str, AnyView<'a>), WireError> {
        let (mut name, mut value, mut seen) = ("", AnyView::Empty, None);
        while let Some(key) = message.key()? {
            match key {
                tag::key_value::KEY => name = message.string("attribute key")?,
                tag::key_value::VALUE => {
                    once(&seen, "attribute value", &message)?;
                    seen = Some(());
                    value = self.any_value(message.message()?, depth)?;
                }
                tag::key_value::KEY_STRINDEX => _ = message.varint()?,
                _ => message.skip(key, tag::key_value::KNOWN)?,
            }
        }
        Ok((name, value))
    }

    /// The last value that stands in it, as [`AnyView::read`] has it.
    fn any_value(&mut self, mut message: Reader<'a>, depth: u32) -> Result<AnyView<'a>, WireError> {
        if depth > DEPTH_MAX {
            return Err(message.error(WireFault::TooDeep));
        }
        let mut value = AnyView::Empty;
        // The list that the oneof holds: another of its kind would have to be merged into it.
        let mut list = 0;
        while let Some(key) = message.key()? {
            if key == list {
                return Err(message.error(WireFault::Repeated("a list value")));
            }
            value = match key {
                tag::any_value::STRING => AnyView::Str(message.string("string value")?),
                tag::any_value::BOOL => AnyView::Bool(message.varint()? != 0),
                tag::any_value::INT => AnyView::Int(message.varint()?.cast_signed()),
                tag::any_value::DOUBLE => AnyView::Double(f64::from_bits(message.fixed64()?)),
                tag::any_value::BYTES => AnyView::Bytes(message.len_bytes()?),
                tag::any_value::ARRAY => {
                    let values = message.message()?;
                    self.list(values, false, depth + 1)?;
                    AnyView::Array(Elements(values.bytes()))
                }
                tag::any_value::KVLIST => {
                    let values = message.message()?;
                    self.list(values, true, depth + 1)?;
                    AnyView::Map(Pairs::new(values.bytes(), tag::list::VALUES))
                }
                tag::any_value::STRING_STRINDEX => {
                    message.varint()?;
                    AnyView::Empty
                }
                _ => {
                    message.skip(key, tag::any_value::KNOWN)?;
                    value
                }
            };
            list = match key {
                tag::any_value::ARRAY | tag::any_value::KVLIST => key,
                _ if key >> 3 <= 8 => 0,
                _ => list,
            };
        }
        Ok(value)
    }

    fn list(&mut self, mut values: Reader<'a>, is_map: bool, depth: u32) -> Result<(), WireError> {
        while let Some(key) = values.key()? {
            match key {
                tag::list::VALUES if is_map => _ = self.key_value(values.message()?, depth)?,
                tag::list::VALUES => {
                    self.count(&values)?;
                    self.any_value(values.message()?, depth)?;
                }
                _ => values.skip(key, tag::list::KNOWN)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn count(&mut self, at: &Reader<'_>) -> Result<(), WireError> {
        if self.values == self.limits.attributes_max {
            return Err(over(at, "attributes", self.limits.attributes_max));
        }
        self.values += 1;
        Ok(())
    }
}

fn entity_ref(mut message: Reader<'_>) -> Result<(), WireError> {
    use tag::entity_ref::{DESCRIPTION_KEYS, ID_KEYS, KNOWN, SCHEMA_URL, TYPE};
    while let Some(key) = message.key()? {
        match key {
            SCHEMA_URL | TYPE | ID_KEYS | DESCRIPTION_KEYS => _ = message.string("entity reference")?,
            _ => message.skip(key, KNOWN)?,
        }
    }
    Ok(())
}

fn once<T>(seen: &Option<T>, what: &'static str, at: &Reader<'_>) -> Result<(), WireError> {
    if seen.is_some() { Err(at.error(WireFault::Repeated(what))) } else { Ok(()) }
}

fn over(at: &Reader<'_>, what: &'static str, max: u32) -> WireError {
    at.error(WireFault::OverLimit { what, max })
}
