//! The least that can be done with a message: find its records, and find whether all of it is well formed.
//!
//! Written for the bench alone, as a limit to hold the server against: no bounds on size or count, no errors with a place.

/// Bytes that are read from the front.
struct Reader<'b>(&'b [u8]);

/// Values of attributes are nested less deeply.
const DEPTH_MAX: u32 = 64;

impl<'b> Reader<'b> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// The next field: its number, and its bytes where it has a length.
    fn field(&mut self) -> Option<(u64, Option<&'b [u8]>)> {
        let tag = self.varint()?;
        let bytes = match tag & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            _ => return None,
        };
        Some((tag >> 3, bytes))
    }

    fn each(mut self, mut see: impl FnMut(u64, &'b [u8]) -> Option<()>) -> Option<()> {
        while !self.0.is_empty() {
            if let (number, Some(bytes)) = self.field()? {
                see(number, bytes)?;
            }
        }
        Some(())
    }
}

/// Records of a message, by their lengths alone.
pub(crate) fn shallow(message: &[u8]) -> Option<u32> {
    let mut records = 0;
    Reader(message).each(|number, resource_logs| {
        if number != 1 {
            return Some(());
        }
        Reader(resource_logs).each(|number, scope_logs| {
            if number != 2 {
                return Some(());
            }
            Reader(scope_logs).each(|number, _record| {
                records += u32::from(number == 2);
                Some(())
            })
        })
    })?;
    Some(records)
}

/// Records of a message in which every part is well formed and every text is UTF-8.
pub(crate) fn deep(message: &[u8]) -> Option<u32> {
    let mut records = 0;
    Reader(message).each(|number, resource_logs| match number {
        1 => Reader(resource_logs).each(|number, bytes| match number {
            1 => Reader(bytes).each(|number, pair| if number == 1 { attribute(pair, 0) } else { Some(()) }),
            2 => Reader(bytes).each(|number, record| match number {
                2 => {
                    records += 1;
                    Reader(record).each(|number, bytes| match number {
                        3 => text(bytes),
                        5 => value(bytes, 0),
                        6 => attribute(bytes, 0),
                        _ => Some(()),
                    })
                }
                _ => Some(()),
            }),
            _ => Some(()),
        }),
        _ => Some(()),
    })?;
    Some(records)
}

fn attribute(pair: &[u8], depth: u32) -> Option<()> {
    Reader(pair).each(|number, bytes| match number {
        1 => text(bytes),
        2 => value(bytes, depth),
        _ => Some(()),
    })
}

fn value(bytes: &[u8], depth: u32) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    Reader(bytes).each(|number, bytes| match number {
        1 => text(bytes),
        5 => Reader(bytes).each(|number, bytes| if number == 1 { value(bytes, depth + 1) } else { Some(()) }),
        6 => Reader(bytes).each(|number, bytes| if number == 1 { attribute(bytes, depth + 1) } else { Some(()) }),
        _ => Some(()),
    })
}

fn text(bytes: &[u8]) -> Option<()> {
    (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()).then_some(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::payload;

    #[test]
    fn both_find_every_record_and_no_half_message() {
        let message = payload::request(3, 20).encode_to_vec();
        assert_eq!((shallow(&message), deep(&message)), (Some(20), Some(20)));
        let half = &message[..message.len() / 2];
        assert_eq!((shallow(half), deep(half)), (None, None));
    }
}
