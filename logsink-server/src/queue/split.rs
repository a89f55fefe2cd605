//! Cuts a request between its records, on its wire bytes: into parts that fit a message, or to the one record that a dead
//! letter is about. Each part is a whole request, with the resource and the scope of its records repeated. Pure.
//!
//! Everything is copied byte for byte, unknown fields included, and records keep their order: the n-th record of a part is the
//! (first + n)-th of the request. Only a record that cannot fit by itself is changed, when that is asked for.
//!
//! What the parts repeat has a bound: megabytes of resource above many small records would be written again and again. A request
//! beyond it has no parts.

use logsink::transport::shrink_record;

use crate::otlp::{WireError, tag, wire::Reader};

/// What a field's key and length take around a message at most: one byte and five.
const FRAME_BYTES_MAX: usize = 6;

/// What the parts of a request may have together beside twice its own bytes: the resources of small requests, in a topic that takes
/// little. Twice its bytes are reached only where resource and scope take half of a message. All parts are in memory before the first
/// is sent, so that requests under way take no more than thrice their own bytes.
const GROWTH_FREE: usize = 64 << 10;

/// Why a request has no parts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// Its bytes are no request.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// They would repeat its resources and scopes too often: a request that fits a message is not split.
    #[error("its parts would be more than twice as large as itself")]
    Growth,
}

/// A request made of some of another's records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The index of its first record in the whole request.
    pub(crate) first: u32,
    /// Its records.
    pub(crate) records: u32,
    /// The request.
    pub(crate) payload: Vec<u8>,
    /// Whether its record was cut to fit.
    pub(crate) is_truncated: bool,
    /// Whether it is larger than was asked for: one record that does not fit.
    pub(crate) is_over: bool,
}

/// The request in parts of `bytes_max` bytes at most, as few as can be without changing the order. With `truncate`, a record
/// that does not fit is cut, the longest texts first; it may still be over when it consists of little else than names.
pub(crate) fn split(payload: &[u8], bytes_max: usize, truncate: bool) -> Result<Vec<Part>, SplitError> {
    let room = 2 * payload.len() + GROWTH_FREE;
    let mut parts = Parts { bytes_max, truncate, room, done: Vec::new(), open: Open::default(), index: 0 };
    for_each(payload, &mut |record| parts.add(&record))?;
    parts.close()?;
    Ok(parts.done)
}

/// The request with only the record at `index`; none when there is no such record, or the bytes are no request.
pub(crate) fn one(payload: &[u8], index: u32) -> Option<Vec<u8>> {
    let (mut at, mut found) = (0, None);
    let walked = for_each(payload, &mut |record| {
        if at == index {
            let mut open = Open::default();
            open.add(&record, record.record);
            found = Some(open.close());
        }
        at += 1;
        Ok::<_, WireError>(())
    });
    walked.ok()?;
    found
}

/// A record with what is said once for several.
#[derive(Clone, Copy)]
struct Located<'a> {
    /// The `ResourceLogs` and the `ScopeLogs` that it stands in.
    resource_logs: &'a [u8],
    scope_logs: &'a [u8],
    /// The record with its field's key and length.
    record: &'a [u8],
}

/// Shows the records, until one is refused.
fn for_each<'a, E: From<WireError>>(
    payload: &'a [u8],
    each: &mut dyn FnMut(Located<'a>) -> Result<(), E>,
) -> Result<(), E> {
    fields(payload, tag::request::RESOURCE_LOGS, &mut |_, resource_logs| {
        fields(resource_logs, tag::resource_logs::SCOPE_LOGS, &mut |_, scope_logs| {
            fields(scope_logs, tag::scope_logs::LOG_RECORDS, &mut |record, _| {
                each(Located { resource_logs, scope_logs, record })
            })
        })
    })
}

/// What a field's visitor gets: the field with its key and length, and its content.
type Visit<'v, 'a, E> = &'v mut dyn FnMut(&'a [u8], &'a [u8]) -> Result<(), E>;

/// Shows the fields with this key.
fn fields<'a, E: From<WireError>>(message: &'a [u8], wanted: u32, visit: Visit<'_, 'a, E>) -> Result<(), E> {
    let mut reader = Reader::new(message);
    loop {
        let start = reader.position();
        let Some(key) = reader.key()? else { return Ok(()) };
        if key == wanted {
            let content = reader.len_bytes()?;
            visit(&message[start..reader.position()], content)?;
        } else {
            reader.pass(key)?;
        }
    }
}

/// All fields but those with this key. The message was walked before.
fn rest(message: &[u8], unwanted: u32) -> Vec<u8> {
    let (mut rest, mut reader) = (Vec::new(), Reader::new(message));
    loop {
        let start = reader.position();
        let Ok(Some(key)) = reader.key() else { return rest };
        if reader.pass(key).is_err() {
            return rest;
        }
        if key != unwanted {
            rest.extend_from_slice(&message[start..reader.position()]);
        }
    }
}

struct Parts<'a> {
    bytes_max: usize,
    truncate: bool,
    /// Bytes that further parts may have.
    room: usize,
    done: Vec<Part>,
    open: Open<'a>,
    /// The index of the next record.
    index: u32,
}

impl<'a> Parts<'a> {
    fn add(&mut self, record: &Located<'a>) -> Result<(), SplitError> {
        if self.open.records > 0 && self.open.bytes_with(record, record.record.len()) > self.bytes_max {
            self.close()?;
        }
        let mut is_alone = false;
        let around = self.open.bytes_with(record, 0);
        if around + record.record.len() <= self.bytes_max {
            self.open.add(record, record.record);
        } else {
            let room = self.bytes_max.saturating_sub(around);
            let shrunk = if self.truncate { shrink_record(record.record, room) } else { None };
            self.open.add(record, shrunk.as_deref().unwrap_or(record.record));
            self.open.is_truncated = shrunk.is_some();
            is_alone = true;
        }
        self.index += 1;
        if is_alone { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), SplitError> {
        let records = self.open.records;
        if records > 0 {
            let open = std::mem::take(&mut self.open);
            let (first, is_truncated) = (self.index - records, open.is_truncated);
            let payload = open.close();
            // What was reckoned with was the longest that lengths can be.
            let is_over = payload.len() > self.bytes_max;
            self.room = self.room.checked_sub(payload.len()).ok_or(SplitError::Growth)?;
            self.done.push(Part { first, records, payload, is_truncated, is_over });
        }
        Ok(())
    }
}

/// A part that is being written: finished resources, and a resource and a scope that may get more.
#[derive(Default)]
struct Open<'a> {
    out: Vec<u8>,
    resource: Option<(&'a [u8], Vec<u8>)>,
    scope: Option<(&'a [u8], Vec<u8>)>,
    records: u32,
    is_truncated: bool,
}

impl<'a> Open<'a> {
    /// At most how many bytes the part has with a record of so many more.
    fn bytes_with(&self, record: &Located<'a>, bytes: usize) -> usize {
        let open = |open: &Option<(&[u8], Vec<u8>)>| open.as_ref().map_or(0, |(_, out)| out.len() + FRAME_BYTES_MAX);
        let mut all = self.out.len() + open(&self.resource) + open(&self.scope) + bytes;
        if !is_same(&self.resource, record.resource_logs) {
            all += rest(record.resource_logs, tag::resource_logs::SCOPE_LOGS).len() + FRAME_BYTES_MAX;
        }
        if !is_same(&self.scope, record.scope_logs) {
            all += rest(record.scope_logs, tag::scope_logs::LOG_RECORDS).len() + FRAME_BYTES_MAX;
        }
        all
    }

    fn add(&mut self, record: &Located<'a>, bytes: &[u8]) {
        if !is_same(&self.resource, record.resource_logs) {
            self.end_resource();
            let rest = rest(record.resource_logs, tag::resource_logs::SCOPE_LOGS);
            self.resource = Some((record.resource_logs, rest));
        }
        if !is_same(&self.scope, record.scope_logs) {
            self.end_scope();
            self.scope = Some((record.scope_logs, rest(record.scope_logs, tag::scope_logs::LOG_RECORDS)));
        }
        if let Some((_, out)) = &mut self.scope {
            out.extend_from_slice(bytes);
        }
        self.records += 1;
    }

    fn end_scope(&mut self) {
        if let (Some((_, scope)), Some((_, out))) = (self.scope.take(), &mut self.resource) {
            put(tag::resource_logs::SCOPE_LOGS, &scope, out);
        }
    }

    fn end_resource(&mut self) {
        self.end_scope();
        if let Some((_, resource)) = self.resource.take() {
            put(tag::request::RESOURCE_LOGS, &resource, &mut self.out);
        }
    }

    fn close(mut self) -> Vec<u8> {
        self.end_resource();
        self.out
    }
}

/// Whether these are the same bytes of the same request, not only equal ones.
fn is_same(open: &Option<(&[u8], Vec<u8>)>, message: &[u8]) -> bool {
    open.as_ref().is_some_and(|(own, _)| std::ptr::eq(*own, message))
}

/// Writes a length-delimited field.
pub(super) fn put(key: u32, bytes: &[u8], out: &mut Vec<u8>) {
    for mut value in [u64::from(key), bytes.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
        resource::v1::Resource,
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn text(text: impl Into<String>) -> Option<AnyValue> {
        Some(AnyValue { value: Some(Value::StringValue(text.into())) })
    }

    /// Resources of scopes of records, each record with as many bytes of text.
    fn request(shape: &[Vec<Vec<usize>>]) -> ExportLogsServiceRequest {
        let mut number = 0;
        let mut record = |bytes: usize| {
            number += 1;
            LogRecord { time_unix_nano: number, body: text("x".repeat(bytes)), ..LogRecord::default() }
        };
        let resources = shape.iter().enumerate().map(|(index, scopes)| {
            let service =
                KeyValue { key: "service.name".into(), value: text(format!("s{index}")), ..KeyValue::default() };
            let scope_logs = scopes.iter().enumerate().map(|(index, records)| ScopeLogs {
                scope: Some(InstrumentationScope { name: format!("scope {index}"), ..InstrumentationScope::default() }),
                log_records: records.iter().map(|bytes| record(*bytes)).collect(),
                schema_url: "scope url".into(),
            });
            ResourceLogs {
                resource: Some(Resource { attributes: vec![service], ..Resource::default() }),
                scope_logs: scope_logs.collect(),
                schema_url: "url".into(),
            }
        });
        ExportLogsServiceRequest { resource_logs: resources.collect() }
    }

    /// Every record with what it comes from, as the official types see them.
    fn flat(request: &ExportLogsServiceRequest) -> Vec<(ResourceLogs, ScopeLogs, LogRecord)> {
        let mut flat = Vec::new();
        for resource in &request.resource_logs {
            for scope in &resource.scope_logs {
                for record in &scope.log_records {
                    let resource = ResourceLogs { scope_logs: Vec::new(), ..resource.clone() };
                    let scope = ScopeLogs { log_records: Vec::new(), ..scope.clone() };
                    flat.push((resource, scope, record.clone()));
                }
            }
        }
        flat
    }

    fn decode(part: &Part) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest::decode(&*part.payload).unwrap()
    }

    proptest! {
        #[test]
        fn the_parts_together_are_the_request(
            shape in prop::collection::vec(prop::collection::vec(prop::collection::vec(0_usize..400, 0..6), 0..4), 0..4),
            bytes_max in 100_usize..2_000,
        ) {
            let whole = request(&shape);
            let payload = whole.encode_to_vec();
            let parts = split(&payload, bytes_max, false).unwrap();
            let mut all = Vec::new();
            for part in &parts {
                prop_assert_eq!(part.first as usize, all.len());
                let decoded = flat(&decode(part));
                prop_assert_eq!(part.records as usize, decoded.len());
                prop_assert_eq!(part.is_over, part.payload.len() > bytes_max);
                prop_assert!(!part.is_over || part.records == 1);
                all.extend(decoded);
            }
            prop_assert_eq!(&all, &flat(&whole));
            for (index, expected) in all.iter().enumerate() {
                let single = ExportLogsServiceRequest::decode(&*one(&payload, index as u32).unwrap()).unwrap();
                prop_assert_eq!(&flat(&single), &vec![expected.clone()]);
            }
            prop_assert_eq!(one(&payload, all.len() as u32), None);
        }

        #[test]
        fn garbage_does_no_harm(bytes: Vec<u8>, bytes_max: u16, index: u8) {
            let _ = split(&bytes, usize::from(bytes_max), true);
            one(&bytes, u32::from(index));
        }
    }

    #[test]
    fn what_fits_is_one_part() {
        let payload = request(&[vec![vec![10, 10], vec![5]]]).encode_to_vec();
        let parts = split(&payload, payload.len() + 64, true).unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].payload.len(), payload.len(), "fields in another order, and nothing else");
        assert_eq!(decode(&parts[0]), ExportLogsServiceRequest::decode(&*payload).unwrap());
    }

    #[test]
    fn a_record_that_cannot_fit_is_cut_and_the_others_are_not() {
        let payload = request(&[vec![vec![10, 9_000, 10]]]).encode_to_vec();
        let parts = split(&payload, 1_000, true).unwrap();
        let shape: Vec<_> =
            parts.iter().map(|part| (part.first, part.records, part.is_truncated, part.is_over)).collect();
        assert_eq!(shape, [(0, 1, false, false), (1, 1, true, false), (2, 1, false, false)]);
        assert!(parts[1].payload.len() <= 1_000);
        let (_, _, record) = &flat(&decode(&parts[1]))[0];
        assert_eq!(record.attributes[0].key, "logsink.truncated.original_bytes");
        assert!(split(&payload, 1_000, false).unwrap()[1].is_over);
    }

    #[test]
    fn a_resource_is_not_repeated_without_bound() {
        let with_resource = |bytes: usize, records: usize| {
            let mut request = request(&[vec![vec![0; records]]]);
            request.resource_logs[0].schema_url = "r".repeat(bytes);
            request.encode_to_vec()
        };
        let mut payload = with_resource(200_000, 10_000);
        let grown = |payload: &[u8], bytes_max| {
            split(payload, bytes_max, true).map(|parts| parts.iter().map(|part| part.payload.len()).sum::<usize>())
        };
        // A quarter of a message, and all but a little of it.
        assert!(grown(&payload, 800_000).unwrap() < 2 * payload.len());
        assert_eq!(grown(&payload, 201_000), Err(SplitError::Growth));
        assert_eq!(grown(&payload, 100_000), Err(SplitError::Growth), "each record would be too large");
        // Nothing is read of what comes after.
        payload.extend(b"\xffgarbage");
        assert_eq!(grown(&payload, 201_000), Err(SplitError::Growth));
        // It stands little above what a small topic takes.
        assert!(grown(&with_resource(500, 100), 1_000).is_ok());
    }
}
