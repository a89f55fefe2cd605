//! Which indices, from what is known of them.

use super::*;

#[test]
fn the_numbers_of_backing_indices() {
    for (name, number) in [
        (".ds-logs-x-y-2026.11.26-000001", Some(1)),
        (".ds-logs-x-y-000012", Some(12)),
        (".ds-logs-x-y-2026.11.26-1000000", Some(1_000_000)),
        ("shrink-ab1-.ds-logs-x-y-2026.11.26-000003", Some(3)),
        ("partial-.ds-logs-x-y-000004", Some(4)),
        (".ds-logs-x-y-z-2026.11.26-000001", None),
        (".ds-logs-x-y-copy-000001", None),
        (".ds-logs-x-y-00001", None),
        (".ds-logs-x-y-", None),
        ("logs-x-y", None),
    ] {
        assert_eq!(generation(name, "logs-x-y"), number, "{name}");
    }
}

#[test]
fn only_indices_written_to_since_then_are_looked_at() {
    let all: Vec<Generation> = (1..=60)
        .map(|number| Generation { number, name: format!("i{number}"), created_ms: number as i64 * 100 })
        .collect();
    let numbers = |since_ms: i64| older(&all, since_ms).iter().map(|index| index.number).collect::<Vec<_>>();
    assert!(numbers(6_000).is_empty());
    assert_eq!(numbers(5_999), [59]);
    assert_eq!(numbers(5_900), [59], "it ended at 6,000");
    assert_eq!(numbers(5_899), [58, 59]);
    assert_eq!(numbers(0).len(), LOOKED_AT_MAX);
    assert!(older(&all[..1], 0).is_empty() && older(&[], 0).is_empty());
}
