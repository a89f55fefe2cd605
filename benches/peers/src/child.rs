//! One measurement of one case, in a process of its own.

use std::{env, process, time::Duration};

use anyhow::{Context, bail};

use crate::{
    cases::{CASES, WhenFull},
    measure::Subject,
    run,
};

/// Measures what the arguments ask for; without any, the whole comparison.
///
/// # Errors
/// When the arguments make no sense or a case cannot be set up.
pub fn or_parent(allocations: Option<fn() -> u64>) -> anyhow::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1).map(String::as_str);
    let Some(name) = value("--case") else { return run::all(&run::Plan::from_arguments(&arguments)?) };

    let case = CASES.iter().find(|case| case.name == name).with_context(|| format!("there is no case `{name}`"))?;
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let when_full = if has("--block") { WhenFull::Block } else { WhenFull::AsShipped };
    let duration = Duration::from_millis(value("--ms").unwrap_or("1000").parse().context("--ms")?);
    let running = (case.start)(when_full)?;
    let mut subject = Subject::new(case, &running, has("--inside"));
    match value("--measure") {
        Some("bursts") => subject.bursts(duration),
        Some("tail") => subject.tail(duration),
        Some("instructions") => subject.instructions(),
        Some("allocations") => subject.allocations(allocations.context("this program does not count allocations")?),
        Some("sustained") => subject.sustained(value("--producers").unwrap_or("1").parse()?, duration),
        other => bail!("--measure {other:?}: write bursts, tail, instructions, allocations or sustained"),
    }
    // Without destructors: some libraries wait for their network when they are dropped.
    process::exit(0)
}
