//! Records, resources and scopes as they lie in the wire bytes.

use std::borrow::Cow;

use logsink::{
    Severity,
    filter::{EventView, Value},
};

use super::{
    tag,
    value::{AnyView, Pairs},
    wire::{Reader, WireError},
};

/// One log record. Plain values are read; attributes stay bytes until they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its place in the request, from 0, over all resources and scopes.
    pub index: u32,
    /// What it comes from.
    pub resource: ResourceView<'a>,
    /// What made it.
    pub scope: ScopeView<'a>,
    /// When it happened, Unix nanoseconds; 0 when unknown.
    pub time_unix_nano: u64,
    /// When it was first seen, Unix nanoseconds; 0 when unknown.
    pub observed_time_unix_nano: u64,
    /// 1 to 24; 0 when there is none or it is none of these.
    pub severity: Severity,
    /// The sender's own name of the severity.
    pub severity_text: &'a str,
    /// The message.
    pub body: AnyView<'a>,
    /// W3C trace flags in the lowest byte.
    pub flags: u32,
    /// The name of the event's kind; empty for a plain log record.
    pub event_name: &'a str,
    /// The bytes of the `LogRecord` message.
    pub raw: &'a [u8],
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// When it happened: `time_unix_nano`, else `observed_time_unix_nano`, Unix nanoseconds; 0 when there is neither.
    pub fn time_ns(&self) -> u64 {
        if self.time_unix_nano == 0 { self.observed_time_unix_nano } else { self.time_unix_nano }
    }

    /// With this trace and span where the record names neither.
    pub(crate) fn or_trace(mut self, (trace, span): &'a ([u8; 16], [u8; 8])) -> Self {
        if self.trace_id().is_none() && self.span_id().is_none() {
            (self.trace_id, self.span_id) = (trace, span);
        }
        self
    }

    /// The attributes.
    pub fn attributes(&self) -> Pairs<'a> {
        Pairs::new(self.raw, tag::record::ATTRIBUTES)
    }

    /// The trace id; none when it is not 16 bytes or all zero.
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        id(self.trace_id)
    }

    /// The span id; none when it is not 8 bytes or all zero.
    pub fn span_id(&self) -> Option<[u8; 8]> {
        id(self.span_id)
    }

    /// The scope's name; empty when there is none.
    pub fn scope_name(&self) -> &'a str {
        self.scope.name
    }

    /// The `target` attribute when it is text, else the scope's name; empty when there is neither.
    pub fn target(&self) -> &'a str {
        match self.attributes().get("target") {
            Some(AnyView::Str(target)) => target,
            _ => self.scope.name,
        }
    }

    /// A record of which nothing is known but where it stands.
    #[inline]
    pub(super) fn new(raw: &'a [u8], index: u32, resource: ResourceView<'a>, scope: ScopeView<'a>) -> Self {
        Self {
            index,
            resource,
            scope,
            time_unix_nano: 0,
            observed_time_unix_nano: 0,
            severity: Severity::UNSPECIFIED,
            severity_text: "",
            body: AnyView::Empty,
            flags: 0,
            event_name: "",
            raw,
            trace_id: &[],
            span_id: &[],
        }
    }

    fn read(
        mut message: Reader<'a>,
        index: u32,
        resource: ResourceView<'a>,
        scope: ScopeView<'a>,
    ) -> Result<Self, WireError> {
        let mut record = Self::new(message.bytes(), index, resource, scope);
        while let Some(key) = message.key()? {
            match key {
                tag::record::TIME_UNIX_NANO => record.time_unix_nano = message.fixed64()?,
                tag::record::OBSERVED_TIME_UNIX_NANO => record.observed_time_unix_nano = message.fixed64()?,
                tag::record::SEVERITY_NUMBER => record.severity = severity(message.varint()?),
                tag::record::SEVERITY_TEXT => record.severity_text = message.string("severity_text")?,
                tag::record::BODY => record.body = AnyView::read(message.message()?)?,
                tag::record::FLAGS => record.flags = message.fixed32()?,
                tag::record::TRACE_ID => record.trace_id = message.len_bytes()?,
                tag::record::SPAN_ID => record.span_id = message.len_bytes()?,
                tag::record::EVENT_NAME => record.event_name = message.string("event_name")?,
                _ => message.pass(key)?,
            }
        }
        Ok(record)
    }
}

impl EventView for RecordView<'_> {
    fn severity(&self) -> Severity {
        self.severity
    }

    fn service(&self) -> &str {
        self.resource.service
    }

    fn target(&self) -> &str {
        RecordView::target(self)
    }

    fn message(&self) -> Cow<'_, str> {
        self.body.text()
    }

    fn trace_id(&self) -> Option<[u8; 16]> {
        RecordView::trace_id(self)
    }

    fn span_id(&self) -> Option<[u8; 8]> {
        RecordView::span_id(self)
    }

    fn attribute(&self, key: &str) -> Option<Value<'_>> {
        self.attributes().find(key).or_else(|| self.resource.attributes().find(key))?.to_value()
    }
}

/// What a record comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceView<'a> {
    /// The bytes of the `Resource` message.
    pub raw: &'a [u8],
    /// `service.name`; empty when there is none.
    pub service: &'a str,
}

impl<'a> ResourceView<'a> {
    /// The attributes.
    pub fn attributes(&self) -> Pairs<'a> {
        Pairs::new(self.raw, tag::resource::ATTRIBUTES)
    }

    pub(super) fn read(raw: &'a [u8]) -> Self {
        Self { raw, service: Pairs::new(raw, tag::resource::ATTRIBUTES).text("service.name") }
    }
}

/// What made a record: a library, by name.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScopeView<'a> {
    /// The bytes of the `InstrumentationScope` message.
    pub raw: &'a [u8],
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

impl<'a> ScopeView<'a> {
    /// The attributes.
    pub fn attributes(&self) -> Pairs<'a> {
        Pairs::new(self.raw, tag::scope::ATTRIBUTES)
    }

    pub(super) fn read(mut message: Reader<'a>) -> Result<Self, WireError> {
        let mut scope = Self { raw: message.bytes(), ..Self::default() };
        while let Some(key) = message.key()? {
            match key {
                tag::scope::NAME => scope.name = message.string("scope name")?,
                tag::scope::VERSION => scope.version = message.string("scope version")?,
                _ => message.pass(key)?,
            }
        }
        Ok(scope)
    }
}

/// Shows every record of a payload that was checked before: strings are looked at where they are asked for, and lists not at
/// all. A resource or a scope is known before the first of its records is shown, wherever
/// it stands in its message.
///
/// # Errors
/// When the payload was not checked and is not an `ExportLogsServiceRequest`; records may have been shown then.
pub fn walk<'a>(payload: &'a [u8], each: &mut dyn FnMut(RecordView<'a>)) -> Result<(), WireError> {
    let mut index = 0;
    let mut request = Reader::new(payload);
    while let Some(resource_logs) = next(&mut request, tag::request::RESOURCE_LOGS)? {
        let resource = next(&mut { resource_logs }, tag::resource_logs::RESOURCE)?;
        let resource = resource.map(|resource| ResourceView::read(resource.bytes())).unwrap_or_default();
        let mut rest = resource_logs;
        while let Some(scope_logs) = next(&mut rest, tag::resource_logs::SCOPE_LOGS)? {
            let scope = next(&mut { scope_logs }, tag::scope_logs::SCOPE)?;
            let scope = scope.map(ScopeView::read).transpose()?.unwrap_or_default();
            let mut rest = scope_logs;
            while let Some(record) = next(&mut rest, tag::scope_logs::LOG_RECORDS)? {
                each(RecordView::read(record, index, resource, scope)?);
                index += 1;
            }
        }
    }
    Ok(())
}

/// Whether one of a request's resources is such a one. Their records are not looked at.
///
/// # Errors
/// When what was looked at is not an `ExportLogsServiceRequest`.
pub fn any_resource<'a>(payload: &'a [u8], mut is: impl FnMut(ResourceView<'a>) -> bool) -> Result<bool, WireError> {
    let mut request = Reader::new(payload);
    while let Some(mut resource_logs) = next(&mut request, tag::request::RESOURCE_LOGS)? {
        let resource = next(&mut resource_logs, tag::resource_logs::RESOURCE)?;
        if is(resource.map(|resource| ResourceView::read(resource.bytes())).unwrap_or_default()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The next message in the field `wanted`; what stands before it is passed over.
pub(super) fn next<'a>(message: &mut Reader<'a>, wanted: u32) -> Result<Option<Reader<'a>>, WireError> {
    while let Some(key) = message.key()? {
        if key == wanted {
            return message.message().map(Some);
        }
        message.pass(key)?;
    }
    Ok(None)
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|id| *id != [0; N])
}

pub(super) fn severity(number: u64) -> Severity {
    // An enumeration is an int32: a decoder keeps the low half.
    match number as u32 {
        number @ 1..=24 => Severity(number as u8),
        _ => Severity::UNSPECIFIED,
    }
}
