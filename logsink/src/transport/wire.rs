//! The few pieces of protobuf that the sending side reads: a walk over the fields of one message, nothing copied.
//!
//! It serves answers of a sink (hostile or broken ones included) and our own records, so it ends at the first byte that
//! makes no sense instead of failing.

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// `fixed64`, `double`
    Fixed64(u64),
    /// Strings, bytes, messages.
    Bytes(&'a [u8]),
    /// `fixed32`
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a string, bytes or message field; empty for any other.
    pub(crate) fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The number of a varint or fixed field; 0 for any other.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => number,
            Self::Fixed32(number) => number.into(),
            Self::Bytes(_) => 0,
        }
    }

    /// The text of a string field, what is not UTF-8 replaced.
    #[cfg_attr(not(feature = "_connect"), allow(dead_code, reason = "only OTLP servers answer with text"))]
    pub(crate) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The fields of one message in wire order: number and value.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

/// The last value of a field, as protobuf wants it for a field that is not repeated.
pub(crate) fn field(message: &[u8], number: u64) -> Option<Value<'_>> {
    fields(message).filter(|(have, _)| *have == number).map(|(_, value)| value).last()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_walked_until_the_first_that_makes_no_sense() {
        let message = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x1d, 1, 0, 0, 0, // 3: fixed32 1
            0x21, 2, 0, 0, 0, 0, 0, 0, 0, // 4: fixed64 2
            0x2a, 0x7f, // 5: 127 bytes that are not there
        ];
        let fields: Vec<_> = fields(&message).collect();
        assert_eq!(
            fields,
            [(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Fixed32(1)), (4, Value::Fixed64(2))]
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| { fields(&bytes).count(); });
    }
}
