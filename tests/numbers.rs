//! The oracle of the load stories: events are numbered, so what must be found is known without asking anyone.

use serde_json::Value;

/// Every number from 0 up to `count` once and no other.
///
/// # Panics
/// When one is missing or doubled; says which, and how many.
pub(crate) fn exactly_once(hits: &[Value], count: u64) {
    let mut seen = vec![0_u32; count as usize];
    for hit in hits {
        let n = hit["attributes"]["n"].as_u64().unwrap_or_else(|| panic!("a numbered event: {hit}"));
        let slot = seen.get_mut(n as usize).unwrap_or_else(|| panic!("number {n} was never emitted"));
        *slot += 1;
    }
    let missing: Vec<_> = (0..count).filter(|n| seen[*n as usize] == 0).collect();
    let doubled: Vec<_> = (0..count).filter(|n| seen[*n as usize] > 1).collect();
    assert!(
        missing.is_empty() && doubled.is_empty(),
        "of {count} events {} are missing (first: {:?}) and {} doubled (first: {:?})",
        missing.len(),
        &missing[..missing.len().min(5)],
        doubled.len(),
        &doubled[..doubled.len().min(5)]
    );
}
