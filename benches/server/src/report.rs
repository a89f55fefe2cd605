//! The tables, in Markdown. Every figure is the median of its rounds.

use std::fmt::Write as _;

use crate::{
    cases::{Case, Work},
    run::{Limit, Measured, Sample},
};

/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// One measurement for the terminal.
pub(crate) fn brief(case: &Case, sample: &Sample) -> String {
    let mut text = format!(
        "{}: {:.2} CPU s per million, {} records/s, peak {:.0} MB",
        case.name,
        sample.cpu_s,
        thousands(sample.records_per_s),
        sample.peak_mb
    );
    // Writing to a string does not fail.
    if let (Some(p50), Some(p99)) = (sample.p50_ms, sample.p99_ms) {
        let _ = write!(text, ", p50 {p50:.1} ms, p99 {p99:.1} ms, {} refused", sample.refused);
    }
    for (what, cpu) in [("sink", sample.sink_cpu_s), ("broker", sample.broker_cpu_s), ("load", sample.load_cpu_s)] {
        if let Some(cpu) = cpu {
            let _ = write!(text, ", {what} {cpu:.2}");
        }
    }
    if let (Some(records), Some(body)) = (sample.bulk_records, sample.body_bytes) {
        let _ = write!(text, ", {records:.0} records a bulk, {body:.0} B each");
    }
    if let Some((early, late)) = sample.while_down {
        let _ = write!(text, ", without a sink {early:.0} MB, later {late:.0} MB");
    }
    if sample.doubled > 0.0 {
        let _ = write!(text, ", {} TWICE", sample.doubled);
    }
    text
}

/// All results.
pub(crate) fn tables(measured: &[Measured], limits: &[Limit]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_tables(&mut text, measured, limits);
    text
}

fn write_tables(text: &mut String, measured: &[Measured], limits: &[Limit]) -> std::fmt::Result {
    let of = |wanted: fn(&Work) -> bool| measured.iter().filter(move |row| wanted(&row.case.work)).collect::<Vec<_>>();
    let drains = of(|work| matches!(work, Work::Drain(_)));
    if !drains.is_empty() {
        writeln!(
            text,
            "Kafka → `_bulk`. CPU in seconds per million records, user and system; least and most in brackets:\n"
        )?;
        writeln!(
            text,
            "| drain | CPU s | records/s | peak MB | records a bulk | bytes a record, sent | sink CPU s | broker CPU s |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|")?;
        for row in drains {
            let (each, whole) = (one(row, |sample| sample.bulk_records), one(row, |sample| sample.body_bytes));
            let sent = one(row, |sample| sample.wire_bytes);
            let rest = [one(row, |sample| sample.sink_cpu_s), one(row, |sample| sample.broker_cpu_s)];
            let bytes = if whole == sent {
                shown(whole, whole_number)
            } else {
                format!("{}, {}", shown(whole, whole_number), shown(sent, whole_number))
            };
            let [sink, broker] = rest.map(|cpu| shown(cpu, seconds));
            writeln!(text, "{} {} | {bytes} | {sink} | {broker} |", begun(row), shown(each, whole_number))?;
        }
        writeln!(text)?;
        for row in measured.iter().filter(|row| row.samples.iter().any(|sample| sample.while_down.is_some())) {
            for (early, late) in row.samples.iter().filter_map(|sample| sample.while_down) {
                let change = 100.0 * (late - early) / early;
                writeln!(text, "Without a sink: {early:.0} MB, and {late:.0} MB at its end ({change:+.1} %).\n")?;
            }
        }
        for row in measured.iter().filter(|row| row.samples.iter().any(|sample| sample.doubled > 0.0)) {
            writeln!(text, "Wrote records twice: {}.\n", row.case.label)?;
        }
    }
    let elastic = of(|work| *work == Work::Elasticsearch);
    for row in elastic {
        writeln!(
            text,
            "| real Elasticsearch | CPU s | records/s | peak MB | Elasticsearch's CPU s | our share of it |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|")?;
        let (own, theirs) = (one(row, |sample| Some(sample.cpu_s)), one(row, |sample| sample.sink_cpu_s));
        let share = own.zip(theirs).map(|(own, theirs)| 100.0 * own / theirs);
        writeln!(
            text,
            "{} {} | {} |\n",
            begun(row),
            shown(theirs, seconds),
            shown(share, |share| format!("{share:.1} %"))
        )?;
    }
    let ingests = of(|work| matches!(work, Work::Ingest(_)));
    if !ingests.is_empty() {
        writeln!(text, "OTLP/gRPC → Kafka, acknowledged by Kafka with acks=all, 4 connections × 8 in flight:\n")?;
        writeln!(
            text,
            "| ingest | CPU s | records/s | peak MB | p50 ms | p99 ms | refused | generator CPU s | broker CPU s |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        for row in ingests {
            let cells = [
                shown(one(row, |sample| sample.p50_ms), |ms| format!("{ms:.1}")),
                shown(one(row, |sample| sample.p99_ms), |ms| format!("{ms:.1}")),
                shown(one(row, |sample| Some(sample.refused)), whole_number),
                shown(one(row, |sample| sample.load_cpu_s), seconds),
                shown(one(row, |sample| sample.broker_cpu_s), seconds),
            ];
            writeln!(text, "{} {} |", begun(row), cells.join(" | "))?;
        }
        writeln!(text)?;
    }
    if !limits.is_empty() {
        let own = |name: &str| {
            let row = measured.iter().find(|row| row.case.name == name)?;
            one(row, |sample| Some(sample.cpu_s))
        };
        let (drain, ingest) = (own("drain"), own("ingest"));
        writeln!(text, "| limit | CPU s | records/s | the drain takes | the ingest takes |\n|---|---|---|---|---|")?;
        for limit in limits {
            let (cpu, rate) = (
                median(limit.samples.iter().map(|sample| sample.0)),
                median(limit.samples.iter().map(|sample| sample.1)),
            );
            let times =
                |own: Option<f64>| shown(own.zip(cpu).map(|(own, cpu)| own / cpu), |times| format!("{times:.1} ×"));
            writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                limit.what,
                shown(cpu, |cpu| format!("{cpu:.3}")),
                shown(rate, thousands),
                times(drain),
                times(ingest)
            )?;
        }
        writeln!(text)?;
    }
    for row in measured {
        if let Some(why) = &row.failed {
            writeln!(text, "NOT MEASURED: {}: {why}\n", row.case.name)?;
        }
    }
    Ok(())
}

/// The columns that every table begins with.
fn begun(row: &Measured) -> String {
    let cpu = one(row, |sample| Some(sample.cpu_s));
    let range = if row.samples.len() > 1 {
        let least = row.samples.iter().map(|sample| sample.cpu_s).fold(f64::INFINITY, f64::min);
        let most = row.samples.iter().map(|sample| sample.cpu_s).fold(0.0, f64::max);
        format!(" ({least:.2}–{most:.2})")
    } else {
        String::new()
    };
    format!(
        "| {} | {}{range} | {} | {} |",
        row.case.label,
        shown(cpu, seconds),
        shown(one(row, |sample| Some(sample.records_per_s)), thousands),
        // The most of all rounds: a peak is a bound.
        shown(row.samples.iter().map(|sample| sample.peak_mb).reduce(f64::max), whole_number)
    )
}

fn one(row: &Measured, figure: fn(&Sample) -> Option<f64>) -> Option<f64> {
    median(row.samples.iter().filter_map(figure))
}

/// Of an even number the higher of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or(NOTHING.to_owned(), show)
}

fn seconds(value: f64) -> String {
    format!("{value:.2}")
}

fn whole_number(value: f64) -> String {
    format!("{value:.0}")
}

fn thousands(value: f64) -> String {
    if value >= 1e6 { format!("{:.2} M", value / 1e6) } else { format!("{:.0} k", value / 1e3) }
}
