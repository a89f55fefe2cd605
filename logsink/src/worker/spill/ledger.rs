//! Which frames of a spool are done with. Pure: offsets in, offsets out.

use std::collections::BTreeSet;

/// The frames between the first that is not done with and the last that was read.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The offset after the last frame that was read.
    position: u64,
    /// Read, and not done with.
    open: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn new(position: u64) -> Self {
        Self { position, open: BTreeSet::new() }
    }

    pub(super) fn read(&mut self, offset: u64) {
        self.position = offset + 1;
        self.open.insert(offset);
    }

    pub(super) fn settle(&mut self, offset: u64) {
        self.open.remove(&offset);
    }

    /// Whether everything that was read is done with.
    pub(super) fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Every frame before this offset is done with.
    pub(super) fn settled_before(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_nothing_open_before_it_is_released() {
        let mut ledger = Ledger::new(5);
        assert_eq!(ledger.settled_before(), 5);
        for offset in [5, 6, 8, 9] {
            ledger.read(offset);
        }
        ledger.settle(6);
        ledger.settle(8);
        assert_eq!(ledger.settled_before(), 5);
        ledger.settle(5);
        assert_eq!(ledger.settled_before(), 9, "7 was never there");
        ledger.settle(9);
        assert!(ledger.is_settled());
        assert_eq!(ledger.settled_before(), 10);
    }
}
