//! The deep check: every length, string and nesting of a request, before anything relies on it, or while it is looked at.

use super::{
    tag,
    value::{AnyView, Elements, Pairs},
    view::{RecordView, ResourceView, ScopeView, next, severity},
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

/// A record's attributes, read: what [`RecordView::attributes`] would read again. In wire order, with every key that is there.
pub type Attributes<'r, 'a> = &'r [(&'a str, AnyView<'a>)];

/// Checks a whole request: lengths, wire types, UTF-8, nesting and `limits`.
///
/// # Errors
/// What is wrong, and at which byte of the payload.
pub fn check<'a>(payload: &'a [u8], limits: &Limits) -> Result<Summary<'a>, WireError> {
    Checker::<'_, '_, '_, false>::new(limits, &mut |_, _| {}).request(payload)
}

/// Checks a whole request as [`check`] does, but for limits, and calls `each` with every record on the way, in wire order.
/// Returns how many there were. A resource or a scope is known before the first of its records is shown, wherever it stands
/// in its message.
///
/// # Errors
/// When the payload is not an `ExportLogsServiceRequest`. The records before the fault were shown: who must not act on a part
/// of a request has to take back what it did.
pub fn scan<'a>(payload: &'a [u8], each: &mut dyn FnMut(RecordView<'a>, Attributes<'_, 'a>)) -> Result<u32, WireError> {
    Checker::<'_, '_, '_, true>::new(&Limits::UNLIMITED, each).request(payload).map(|summary| summary.records)
}

/// `SHOW`: whether the records are read and shown too.
struct Checker<'l, 'e, 'a, const SHOW: bool> {
    limits: &'l Limits,
    each: &'e mut dyn FnMut(RecordView<'a>, Attributes<'_, 'a>),
    records: u32,
    /// Values seen in the record, resource or scope at hand.
    values: u32,
    /// The attributes of the record at hand.
    attributes: Vec<(&'a str, AnyView<'a>)>,
    keys: Keys<'a>,
}

impl<'l, 'e, 'a, const SHOW: bool> Checker<'l, 'e, 'a, SHOW> {
    fn new(limits: &'l Limits, each: &'e mut dyn FnMut(RecordView<'a>, Attributes<'_, 'a>)) -> Self {
        Self { limits, each, records: 0, values: 0, attributes: Vec::new(), keys: Keys::default() }
    }

    fn request(mut self, payload: &'a [u8]) -> Result<Summary<'a>, WireError> {
        let mut request = Reader::new(payload);
        let mut service = None;
        while let Some(key) = request.key()? {
            match key {
                tag::request::RESOURCE_LOGS => {
                    let resource = self.resource_logs(request.message()?)?;
                    service.get_or_insert_with(|| ResourceView::read(resource).service);
                }
                _ => request.skip(key, tag::request::KNOWN)?,
            }
        }
        Ok(Summary { records: self.records, service: service.unwrap_or_default() })
    }

    /// Returns the bytes of the resource.
    fn resource_logs(&mut self, mut message: Reader<'a>) -> Result<&'a [u8], WireError> {
        // What is wrong here is found, and named, on the way.
        let ahead = if SHOW { next(&mut { message }, tag::resource_logs::RESOURCE).ok().flatten() } else { None };
        let view = ahead.map(|resource| ResourceView::read(resource.bytes())).unwrap_or_default();
        let mut resource = None;
        while let Some(key) = message.key()? {
            match key {
                tag::resource_logs::RESOURCE => {
                    once(&resource, "resource", &message)?;
                    let inner = message.message()?;
                    resource = Some(inner.bytes());
                    self.resource(inner)?;
                }
                tag::resource_logs::SCOPE_LOGS => self.scope_logs(message.message()?, view)?,
                tag::resource_logs::SCHEMA_URL => _ = text::<SHOW>(&mut message, "schema_url")?,
                _ => message.skip(key, tag::resource_logs::KNOWN)?,
            }
        }
        Ok(resource.unwrap_or_default())
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
        let ahead = if SHOW { next(&mut { message }, tag::scope_logs::SCOPE).ok().flatten() } else { None };
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
                tag::scope_logs::SCHEMA_URL => _ = text::<SHOW>(&mut message, "schema_url")?,
                _ => message.skip(key, tag::scope_logs::KNOWN)?,
            }
        }
        Ok(())
    }

    fn scope(&mut self, mut message: Reader<'a>) -> Result<(), WireError> {
        self.values = 0;
        while let Some(key) = message.key()? {
            match key {
                tag::scope::NAME => _ = text::<SHOW>(&mut message, "scope name")?,
                tag::scope::VERSION => _ = text::<SHOW>(&mut message, "scope version")?,
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
        self.attributes.clear();
        let mut record = RecordView::new(message.bytes(), self.records, resource, scope);
        let mut body = None;
        while let Some(key) = message.key()? {
            match key {
                tag::record::ATTRIBUTES => {
                    let attribute = self.key_value(message.message()?, 0)?;
                    if SHOW {
                        self.attributes.push(attribute);
                    }
                }
                tag::record::TIME_UNIX_NANO => record.time_unix_nano = message.fixed64()?,
                tag::record::OBSERVED_TIME_UNIX_NANO => record.observed_time_unix_nano = message.fixed64()?,
                tag::record::SEVERITY_NUMBER => record.severity = severity(message.varint()?),
                tag::record::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                tag::record::SEVERITY_TEXT => record.severity_text = text::<SHOW>(&mut message, "severity_text")?,
                tag::record::BODY => {
                    once(&body, "body", &message)?;
                    body = Some(());
                    record.body = self.any_value(message.message()?, 0)?;
                }
                tag::record::FLAGS => record.flags = message.fixed32()?,
                tag::record::TRACE_ID => record.trace_id = message.len_bytes()?,
                tag::record::SPAN_ID => record.span_id = message.len_bytes()?,
                tag::record::EVENT_NAME => record.event_name = text::<SHOW>(&mut message, "event_name")?,
                _ => message.skip(key, tag::record::KNOWN)?,
            }
        }
        if SHOW {
            (self.each)(record, &self.attributes);
        }
        Ok(())
    }

    #[inline]
    fn key_value(&mut self, mut message: Reader<'a>, depth: u32) -> Result<(&'a str, AnyView<'a>), WireError> {
        self.count(&message)?;
        let (mut name, mut value, mut seen) = ("", AnyView::Empty, None);
        while let Some(key) = message.key()? {
            match key {
                tag::key_value::KEY if SHOW => name = self.keys.read(&mut message)?,
                tag::key_value::KEY => _ = text::<SHOW>(&mut message, "attribute key")?,
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
                tag::any_value::STRING => AnyView::Str(text::<SHOW>(&mut message, "string value")?),
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

/// A string that is looked at, or (when nobody is going to) only checked: nearly all of them are ASCII, and to see that takes
/// a fourth of what it takes to make a `str`.
#[inline]
fn text<'a, const SHOW: bool>(message: &mut Reader<'a>, what: &'static str) -> Result<&'a str, WireError> {
    if !SHOW {
        let mut ahead = *message;
        if ahead.len_bytes()?.is_ascii() {
            *message = ahead;
            return Ok("");
        }
    }
    message.string(what)
}

/// Keys seen in this request, by a hash: a service has few, and comparing one is cheaper than checking it again.
struct Keys<'a>([&'a str; 64]);

impl Default for Keys<'_> {
    fn default() -> Self {
        Self([""; 64])
    }
}

impl<'a> Keys<'a> {
    #[inline]
    fn read(&mut self, message: &mut Reader<'a>) -> Result<&'a str, WireError> {
        let mut ahead = *message;
        let bytes = ahead.len_bytes()?;
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            *message = ahead;
            return Ok("");
        };
        let hash = bytes.len() ^ usize::from(*first) << 2 ^ usize::from(*last).rotate_left(4);
        let seen = &mut self.0[(hash ^ hash >> 6) % 64];
        if seen.as_bytes() == bytes {
            *message = ahead;
        } else {
            *seen = message.string("attribute key")?;
        }
        Ok(seen)
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
