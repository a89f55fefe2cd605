//! The picture: a bar for every case outside and inside a span.

use crate::{
    bars::{self, Bar, Chart},
    cases::Case,
    figures::Row,
    report::nanoseconds,
};

const CHART: Chart = Chart {
    title: "What one event costs its caller",
    subtitle: "nanoseconds, best of all rounds, logarithmic scale; above: outside of any span, below: inside a span with two fields",
    // From a decade below a nanosecond to more than the slowest peer.
    scale: (0.3, 10_000.0),
    decades: &[1.0, 10.0, 100.0, 1000.0, 10_000.0],
    unit: "ns",
    show: nanoseconds,
};

fn rows(results: &[(&Case, Row)]) -> Vec<Bar> {
    let bar = |(case, row): &(&Case, Row)| Bar {
        label: case.label.to_owned(),
        colours: if case.name.starts_with("logsink") { bars::OURS } else { bars::PEER },
        values: [row.outside.best(), row.inside.best()],
    };
    results.iter().map(bar).collect()
}

/// Bars for a terminal.
pub fn bars(results: &[(&Case, Row)]) -> String {
    bars::characters(&CHART, &rows(results))
}

/// The same as a picture that stands alone.
pub fn svg(results: &[(&Case, Row)]) -> String {
    bars::svg(&CHART, &rows(results))
}
