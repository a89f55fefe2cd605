//! The picture: CPU time per million records of every case, on a logarithmic scale.

use crate::{
    bars::{self, Bar, Chart},
    report::median,
    run::{Limit, Measured},
};

const CHART: Chart = Chart {
    title: "What a million log records cost, Kafka to bulk and gRPC to Kafka",
    subtitle: "seconds of CPU, user and system, median of all rounds, logarithmic scale; green: logsink, grey: limits",
    scale: (0.02, 20.0),
    decades: &[0.1, 1.0, 10.0],
    unit: "s",
    show: |seconds| format!("{seconds:.2}"),
};

fn rows(measured: &[Measured], limits: &[Limit]) -> Vec<Bar> {
    let cases = measured.iter().filter(|row| !row.samples.is_empty()).map(|row| Bar {
        label: format!("{}: {}", row.case.name, row.case.label),
        colours: if row.case.groups.contains(&"ours") { bars::OURS } else { bars::PEER },
        values: [median(row.samples.iter().map(|sample| sample.cpu_s)), None],
    });
    let limits = limits.iter().map(|limit| Bar {
        label: limit.what.to_owned(),
        colours: bars::LIMIT,
        values: [median(limit.samples.iter().map(|sample| sample.0)), None],
    });
    cases.chain(limits).collect()
}

/// As a picture that stands alone.
pub(crate) fn svg(measured: &[Measured], limits: &[Limit]) -> String {
    bars::svg(&CHART, &rows(measured, limits))
}

/// For a terminal.
pub(crate) fn characters(measured: &[Measured], limits: &[Limit]) -> String {
    bars::characters(&CHART, &rows(measured, limits))
}
