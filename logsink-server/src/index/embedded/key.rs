//! The place of an event in the order of search results, and the cursor made of it.
//!
//! Newest first; events of the same nanosecond in reverse order of the log. The log's offset is kept beside each event, so
//! the order survives a restart, and a page that begins after a key is not disturbed by events that come in meanwhile.

use crate::index::IndexError;

/// Orders as events do in time: the newest is the greatest. Unique to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) time_ns: i64,
    /// The message's offset in the log.
    pub(super) offset: i64,
    /// The record's index in the message.
    pub(super) index: u32,
}

impl Key {
    /// `Hit::id`: the disk log has one partition, 0.
    pub(super) fn id(&self) -> String {
        format!("0-{}-{}", self.offset, self.index)
    }

    /// The cursor of a page that ends with this event.
    pub(super) fn cursor(&self) -> String {
        format!("{:016x}{:016x}{:08x}", self.time_ns, self.offset, self.index)
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// When the text was not made by [`Key::cursor`].
    pub(super) fn from_cursor(text: &str) -> Result<Self, IndexError> {
        let bad = || IndexError::BadRequest("the cursor is not one of this index: start again without it".to_owned());
        let part = |range| {
            let digits: &str = text.get(range).ok_or_else(bad)?;
            u64::from_str_radix(digits, 16).map_err(|_| bad())
        };
        if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        Ok(Self {
            time_ns: part(0..16)?.cast_signed(),
            offset: part(16..32)?.cast_signed(),
            index: u32::try_from(part(32..40)?).map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        for key in [
            Key { time_ns: 1_700_000_000_123_456_789, offset: 42, index: 7 },
            Key { time_ns: -1, offset: i64::MAX, index: u32::MAX },
        ] {
            assert_eq!(Key::from_cursor(&key.cursor()).unwrap(), key);
        }
        for text in ["", "12", &"g".repeat(40), &"é".repeat(20), &"+".repeat(40)] {
            assert!(matches!(Key::from_cursor(text), Err(IndexError::BadRequest(_))), "{text}");
        }
    }
}
