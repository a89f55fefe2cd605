//! Huffman codes of bounded length.

/// More symbols than any alphabet here has.
const SYMBOLS_MAX: usize = 288;
/// The longest code that may be asked for, in bits.
const BITS_MAX: usize = 15;

/// Writes how long each symbol's code is, in bits, into `lengths`: the shorter, the more often it comes by `counts`; 0 for one that
/// never does. None is longer than `max`. At least two symbols come, no more than `max` bits can tell apart, and together
/// less often than 2^32 times.
///
/// Without the bound they are those of Moffat and Katajainen, "In-Place Calculation of Minimum-Redundancy Codes" (1995). What is too
/// long is cut, and others become longer until the code is complete again: a little from the best, where the bound is met at all.
pub(super) fn lengths(counts: &[u32], max: u32, lengths: &mut [u8]) {
    // The rarest first: the count leads in the number, so that it sorts as the count does.
    let mut order = [0_u64; SYMBOLS_MAX];
    let mut len = 0;
    for (symbol, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        order[len] = u64::from(count) << 32 | symbol as u64;
        len += 1;
    }
    let order = &mut order[..len];
    order.sort_unstable();
    let mut depths = [0_u32; SYMBOLS_MAX];
    let depths = &mut depths[..len];
    for (depth, entry) in depths.iter_mut().zip(&*order) {
        *depth = (entry >> 32) as u32;
    }
    minimum_redundancy(depths);
    let mut by_length = [0_u32; BITS_MAX + 1];
    for &depth in &*depths {
        by_length[depth.min(max) as usize] += 1;
    }
    complete(&mut by_length[..=max as usize]);
    lengths.fill(0);
    let longest_first =
        by_length.iter().enumerate().rev().flat_map(|(length, &count)| std::iter::repeat_n(length, count as usize));
    for (entry, length) in order.iter().zip(longest_first) {
        lengths[*entry as u32 as usize] = length as u8;
    }
}

/// From counts, ascending, to code lengths, descending, in place.
fn minimum_redundancy(values: &mut [u32]) {
    let len = values.len();
    // Counts become inner nodes, and those the index of their parent.
    let (mut root, mut leaf) = (0, 0);
    for next in 0..len.saturating_sub(1) {
        let mut sum = 0_u32;
        for _ in 0..2 {
            if leaf >= len || (root < next && values[root] < values[leaf]) {
                sum += values[root];
                values[root] = next as u32;
                root += 1;
            } else {
                sum += values[leaf];
                leaf += 1;
            }
        }
        values[next] = sum;
    }
    // Parents become depths.
    if len >= 2 {
        values[len - 2] = 0;
        for node in (0..len - 2).rev() {
            values[node] = values[values[node] as usize] + 1;
        }
    }
    // Depths of inner nodes become those of leaves.
    let (mut available, mut used, mut depth) = (1_i64, 0, 0);
    let (mut inner, mut next) = (len as i64 - 2, len as i64 - 1);
    while available > 0 {
        while inner >= 0 && values[inner as usize] == depth {
            used += 1;
            inner -= 1;
        }
        while available > used && next >= 0 {
            values[next as usize] = depth;
            next -= 1;
            available -= 1;
        }
        if next < 0 {
            break;
        }
        available = 2 * used;
        depth += 1;
        used = 0;
    }
}

/// Makes how many codes of each length there are what a complete code has, when some were cut to the longest.
fn complete(by_length: &mut [u32]) {
    let longest = by_length.len() - 1;
    let taken = |(length, count): (usize, &u32)| count << (longest - length);
    let mut taken: u32 = by_length.iter().enumerate().skip(1).map(taken).sum();
    while taken > 1 << longest {
        // One of the longest goes beside another code, which becomes longer by a bit for it.
        let Some(shorter) = (1..longest).rev().find(|&length| by_length[length] > 0) else { return };
        by_length[longest] -= 1;
        by_length[shorter] -= 1;
        by_length[shorter + 1] += 2;
        taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use proptest::prelude::*;

    /// Bits that the best code takes for all: what merging the two rarest again and again costs.
    fn best(counts: &[u32]) -> u64 {
        let mut heap: BinaryHeap<_> =
            counts.iter().filter(|count| **count > 0).map(|&count| Reverse(u64::from(count))).collect();
        let mut bits = 0;
        while let (Some(Reverse(one)), Some(Reverse(other))) = (heap.pop(), heap.pop()) {
            bits += one + other;
            heap.push(Reverse(one + other));
        }
        bits
    }

    fn check(counts: &[u32], max: u32) -> (u64, u32) {
        let mut lengths = vec![0; counts.len()];
        super::lengths(counts, max, &mut lengths);
        assert!(counts.iter().zip(&lengths).all(|(count, length)| (*count == 0) == (*length == 0)));
        let longest = lengths.iter().copied().max().map_or(0, u32::from);
        assert!(longest <= max);
        let taken: u32 =
            lengths.iter().filter(|length| **length > 0).map(|length| 1 << (max - u32::from(*length))).sum();
        assert_eq!(taken, 1 << max, "complete");
        (counts.iter().zip(&lengths).map(|(count, length)| u64::from(*count) * u64::from(*length)).sum(), longest)
    }

    #[test]
    fn rare_symbols_are_cut_to_the_bound() {
        // Each as often as the two before it together: the best code has a bit more for each.
        let mut counts = vec![1, 1];
        for index in 2..30 {
            counts.push(counts[index - 1] + counts[index - 2]);
        }
        for max in 8..=15 {
            let (bits, longest) = check(&counts, max);
            assert!(longest == max && bits < best(&counts) * 13 / 10, "{max}: {bits}");
        }
    }

    #[test]
    fn two_symbols_have_a_bit_each() {
        assert_eq!(check(&[0, 7, 0, 1_000_000], 12), (1_000_007, 1));
    }

    proptest! {
        #[test]
        fn codes_are_complete_and_the_best(counts in proptest::collection::vec(0..5_000_u32, 2..287)) {
            prop_assume!(counts.iter().filter(|count| **count > 0).count() >= 2);
            let (bits, longest) = check(&counts, 15);
            if longest < 15 {
                prop_assert_eq!(bits, best(&counts));
            }
            let (bits, _) = check(&counts, 12);
            prop_assert!(bits <= best(&counts) * 21 / 20);
        }
    }
}
