//! What is measured of a case, and how it goes from a child to the parent: one line of `name=number`.

use std::collections::BTreeMap;

/// Figures of one measurement, by their names.
pub type Figures = BTreeMap<String, f64>;

/// Begins the line that carries figures.
const MARK: &str = "figures:";

/// Prints figures for the parent.
pub fn print(figures: &[(&str, f64)]) {
    let pairs: Vec<_> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{MARK} {}", pairs.join(" "));
}

/// Finds the line of figures in a child's output.
pub fn parse(output: &str) -> Option<Figures> {
    let line = output.lines().find_map(|line| line.strip_prefix(MARK))?;
    line.split_whitespace()
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// All that is known of a case.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Outside of any span.
    pub outside: Place,
    /// Inside a span with two fields.
    pub inside: Place,
    /// One call at a time, nanoseconds: the median, of 100 calls the slowest, of 1000 the slowest.
    pub tail: Option<[f64; 3]>,
    /// As fast as one and as two producers can, as the library is shipped.
    pub sustained: [Option<Sustained>; 2],
    /// The same where it is told to wait rather than lose.
    pub blocking: [Option<Sustained>; 2],
}

/// What an event costs at one place.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Nanoseconds per event in each round: of its best burst and of its median burst.
    pub rounds: Vec<(f64, f64)>,
    /// Instructions per event on the caller.
    pub instructions: Option<f64>,
    /// Allocations per event on the caller.
    pub allocations: Option<f64>,
}

impl Place {
    /// The best burst: neighbours only ever make one slower.
    pub fn best(&self) -> Option<f64> {
        self.rounds.iter().map(|(best, _)| *best).min_by(f64::total_cmp)
    }

    /// The median of the rounds' medians.
    pub fn median(&self) -> Option<f64> {
        let mut medians: Vec<_> = self.rounds.iter().map(|(_, median)| *median).collect();
        medians.sort_by(f64::total_cmp);
        medians.get(medians.len() / 2).copied()
    }
}

/// As fast as producers can.
#[derive(Debug, Clone, Copy)]
pub struct Sustained {
    /// Events that arrived at the sink, per second until the last had arrived.
    pub delivered_per_s: f64,
    /// The share of events that never arrived.
    pub lost: f64,
    /// CPU time of the whole process per delivered event, nanoseconds.
    pub cpu_ns: f64,
}
