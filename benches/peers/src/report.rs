//! The tables, in Markdown.

use std::fmt::Write as _;

use crate::{
    cases::Case,
    figures::{Row, Sustained},
};

/// What stands where nothing was measured or nothing is to be measured.
const NOTHING: &str = "–";

/// All results as two tables.
pub fn tables(results: &[(&Case, Row)]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_tables(&mut text, results);
    text
}

fn write_tables(text: &mut String, results: &[(&Case, Row)]) -> std::fmt::Result {
    writeln!(text, "Per event on the caller, outside of any span / inside a span with 2 fields:\n")?;
    writeln!(text, "| case | ns, best | ns, median | instructions | allocations |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    for (case, row) in results {
        let (outside, inside) = (&row.outside, &row.inside);
        let best = pair(outside.best(), inside.best(), nanoseconds);
        let median = pair(outside.median(), inside.median(), nanoseconds);
        let instructions = pair(outside.instructions, inside.instructions, thousands);
        let allocations = pair(outside.allocations, inside.allocations, count);
        writeln!(text, "| {} | {best} | {median} | {instructions} | {allocations} |", case.label)?;
    }
    writeln!(text, "\nOne call at a time, and as many as one and two producers can make:\n")?;
    writeln!(
        text,
        "| case | ns p50 / p99 / p99.9 | 1 producer: delivered M/s, lost, CPU ns | 2 producers | told to wait: 1 producer | 2 producers |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for (case, row) in results {
        let tail = row.tail.map_or(NOTHING.to_owned(), |tail| tail.map(nanoseconds).join(" / "));
        let [one, two] = row.sustained.map(sustained);
        let [waiting_one, waiting_two] = row.blocking.map(sustained);
        writeln!(text, "| {} | {tail} | {one} | {two} | {waiting_one} | {waiting_two} |", case.label)?;
    }
    Ok(())
}

fn pair(outside: Option<f64>, inside: Option<f64>, show: fn(f64) -> String) -> String {
    let shown = |value: Option<f64>| value.map_or(NOTHING.to_owned(), show);
    let (outside, inside) = (shown(outside), shown(inside));
    if outside == inside { outside } else { format!("{outside} / {inside}") }
}

fn sustained(figures: Option<Sustained>) -> String {
    figures.map_or(NOTHING.to_owned(), |figures| {
        let lost = if figures.lost == 0.0 { "0".to_owned() } else { format!("{:.1} %", 100.0 * figures.lost) };
        format!("{:.2}, {lost}, {:.0}", figures.delivered_per_s / 1e6, figures.cpu_ns)
    })
}

/// Three digits, at least one of them before the point.
pub(crate) fn nanoseconds(ns: f64) -> String {
    match ns {
        ..10.0 => format!("{ns:.1}"),
        ..100_000.0 => format!("{ns:.0}"),
        _ => format!("{:.0}k", ns / 1000.0),
    }
}

fn thousands(count: f64) -> String {
    match count {
        ..10_000.0 => format!("{count:.0}"),
        _ => format!("{:.1}k", count / 1000.0),
    }
}

fn count(count: f64) -> String {
    if count < 0.005 {
        "0".to_owned()
    } else if (count - count.round()).abs() < 0.005 {
        format!("{count:.0}")
    } else {
        format!("{count:.2}")
    }
}
