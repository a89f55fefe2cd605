//! Copies a request with some of its records changed, and without others. Everything else is copied byte for byte, unknown fields
//! included.

use std::{iter::Peekable, slice};

use logsink::{
    Severity,
    filter::rules::{Buffers, Edits, MESSAGE, REPEATED},
};

use crate::otlp::{WireError, tag, wire::Reader};

/// What becomes of one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'c> {
    /// Its index in the request.
    pub(super) index: u32,
    /// Its new level.
    pub(super) level: Option<Severity>,
    /// How many like it were dropped before it.
    pub(super) repeated: u64,
    /// What must not stay as it is.
    pub(super) edits: Edits<'c>,
}

/// The request with these changes, and without the records in `removed`; both are in ascending order. What loses all of its records, a
/// scope or a resource, goes with them.
pub(super) fn rewrite(payload: &[u8], changes: &[Change<'_>], removed: &[u32]) -> Result<Vec<u8>, WireError> {
    let mut records =
        Records { index: 0, kept: 0, changes: changes.iter().peekable(), removed: removed.iter().peekable() };
    let mut out = Vec::with_capacity(payload.len() + changes.len() * 32);
    copy(payload, &mut out, &mut |key, content, out| match key {
        tag::request::RESOURCE_LOGS => records.within(key, content, out, Records::resource_logs),
        _ => Ok(false),
    })?;
    // It may wait in the queue's memory for long.
    if out.len() < payload.len() / 2 {
        out.shrink_to_fit();
    }
    Ok(out)
}

/// Goes through the records of a request.
struct Records<'c> {
    /// Of the next one.
    index: u32,
    /// How many before it are still there.
    kept: u32,
    changes: Peekable<slice::Iter<'c, Change<'c>>>,
    removed: Peekable<slice::Iter<'c, u32>>,
}

impl Records<'_> {
    fn resource_logs(&mut self, key: u32, content: &[u8], out: &mut Vec<u8>) -> Result<bool, WireError> {
        match key {
            tag::resource_logs::SCOPE_LOGS => self.within(key, content, out, Self::scope_logs),
            _ => Ok(false),
        }
    }

    fn scope_logs(&mut self, key: u32, content: &[u8], out: &mut Vec<u8>) -> Result<bool, WireError> {
        if key != tag::scope_logs::LOG_RECORDS {
            return Ok(false);
        }
        let index = self.index;
        self.index += 1;
        let change = self.changes.next_if(|change| change.index == index);
        if self.removed.next_if(|removed| **removed == index).is_some() {
            return Ok(true);
        }
        self.kept += 1;
        change.map_or(Ok(false), |change| record(key, content, change, out))
    }

    /// Writes a message that has records in it, unless none of them is left.
    fn within(
        &mut self,
        key: u32,
        content: &[u8],
        out: &mut Vec<u8>,
        field: RecordsField<Self>,
    ) -> Result<bool, WireError> {
        let (start, index, kept) = (out.len(), self.index, self.kept);
        put_varint(u64::from(key), out);
        let inner = out.len();
        copy(content, out, &mut |key, content, out| field(self, key, content, out))?;
        if self.index > index && self.kept == kept {
            out.truncate(start);
            return Ok(true);
        }
        // Its length is known only now, and moves it by a few bytes: another buffer would take as much memory once more.
        let mut len = Vec::with_capacity(10);
        put_varint((out.len() - inner) as u64, &mut len);
        out.splice(inner..inner, len);
        Ok(true)
    }
}

fn record(key: u32, bytes: &[u8], change: &Change<'_>, out: &mut Vec<u8>) -> Result<bool, WireError> {
    let mut editor = Editor { edits: change.edits, buffers: Buffers::default() };
    let mut inner = Vec::with_capacity(bytes.len() + 32);
    copy(bytes, &mut inner, &mut |key, value, out| match key {
        tag::record::SEVERITY_NUMBER | tag::record::SEVERITY_TEXT => Ok(change.level.is_some()),
        tag::record::BODY => put_edited(key, editor.value(MESSAGE, value)?, out),
        tag::record::ATTRIBUTES => {
            if change.repeated > 0 && name(value)? == REPEATED {
                return Ok(true);
            }
            put_edited(key, editor.pair("", value)?, out)
        }
        _ => Ok(false),
    })?;
    if let Some(level) = change.level {
        put_varint(u64::from(tag::record::SEVERITY_NUMBER), &mut inner);
        put_varint(u64::from(level.0), &mut inner);
        put_bytes(tag::record::SEVERITY_TEXT, level.name().to_ascii_uppercase().as_bytes(), &mut inner);
    }
    if change.repeated > 0 {
        let mut count = Vec::new();
        put_varint(u64::from(tag::any_value::INT), &mut count);
        put_varint(change.repeated, &mut count);
        let mut pair = Vec::new();
        put_bytes(tag::key_value::KEY, REPEATED.as_bytes(), &mut pair);
        put_bytes(tag::key_value::VALUE, &count, &mut pair);
        put_bytes(tag::record::ATTRIBUTES, &pair, &mut inner);
    }
    put_bytes(key, &inner, out);
    Ok(true)
}

/// The key of a `KeyValue`.
fn name(bytes: &[u8]) -> Result<&str, WireError> {
    let mut name = "";
    let mut message = Reader::new(bytes);
    while let Some(key) = message.key()? {
        match key {
            tag::key_value::KEY => name = message.string("attribute key")?,
            _ => message.pass(key)?,
        }
    }
    Ok(name)
}

/// Changes values as the rules want it. Each answer is the new bytes of the message, or `None` when nothing in it changes.
struct Editor<'e> {
    edits: Edits<'e>,
    buffers: Buffers,
}

impl Editor<'_> {
    /// A `KeyValue` below `path`, which is empty or ends with a dot.
    fn pair(&mut self, path: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        if self.edits.is_empty() {
            return Ok(None);
        }
        let path = format!("{path}{}", name(bytes)?);
        changed(bytes, &mut |key, value, out| match key {
            tag::key_value::VALUE => put_edited(key, self.value(&path, value)?, out),
            _ => Ok(false),
        })
    }

    /// An `AnyValue` at this path.
    fn value(&mut self, path: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        if self.edits.is_empty() {
            return Ok(None);
        }
        if let Some(with) = self.edits.replacement(path) {
            let mut value = Vec::new();
            put_bytes(tag::any_value::STRING, with.as_bytes(), &mut value);
            return Ok(Some(value));
        }
        changed(bytes, &mut |key, content, out| match key {
            tag::any_value::STRING => {
                // Checked before; what is no text has none to look for.
                let text = std::str::from_utf8(content).unwrap_or_default();
                let edited = self.edits.text(path, text, &mut self.buffers);
                edited.inspect(|text| put_bytes(key, text.as_bytes(), out));
                Ok(edited.is_some())
            }
            tag::any_value::BYTES => {
                let stay = self.edits.bytes(path, content.len());
                let cut = stay < content.len();
                if cut {
                    put_bytes(key, &content[..stay], out);
                }
                Ok(cut)
            }
            tag::any_value::ARRAY if self.edits.reach_below(path) => {
                let list = changed(content, &mut |key, value, out| match key {
                    tag::list::VALUES => put_edited(key, self.value(path, value)?, out),
                    _ => Ok(false),
                })?;
                put_edited(key, list, out)
            }
            tag::any_value::KVLIST if self.edits.reach_below(path) => {
                let below = format!("{path}.");
                let list = changed(content, &mut |key, pair, out| match key {
                    tag::list::VALUES => put_edited(key, self.pair(&below, pair)?, out),
                    _ => Ok(false),
                })?;
                put_edited(key, list, out)
            }
            _ => Ok(false),
        })
    }
}

/// A message with some of its fields written anew; `None` when none was.
fn changed(bytes: &[u8], field: Field<'_>) -> Result<Option<Vec<u8>>, WireError> {
    let mut any = false;
    let mut out = Vec::new();
    copy(bytes, &mut out, &mut |key, content, out| {
        let written = field(key, content, out)?;
        any |= written;
        Ok(written)
    })?;
    Ok(any.then_some(out))
}

/// Writes a length-delimited field that was edited; `false` for one that was not.
fn put_edited(key: u32, edited: Option<Vec<u8>>, out: &mut Vec<u8>) -> Result<bool, WireError> {
    edited.iter().for_each(|bytes| put_bytes(key, bytes, out));
    Ok(edited.is_some())
}

/// Writes a field itself (`true`: it may also leave it out), or says that the field is to be copied as it is.
type Field<'f> = &'f mut dyn FnMut(u32, &[u8], &mut Vec<u8>) -> Result<bool, WireError>;

/// The same for a message that has records in it.
type RecordsField<R> = fn(&mut R, u32, &[u8], &mut Vec<u8>) -> Result<bool, WireError>;

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
