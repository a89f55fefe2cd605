//! The deep check: every length, string and nesting of a request, once, before anything relies on it.

use super::{
    tag,
    value::Pairs,
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

/// Checks a whole request: lengths, wire types, UTF-8, nesting and `limits`.
///
/// # Errors
/// What is wrong, and at which byte of the payload.
pub fn check<'a>(payload: &'a [u8], limits: &Limits) -> Result<Summary<'a>, WireError> {
    let mut checker = Checker { limits, records: 0, values: 0 };
    let mut request = Reader::new(payload);
    let mut service = None;
    while let Some(key) = request.key()? {
        match key {
            tag::request::RESOURCE_LOGS => {
                let resource = checker.resource_logs(request.message()?)?;
                service.get_or_insert_with(|| Pairs::new(resource, tag::resource::ATTRIBUTES).text("service.name"));
            }
            _ => request.skip(key, tag::request::KNOWN)?,
        }
    }
    Ok(Summary { records: checker.records, service: service.unwrap_or_default() })
}

struct Checker<'l> {
    limits: &'l Limits,
    records: u32,
    /// Values seen in the record, resource or scope at hand.
    values: u32,
}

impl Checker<'_> {
    /// Returns the bytes of the resource.
    fn resource_logs<'a>(&mut self, mut message: Reader<'a>) -> Result<&'a [u8], WireError> {
        let mut resource = None;
        while let Some(key) = message.key()? {
            match key {
                tag::resource_logs::RESOURCE => {
                    once(&resource, "resource", &message)?;
                    let inner = message.message()?;
                    resource = Some(inner.bytes());
                    self.resource(inner)?;
                }
                tag::resource_logs::SCOPE_LOGS => self.scope_logs(message.message()?)?,
                tag::resource_logs::SCHEMA_URL => _ = message.string("schema_url")?,
                _ => message.skip(key, tag::resource_logs::KNOWN)?,
            }
        }
        Ok(resource.unwrap_or_default())
    }

    fn resource(&mut self, mut message: Reader<'_>) -> Result<(), WireError> {
        self.values = 0;
        while let Some(key) = message.key()? {
            match key {
                tag::resource::ATTRIBUTES => self.key_value(message.message()?, 0)?,
                tag::resource::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                tag::resource::ENTITY_REFS => entity_ref(message.message()?)?,
                _ => message.skip(key, tag::resource::KNOWN)?,
            }
        }
        Ok(())
    }

    fn scope_logs(&mut self, mut message: Reader<'_>) -> Result<(), WireError> {
        let mut scope = None;
        while let Some(key) = message.key()? {
            match key {
                tag::scope_logs::LOG_RECORDS => {
                    if self.records == self.limits.records_max {
                        return Err(over(&message, "records in the request", self.limits.records_max));
                    }
                    self.records += 1;
                    let record = message.message()?;
                    if record.bytes().len() > self.limits.record_bytes_max as usize {
                        return Err(over(&record, "bytes in a record", self.limits.record_bytes_max));
                    }
                    self.record(record)?;
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

    fn scope(&mut self, mut message: Reader<'_>) -> Result<(), WireError> {
        self.values = 0;
        while let Some(key) = message.key()? {
            match key {
                tag::scope::NAME => _ = message.string("scope name")?,
                tag::scope::VERSION => _ = message.string("scope version")?,
                tag::scope::ATTRIBUTES => self.key_value(message.message()?, 0)?,
                tag::scope::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                _ => message.skip(key, tag::scope::KNOWN)?,
            }
        }
        Ok(())
    }

    fn record(&mut self, mut message: Reader<'_>) -> Result<(), WireError> {
        self.values = 0;
        let mut body = None;
        while let Some(key) = message.key()? {
            match key {
                tag::record::ATTRIBUTES => self.key_value(message.message()?, 0)?,
                tag::record::TIME_UNIX_NANO | tag::record::OBSERVED_TIME_UNIX_NANO => _ = message.fixed64()?,
                tag::record::SEVERITY_NUMBER | tag::record::DROPPED_ATTRIBUTES_COUNT => _ = message.varint()?,
                tag::record::SEVERITY_TEXT => _ = message.string("severity_text")?,
                tag::record::BODY => {
                    once(&body, "body", &message)?;
                    body = Some(());
                    self.any_value(message.message()?, 0)?;
                }
                tag::record::FLAGS => _ = message.fixed32()?,
                tag::record::TRACE_ID | tag::record::SPAN_ID => _ = message.message()?,
                tag::record::EVENT_NAME => _ = message.string("event_name")?,
                _ => message.skip(key, tag::record::KNOWN)?,
            }
        }
        Ok(())
    }

    fn key_value(&mut self, mut message: Reader<'_>, depth: u32) -> Result<(), WireError> {
        self.count(&message)?;
        let mut value = None;
        while let Some(key) = message.key()? {
            match key {
                tag::key_value::KEY => _ = message.string("attribute key")?,
                tag::key_value::VALUE => {
                    once(&value, "attribute value", &message)?;
                    value = Some(());
                    self.any_value(message.message()?, depth)?;
                }
                tag::key_value::KEY_STRINDEX => _ = message.varint()?,
                _ => message.skip(key, tag::key_value::KNOWN)?,
            }
        }
        Ok(())
    }

    fn any_value(&mut self, mut message: Reader<'_>, depth: u32) -> Result<(), WireError> {
        if depth > DEPTH_MAX {
            return Err(message.error(WireFault::TooDeep));
        }
        // The list that the oneof holds: another of its kind would have to be merged into it.
        let mut list = 0;
        while let Some(key) = message.key()? {
            if key == list {
                return Err(message.error(WireFault::Repeated("a list value")));
            }
            match key {
                tag::any_value::STRING => _ = message.string("string value")?,
                tag::any_value::BOOL | tag::any_value::INT | tag::any_value::STRING_STRINDEX => _ = message.varint()?,
                tag::any_value::DOUBLE => _ = message.fixed64()?,
                tag::any_value::BYTES => _ = message.message()?,
                tag::any_value::ARRAY | tag::any_value::KVLIST => {
                    let mut values = message.message()?;
                    while let Some(inner) = values.key()? {
                        match inner {
                            tag::list::VALUES if key == tag::any_value::ARRAY => {
                                self.count(&values)?;
                                self.any_value(values.message()?, depth + 1)?;
                            }
                            tag::list::VALUES => self.key_value(values.message()?, depth + 1)?,
                            _ => values.skip(inner, tag::list::KNOWN)?,
                        }
                    }
                }
                _ => message.skip(key, tag::any_value::KNOWN)?,
            }
            list = match key {
                tag::any_value::ARRAY | tag::any_value::KVLIST => key,
                _ if key >> 3 <= 8 => 0,
                _ => list,
            };
        }
        Ok(())
    }

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
