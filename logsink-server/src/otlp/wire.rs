//! Protobuf's wire format: keys, varints, lengths. Total: any bytes give a value or a [`WireError`], never a panic.

use crate::text;

/// How deep values may stand inside one another. Real attributes nest two or three deep; the bound keeps the recursion, here
/// and in every JSON reader behind us, within any stack.
pub const DEPTH_MAX: u32 = 64;

/// Why bytes are not an OTLP request, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {fault}")]
pub struct WireError {
    /// The offset in the payload.
    pub at: usize,
    /// What is wrong there.
    pub fault: WireFault,
}

/// What can be wrong with the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// A field is longer than what is left of its message.
    #[error("the message ends inside a field")]
    Truncated,
    /// More than ten bytes, or more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// Field number 0, or a key above 32 bits.
    #[error("not a field key")]
    Key,
    /// Wire types 3 and 4.
    #[error("groups are not part of OTLP")]
    Group,
    /// A field of OTLP under another wire type, or a wire type that does not exist.
    #[error("field {field} has wire type {wire}, which is not its own")]
    WireType {
        /// The field's number.
        field: u32,
        /// The wire type it came with.
        wire: u8,
    },
    /// A string is not UTF-8.
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    /// A singular message field stands twice.
    #[error("{0} stands twice in one message")]
    Repeated(&'static str),
    /// Values nest deeper than [`DEPTH_MAX`].
    #[error("values nest deeper than {DEPTH_MAX}")]
    TooDeep,
    /// A limit of the server's own.
    #[error("more than {max} {what}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u32,
    },
}

/// Reads the fields of one message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` begins in the payload: errors speak of the payload.
    base: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a message that stands at the start of the payload.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, base: 0 }
    }

    /// The message's bytes, all of them, wherever the reader stands.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What is left of the message.
    #[inline(always)]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Passes over so many bytes, of those that are left.
    #[inline(always)]
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at = self.bytes.len().min(self.at + bytes);
    }

    /// The reader's offset in the payload.
    #[inline]
    pub fn position(&self) -> usize {
        self.base + self.at
    }

    /// An error at the reader's place.
    #[cold]
    pub fn error(self, fault: WireFault) -> WireError {
        WireError { at: self.position(), fault }
    }

    /// The next field's key (`field << 3 | wire type`); none at the end of the message.
    #[inline(always)]
    pub fn key(&mut self) -> Result<Option<u32>, WireError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.position();
        match u32::try_from(self.varint()?) {
            Ok(key) if key >= 8 => Ok(Some(key)),
            _ => Err(WireError { at: start, fault: WireFault::Key }),
        }
    }

    /// A varint.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.bytes.get(self.at) {
            Some(&low) if low < 0x80 => {
                self.at += 1;
                Ok(u64::from(low))
            }
            // Lengths of texts and messages.
            Some(&low) => match self.bytes.get(self.at + 1) {
                Some(&high) if high < 0x80 => {
                    self.at += 2;
                    Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
                }
                _ => self.varint_long(),
            },
            None => self.varint_long(),
        }
    }

    // The readers' address is given to no other function, here and below: so they stay in registers.
    #[inline(always)]
    fn varint_long(&mut self) -> Result<u64, WireError> {
        let (value, bytes) = self.any_varint()?;
        self.at += bytes;
        Ok(value)
    }

    /// A varint, and how many bytes it has.
    #[inline(never)]
    fn any_varint(self) -> Result<(u64, usize), WireError> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte holds the 64th bit alone.
                if index == 9 && byte > 1 {
                    break;
                }
                return Ok((value, index + 1));
            }
        }
        let fault = if self.bytes.len() - self.at < 10 { WireFault::Truncated } else { WireFault::Varint };
        Err(self.error(fault))
    }

    /// The bytes of a length-delimited field, after its key.
    #[inline(always)]
    pub fn len_bytes(&mut self) -> Result<&'a [u8], WireError> {
        Ok(self.message()?.bytes)
    }

    /// A reader of the message in a length-delimited field, after its key.
    #[inline(always)]
    pub fn message(&mut self) -> Result<Reader<'a>, WireError> {
        let start = self.at;
        let len = self.varint()?;
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                let inner = Reader { bytes, at: 0, base: self.base + self.at };
                self.at += bytes.len();
                Ok(inner)
            }
            None => Err(WireError { at: self.base + start, fault: WireFault::Truncated }),
        }
    }

    /// A string, after its key; `what` names it in the error.
    #[inline(always)]
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        let field = self.message()?;
        text::utf8(field.bytes)
            .map_err(|bad| WireError { at: field.base + bad.valid_up_to(), fault: WireFault::Utf8(what) })
    }

    /// An eight-byte field, after its key.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A four-byte field, after its key.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.bytes[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.error(WireFault::Truncated)),
        }
    }

    /// Skips a field of which `key` was read. `known` has a bit for each field number that the message defines.
    #[inline(always)]
    pub fn skip(&mut self, key: u32, known: u64) -> Result<(), WireError> {
        *self = self.behind(key, known)?;
        Ok(())
    }

    #[cold]
    fn behind(mut self, key: u32, known: u64) -> Result<Self, WireError> {
        let (field, wire) = (key >> 3, (key & 7) as u8);
        if matches!(wire, 3 | 4) {
            return Err(self.error(WireFault::Group));
        }
        if field < 64 && known >> field & 1 == 1 {
            return Err(self.error(WireFault::WireType { field, wire }));
        }
        self.pass(key)?;
        Ok(self)
    }

    /// Passes over a field's content, whatever it is.
    #[inline]
    pub fn pass(&mut self, key: u32) -> Result<(), WireError> {
        match key & 7 {
            0 => self.varint().map(drop),
            1 => self.fixed64().map(drop),
            2 => self.message().map(drop),
            5 => self.fixed32().map(drop),
            3 | 4 => Err(self.error(WireFault::Group)),
            wire => Err(self.error(WireFault::WireType { field: key >> 3, wire: wire as u8 })),
        }
    }
}
