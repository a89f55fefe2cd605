//! What travels beside a payload, as it stands before it in a frame of the disk log.
//!
//! One byte of version, two bytes of length (little endian), then fields: a tag byte, two bytes of length, text. A field with
//! an unknown tag is passed over.

use bytes::{Buf, Bytes};

use crate::queue::{Headers, TRACEPARENT};

const VERSION: u8 = 1;
const INSTANCE: u8 = 1;
const SEQUENCE: u8 = 2;
const RULES: u8 = 3;
const LOST: u8 = 4;
const APPENDED_MS: u8 = 5;
/// The sender's trace context: the only one of others' headers that comes here.
const TRACE: u8 = 6;

/// A field longer than 64 KiB is left out; ingest takes none as long as that.
pub(super) fn encode(headers: &Headers) -> Vec<u8> {
    let mut bytes = vec![VERSION, 0, 0];
    let mut field = |tag: u8, text: Option<&str>| {
        let Some(text) = text else { return };
        let Ok(len) = u16::try_from(text.len()) else { return };
        if bytes.len() + 3 + text.len() <= usize::from(u16::MAX) {
            bytes.push(tag);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    };
    field(INSTANCE, headers.instance.as_deref());
    field(SEQUENCE, headers.sequence.map(|sequence| sequence.to_string()).as_deref());
    field(RULES, headers.rules.as_deref());
    field(LOST, headers.lost.as_deref());
    field(APPENDED_MS, headers.appended_ms.map(|ms| ms.to_string()).as_deref());
    field(TRACE, headers.traceparent());
    let len = (bytes.len() - 3) as u16;
    bytes[1..3].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// The headers and the payload behind them; none when that is not what the bytes are.
pub(super) fn decode(mut frame: Bytes) -> Option<(Headers, Bytes)> {
    if frame.try_get_u8().ok()? != VERSION {
        return None;
    }
    let len = usize::from(frame.try_get_u16_le().ok()?);
    if frame.len() < len {
        return None;
    }
    let mut fields = frame.split_to(len);
    let mut headers = Headers::default();
    while fields.has_remaining() {
        let tag = fields.try_get_u8().ok()?;
        let len = usize::from(fields.try_get_u16_le().ok()?);
        if fields.len() < len {
            return None;
        }
        let text = String::from_utf8(fields.split_to(len).to_vec()).ok()?;
        match tag {
            INSTANCE => headers.instance = Some(text),
            SEQUENCE => headers.sequence = Some(text.parse().ok()?),
            RULES => headers.rules = Some(text),
            LOST => headers.lost = Some(text),
            APPENDED_MS => headers.appended_ms = Some(text.parse().ok()?),
            TRACE => headers.others.push((TRACEPARENT.to_owned(), text.into())),
            _ => {}
        }
    }
    Some((headers, frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_come_back_and_garbage_does_not_panic(
            (instance, sequence) in any::<(Option<String>, Option<u64>)>(),
            (rules, lost, appended_ms) in any::<(Option<String>, Option<String>, Option<i64>)>(),
            trace in any::<Option<String>>(),
            payload in any::<Vec<u8>>(),
        ) {
            let others = trace.map(|trace| (TRACEPARENT.to_owned(), trace.into())).into_iter().collect();
            let headers = Headers { instance, sequence, rules, lost, appended_ms, others, ..Headers::default() };
            let mut frame = encode(&headers);
            frame.extend_from_slice(&payload);
            prop_assert_eq!(decode(frame.into()), Some((headers, payload.clone().into())));
            decode(payload.into());
        }
    }
}
