//! What is shown, and that people can read what it means.

use std::collections::BTreeMap;

use super::*;

#[test]
fn shows_counters_with_their_reasons() {
    let metrics = Metrics::new();
    metrics.ingest_records.inc_by(3);
    metrics.refused(Refusal::TooLarge);
    metrics.dead("refused", 2);
    metrics.lag(4, Some(7));
    metrics.lag(5, Some(8));
    metrics.lag(5, None);
    metrics.ruled("no \"health\"", 3, 2);
    metrics.query_seconds.observe(0.002);
    let text = metrics.encode();
    for line in [
        "logsink_ingest_records_total 3",
        "logsink_ingest_refused_total{reason=\"too_large\"} 1",
        "logsink_index_dead_total{reason=\"refused\"} 2",
        "logsink_index_dead_total{reason=\"not_otlp\"} 0",
        "logsink_drain_lag_records{partition=\"4\"} 7",
        "logsink_rule_matched_total{rule=\"no \\\"health\\\"\"} 3",
        "logsink_query_duration_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "no line `{line}` in:\n{text}");
    }
    assert!(!text.contains("partition=\"5\""));
}

const SOURCE: &str = include_str!("../metrics.rs");
const TABLE: &str = include_str!("../../../deploy/metrics.md");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/logsink.json");
const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yaml");

/// Every metric by the name that `/metrics` shows (a histogram's without `_bucket` and its kin), and its kind. A family that
/// nothing was counted in is not shown, so the names are those of the source.
fn named() -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    for (at, _) in SOURCE.match_indices("(r,").chain(SOURCE.match_indices("(\n                r,")) {
        let constructor = SOURCE[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
        let field = SOURCE[..at - constructor.len()].trim_end().trim_end_matches(':').rsplit(' ').next().unwrap();
        let name = SOURCE[at..].split('"').nth(1).unwrap();
        let declared = SOURCE.lines().find(|line| line.trim().starts_with(&format!("pub {field}: "))).unwrap();
        let kind = match constructor {
            "family" if declared.contains("Counter") => "counter",
            "family" | "gauge" => "gauge",
            "counter" => "counter",
            _ => "histogram",
        };
        let suffix = match (constructor, kind) {
            (_, "counter") => "_total",
            ("bytes", _) => "_bytes",
            (_, "histogram") => "_seconds",
            _ => "",
        };
        found.insert(format!("logsink_{name}{suffix}"), kind);
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

#[test]
fn the_names_are_those_that_are_shown() {
    let named = named();
    let metrics = Metrics::new();
    metrics.refused(Refusal::Rate);
    metrics.lag(1, Some(2));
    let text = metrics.encode();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(named.contains_key(name) || named.contains_key(base), "{name}");
    }
    for (name, kind) in &named {
        let is_family =
            SOURCE.contains(&format!("family(r, {:?}", &name["logsink_".len()..].trim_end_matches("_total")));
        let shown = if *kind == "histogram" { format!("{name}_count ") } else { format!("{name} ") };
        assert!(is_family || text.contains(&shown) || name.contains("_request_"), "{name} is not shown");
    }
}

#[test]
fn every_metric_has_a_row_in_the_table_and_every_row_a_metric() {
    let rows = TABLE.lines().filter_map(|line| {
        let mut cells = line.split(" | ");
        let name = cells.next()?.strip_prefix("| `logsink_")?.strip_suffix('`')?;
        Some((format!("logsink_{name}"), cells.next()?))
    });
    let all: Vec<_> = rows.collect();
    let rows: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(rows.len(), all.len(), "a metric has two rows");
    let named = named();
    let missing: Vec<_> = named.iter().filter(|(name, kind)| rows.get(*name) != Some(*kind)).collect();
    let unknown: Vec<_> = rows.keys().filter(|name| !named.contains_key(*name)).collect();
    assert!(missing.is_empty(), "no row, or another kind, in deploy/metrics.md: {missing:?}");
    assert!(unknown.is_empty(), "in deploy/metrics.md and not shown: {unknown:?}");
}

#[test]
fn the_table_names_the_reasons_that_are_shown_from_the_beginning() {
    let text = Metrics::new().encode();
    for (name, least) in [
        ("logsink_ingest_refused_total", 12),
        ("logsink_index_dead_total", 5),
        ("logsink_queue_clients_replaced_total", 2),
    ] {
        let row = TABLE.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        let shown: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{reason=\""))).collect();
        assert!(shown.len() >= least, "{name}: {shown:?}");
        for line in shown {
            let (reason, value) = line.split_once("\"} ").unwrap();
            assert!(value == "0" && row.contains(&format!("`{reason}`")), "{name}: {reason}");
        }
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let named = named();
    for (file, text) in [("grafana/logsink.json", DASHBOARD), ("prometheus/alerts.yaml", ALERTS)] {
        let mut asked = 0;
        for (at, _) in text.match_indices("logsink_") {
            let end = text[at..].find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(text.len() - at);
            let name = &text[at..at + end];
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_histogram = base.is_some_and(|base| named.get(base) == Some(&"histogram"));
            let is_there = named.get(name).is_some_and(|kind| *kind != "histogram");
            assert!(
                is_histogram || is_there || (file.ends_with("yaml") && name.ends_with("_seconds")),
                "{file}: {name}"
            );
            asked += 1;
        }
        assert!(asked > 10, "{file}");
    }
}

#[test]
fn services_have_figures_of_their_own_up_to_a_number() {
    let metrics = Metrics::new();
    for n in 0..SERVICES_MAX + 50 {
        metrics.service_counters(Some(&format!("s{n}\n"))).records.inc();
    }
    metrics.service_counters(Some("s0\n")).records.inc();
    metrics.service_counters(None).bytes.inc_by(7);
    let text = metrics.encode();
    let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    let records = of("logsink_ingest_service_records_total{");
    assert_eq!(records.len(), SERVICES_MAX + 1);
    assert!(records.contains(&"logsink_ingest_service_records_total{service=\"s0\u{fffd}\"} 2"));
    assert!(records.contains(&"logsink_ingest_service_records_total{service=\"(other)\"} 50"));
    assert!(
        of("logsink_ingest_service_bytes_total").contains(&"logsink_ingest_service_bytes_total{service=\"(other)\"} 7")
    );
}
