//! Copies a request with some of its records changed. Everything else is copied byte for byte, unknown fields included, and
//! every record keeps its place.

use logsink::{Severity, filter::rules::REDACTED};

use crate::otlp::{WireError, tag, wire::Reader};

/// What becomes of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Its index in the request.
    pub(super) index: u32,
    /// Its new level.
    pub(super) level: Option<Severity>,
    /// The attributes to redact, each with all below it; `message` for the body.
    pub(super) redact: Vec<String>,
}

/// The request with these changes, which are in ascending order.
pub(super) fn rewrite(payload: &[u8], changes: &[Change]) -> Result<Vec<u8>, WireError> {
    let mut changes = changes.iter().peekable();
    let mut index = 0;
    let mut out = Vec::with_capacity(payload.len() + changes.len() * 32);
    copy(payload, &mut out, &mut |key, resource_logs, out| {
        if key != tag::request::RESOURCE_LOGS {
            return Ok(false);
        }
        nested(key, resource_logs, out, &mut |key, scope_logs, out| {
            if key != tag::resource_logs::SCOPE_LOGS {
                return Ok(false);
            }
            nested(key, scope_logs, out, &mut |key, found, out| {
                if key != tag::scope_logs::LOG_RECORDS {
                    return Ok(false);
                }
                let change = changes.next_if(|change| change.index == index);
                index += 1;
                match change {
                    Some(change) => record(key, found, change, out),
                    None => Ok(false),
                }
            })
        })
    })?;
    Ok(out)
}

fn record(key: u32, bytes: &[u8], change: &Change, out: &mut Vec<u8>) -> Result<bool, WireError> {
    let redacts_message = change.redact.iter().any(|field| field == "message");
    let mut inner = Vec::with_capacity(bytes.len() + 32);
    copy(bytes, &mut inner, &mut |key, value, out| match key {
        tag::record::SEVERITY_NUMBER | tag::record::SEVERITY_TEXT => Ok(change.level.is_some()),
        tag::record::BODY if redacts_message => {
            put_bytes(key, &redacted(), out);
            Ok(true)
        }
        tag::record::ATTRIBUTES => pair(key, value, "", &change.redact, out),
        _ => Ok(false),
    })?;
    if let Some(level) = change.level {
        put_varint(u64::from(tag::record::SEVERITY_NUMBER), &mut inner);
        put_varint(u64::from(level.0), &mut inner);
        put_bytes(tag::record::SEVERITY_TEXT, level.name().to_ascii_uppercase().as_bytes(), &mut inner);
    }
    put_bytes(key, &inner, out);
    Ok(true)
}

/// One `KeyValue` below `path`, redacted itself or within its value.
fn pair(field: u32, bytes: &[u8], path: &str, redact: &[String], out: &mut Vec<u8>) -> Result<bool, WireError> {
    let mut name = "";
    let mut message = Reader::new(bytes);
    while let Some(key) = message.key()? {
        match key {
            tag::key_value::KEY => name = message.string("attribute key")?,
            _ => message.pass(key)?,
        }
    }
    let path = format!("{path}{name}");
    let covers =
        |field: &String| path.strip_prefix(field.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if redact.iter().any(covers) {
        let mut inner = Vec::new();
        put_bytes(tag::key_value::KEY, name.as_bytes(), &mut inner);
        put_bytes(tag::key_value::VALUE, &redacted(), &mut inner);
        put_bytes(field, &inner, out);
        return Ok(true);
    }
    let path = format!("{path}.");
    if !redact.iter().any(|field| field.starts_with(&path)) {
        return Ok(false);
    }
    nested(field, bytes, out, &mut |key, value, out| match key {
        tag::key_value::VALUE => nested(key, value, out, &mut |key, list, out| match key {
            tag::any_value::KVLIST => nested(key, list, out, &mut |key, inner, out| match key {
                tag::list::VALUES => pair(key, inner, &path, redact, out),
                _ => Ok(false),
            }),
            _ => Ok(false),
        }),
        _ => Ok(false),
    })
}

/// The `AnyValue` that stands in for a redacted one.
fn redacted() -> Vec<u8> {
    let mut value = Vec::new();
    put_bytes(tag::any_value::STRING, REDACTED.as_bytes(), &mut value);
    value
}

/// Writes a field itself (`true`: it may also leave it out), or says that the field is to be copied as it is.
type Field<'f> = &'f mut dyn FnMut(u32, &[u8], &mut Vec<u8>) -> Result<bool, WireError>;

/// Copies a message. Each field is shown to `field` first: its content when it is length-delimited, else nothing.
fn copy(bytes: &[u8], out: &mut Vec<u8>, field: Field<'_>) -> Result<(), WireError> {
    let mut message = Reader::new(bytes);
    loop {
        let start = message.position();
        let Some(key) = message.key()? else { return Ok(()) };
        let content: &[u8] = if key & 7 == 2 {
            message.len_bytes()?
        } else {
            message.pass(key)?;
            &[]
        };
        if !field(key, content, out)? {
            out.extend_from_slice(&bytes[start..message.position()]);
        }
    }
}

/// As [`copy`], for the message in a field, with the field's key and length around it.
fn nested(key: u32, bytes: &[u8], out: &mut Vec<u8>, field: Field<'_>) -> Result<bool, WireError> {
    let mut inner = Vec::with_capacity(bytes.len() + 32);
    copy(bytes, &mut inner, field)?;
    put_bytes(key, &inner, out);
    Ok(true)
}

fn put_bytes(key: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(key), out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
