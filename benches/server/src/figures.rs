//! Numbers from a child to the parent: one line of `name=number`.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// Begins the line.
const MARK: &str = "figures:";

/// Figures by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(BTreeMap<String, f64>);

/// The line.
pub(crate) fn line(figures: &[(&str, f64)]) -> String {
    let pairs: Vec<_> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{MARK} {}\n", pairs.join(" "))
}

impl Figures {
    /// Those of the line in this text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(MARK))?;
        line.split_whitespace()
            .map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The one of that name.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<f64> {
        self.0.get(name).copied().with_context(|| format!("a child told no `{name}`"))
    }
}
