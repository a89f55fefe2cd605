//! Which levels are dropped, kept in a reserve, or waited for when there is no room.

use crate::Severity;

/// Two sets of levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    keeps: u8,
    blocks: u8,
}

impl Levels {
    /// Levels that have a reserve, and levels whose records are waited with.
    pub(crate) fn new(keeps: impl Fn(Severity) -> bool, blocks: impl Fn(Severity) -> bool) -> Self {
        let bits = |wanted: &dyn Fn(Severity) -> bool| {
            Severity::LEVELS.into_iter().filter(|level| wanted(*level)).fold(0, |bits, level| bits | bit(level))
        };
        Self { keeps: bits(&keeps), blocks: bits(&blocks) }
    }

    /// Whether a record may use the reserve.
    pub(crate) fn keeps(self, severity: Severity) -> bool {
        self.keeps & bit(severity) != 0
    }

    /// Whether a record is worth waiting for room.
    pub(crate) fn blocks(self, severity: Severity) -> bool {
        self.blocks & bit(severity) != 0
    }

    pub(crate) fn any_blocks(self) -> bool {
        self.blocks != 0
    }
}

/// 1, 5, … 21 have a bit each; an unspecified severity has one that is in no set.
fn bit(severity: Severity) -> u8 {
    1 << (severity.floor().0.div_ceil(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_its_whole_range() {
        let levels = Levels::new(|level| level >= Severity::ERROR, |level| level == Severity::INFO);
        assert!(levels.keeps(Severity(18)) && levels.keeps(Severity::FATAL) && !levels.keeps(Severity::WARN));
        assert!(levels.blocks(Severity(12)) && !levels.blocks(Severity::WARN) && levels.any_blocks());
        assert!(!levels.keeps(Severity::UNSPECIFIED));
        assert!(!Levels::default().any_blocks());
    }
}
