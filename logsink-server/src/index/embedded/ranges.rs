//! A set of numbers kept as ranges: what has been seen of a sequence that mostly has no holes.

use serde::{Deserialize, Serialize};

/// Half-open ranges, ascending, neither touching nor overlapping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds one number; `false` when it was there already.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        // The first range that ends at or after the number: the only one that it can be in, or be appended to.
        let at = self.0.partition_point(|&(_, end)| end < number);
        let Some(&(start, end)) = self.0.get(at) else {
            self.0.push((number, number.saturating_add(1)));
            return true;
        };
        if start <= number && number < end {
            return false;
        }
        if end == number {
            self.0[at].1 = number + 1;
            if self.0.get(at + 1).is_some_and(|next| next.0 == number + 1) {
                self.0[at].1 = self.0.remove(at + 1).1;
            }
        } else if start == number + 1 {
            self.0[at].0 = number;
        } else {
            self.0.insert(at, (number, number + 1));
        }
        true
    }

    /// Whether the number was added.
    pub(super) fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|&(_, end)| end <= number);
        self.0.get(at).is_some_and(|&(start, _)| start <= number)
    }

    /// The first number that is missing, counted from 0.
    pub(super) fn first_missing(&self) -> u64 {
        match self.0.first() {
            Some(&(0, end)) => end,
            _ => 0,
        }
    }

    /// One more than the largest number; 0 when there is none.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |&(_, end)| end)
    }

    /// Keeps the `count_max` highest ranges and forgets the others; says how many it forgot.
    pub(super) fn forget_lowest(&mut self, count_max: usize) -> usize {
        let count = self.0.len().saturating_sub(count_max);
        self.0.drain(..count);
        count
    }

    /// Whether the ranges are what [`Ranges`] promises; a file may say otherwise.
    pub(super) fn is_valid(&self) -> bool {
        self.0.iter().all(|(start, end)| start < end) && self.0.windows(2).all(|pair| pair[0].1 < pair[1].0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_set(numbers in prop::collection::vec(0u64..60, 0..120)) {
            let (mut ranges, mut oracle) = (Ranges::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), oracle.insert(number));
                prop_assert!(ranges.is_valid(), "{:?}", ranges);
            }
            for number in 0..61 {
                prop_assert_eq!(ranges.contains(number), oracle.contains(&number));
            }
            prop_assert_eq!(ranges.first_missing(), (0..).find(|n| !oracle.contains(n)).unwrap_or_default());
            prop_assert_eq!(ranges.end(), oracle.last().map_or(0, |n| n + 1));
        }
    }

    #[test]
    fn forgetting_keeps_the_highest() {
        let mut ranges = Ranges::default();
        for number in [1, 3, 5, 6] {
            ranges.insert(number);
        }
        assert_eq!(ranges.forget_lowest(2), 1);
        assert!(!ranges.contains(1) && ranges.contains(3) && ranges.contains(6));
    }
}
