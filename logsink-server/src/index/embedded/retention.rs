//! Which blocks are deleted: the old, and the oldest while there are too many bytes. Pure.

use std::{sync::Arc, time::Duration};

use super::{block::Block, nanos};

/// Splits the blocks into those that stay and those that go.
pub(super) fn split(
    mut blocks: Vec<Arc<Block>>,
    now_ns: i64,
    age: Option<Duration>,
    bytes_max: Option<u64>,
) -> (Vec<Arc<Block>>, Vec<Arc<Block>>) {
    // A block goes when its newest event is too old, so nothing is deleted before its time.
    blocks.sort_by_key(|block| std::cmp::Reverse(block.newest_ns()));
    let oldest_ns = age.map_or(i64::MIN, |age| now_ns.saturating_sub(nanos(age)));
    let mut bytes = 0u64;
    let kept = blocks
        .iter()
        .take_while(|block| {
            bytes = bytes.saturating_add(block.entry.bytes());
            block.newest_ns() >= oldest_ns && bytes_max.is_none_or(|max| bytes <= max)
        })
        .count();
    let expired = blocks.split_off(kept);
    (blocks, expired)
}
