//! The parent: every measurement of every case, in rounds, and then the report.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};

use crate::{
    cases::{CASES, Case},
    figures::{self, Figures, Place, Row, Sustained},
    plot, report,
};

/// How much is measured, and where the results go.
pub struct Plan {
    /// Rounds of bursts.
    rounds: u32,
    /// Rounds of what takes longer: tails and sustained load.
    long_rounds: u32,
    /// A round of bursts or tails, milliseconds.
    burst_ms: u32,
    /// A round under sustained load, milliseconds.
    sustained_ms: u32,
    /// Where `library.md` and `library.svg` are written.
    out: PathBuf,
    /// Only these cases; all when empty.
    only: Vec<String>,
}

impl Plan {
    /// `--quick` for a look at whether all works, `--out DIR`, `--only NAME,NAME`.
    ///
    /// # Errors
    /// When an argument is not known.
    pub fn from_arguments(arguments: &[String]) -> anyhow::Result<Self> {
        let mut plan = Self {
            rounds: 5,
            long_rounds: 2,
            burst_ms: 400,
            sustained_ms: 1000,
            out: "target/bench-library".into(),
            only: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => (plan.rounds, plan.long_rounds, plan.burst_ms, plan.sustained_ms) = (1, 1, 50, 200),
                "--out" => plan.out = arguments.next().context("--out: a directory is missing")?.into(),
                "--only" => {
                    let names = arguments.next().context("--only: names of cases are missing")?;
                    plan.only = names.split(',').map(str::to_owned).collect();
                }
                _ => anyhow::bail!("`{argument}` is not known: write --quick, --out DIR or --only NAME,NAME"),
            }
        }
        for name in &plan.only {
            ensure!(CASES.iter().any(|case| case.name == name), "--only: there is no case `{name}`");
        }
        Ok(plan)
    }

    fn cases(&self) -> Vec<&'static Case> {
        CASES.iter().filter(|case| self.only.is_empty() || self.only.iter().any(|name| name == case.name)).collect()
    }
}

/// Measures everything, prints the tables and bars, and writes them and the plot.
///
/// # Errors
/// When a child fails or the results cannot be written.
pub fn all(plan: &Plan) -> anyhow::Result<()> {
    let start = Instant::now();
    let cases = plan.cases();
    let mut rows = vec![Row::default(); cases.len()];
    let mut each =
        |what: &str, wanted: &dyn Fn(&Case) -> bool, measure: &dyn Fn(&Case, &mut Row) -> anyhow::Result<()>| {
            eprintln!("bench-library: {:>4} s  {what}", start.elapsed().as_secs());
            cases
                .iter()
                .zip(&mut rows)
                .filter(|(case, _)| wanted(case))
                .try_for_each(|(case, row)| measure(case, row).with_context(|| format!("{what}: {}", case.name)))
        };

    for round in 1..=plan.rounds {
        each(&format!("nanoseconds, round {round} of {}", plan.rounds), &|_| true, &|case, row| {
            for inside in [false, true] {
                let found = child(case, &["--measure", "bursts", "--ms", &plan.burst_ms.to_string()], inside)?;
                let lost = of(&found, "lost")?;
                ensure!(lost == 0.0, "{lost} events were lost: the figures would include drops");
                place(row, inside).rounds.push((of(&found, "best")?, of(&found, "median")?));
            }
            Ok(())
        })?;
    }
    for round in 1..=plan.long_rounds {
        each(&format!("single calls, round {round} of {}", plan.long_rounds), &|_| true, &|case, row| {
            let found = child(case, &["--measure", "tail", "--ms", &(2 * plan.burst_ms).to_string()], false)?;
            let tail = [of(&found, "p50")?, of(&found, "p99")?, of(&found, "p99.9")?];
            // The quieter round, judged by its worst.
            if row.tail.is_none_or(|before| tail[2] < before[2]) {
                row.tail = Some(tail);
            }
            Ok(())
        })?;
        for (index, producers) in ["1", "2"].into_iter().enumerate() {
            let what = format!("sustained load of {producers}, round {round} of {}", plan.long_rounds);
            let ms = plan.sustained_ms.to_string();
            let arguments = ["--measure", "sustained", "--producers", producers, "--ms", &ms];
            each(&what, &|case| case.queued, &|case, row| {
                better(&mut row.sustained[index], &child(case, &arguments, false)?)
            })?;
            each(&format!("{what}, waiting"), &|case| case.can_block, &|case, row| {
                let waiting = [&arguments[..], &["--block"]].concat();
                better(&mut row.blocking[index], &child(case, &waiting, false)?)
            })?;
        }
    }
    each("allocations", &|_| true, &|case, row| {
        for inside in [false, true] {
            place(row, inside).allocations = Some(allocations(case, inside)?);
        }
        Ok(())
    })?;
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        each("instructions", &|_| true, &|case, row| {
            for inside in [false, true] {
                place(row, inside).instructions = Some(instructions(case, inside, &plan.out)?);
            }
            Ok(())
        })?;
    } else {
        eprintln!("bench-library: NOT MEASURED: instructions. valgrind is missing: install it");
    }

    let results: Vec<_> = cases.into_iter().zip(rows).collect();
    fs::create_dir_all(&plan.out).with_context(|| plan.out.display().to_string())?;
    let text = report::tables(&results);
    fs::write(plan.out.join("library.md"), &text)?;
    fs::write(plan.out.join("library.svg"), plot::svg(&results))?;
    println!("{text}\n{}", plot::bars(&results));
    eprintln!(
        "bench-library: {} s; written: {}/library.md and library.svg",
        start.elapsed().as_secs(),
        plan.out.display()
    );
    Ok(())
}

fn place(row: &mut Row, inside: bool) -> &mut Place {
    if inside { &mut row.inside } else { &mut row.outside }
}

/// Keeps the round that delivered more.
fn better(kept: &mut Option<Sustained>, found: &Figures) -> anyhow::Result<()> {
    let found = Sustained {
        delivered_per_s: of(found, "delivered_per_s")?,
        lost: of(found, "lost")?,
        cpu_ns: of(found, "cpu_ns")?,
    };
    if kept.is_none_or(|kept| found.delivered_per_s > kept.delivered_per_s) {
        *kept = Some(found);
    }
    Ok(())
}

fn of(figures: &Figures, name: &str) -> anyhow::Result<f64> {
    figures.get(name).copied().with_context(|| format!("a child told no `{name}`"))
}

fn child(case: &Case, arguments: &[&str], inside: bool) -> anyhow::Result<Figures> {
    output(Command::new(env::current_exe()?), case, arguments, inside)
}

fn allocations(case: &Case, inside: bool) -> anyhow::Result<f64> {
    let program = env::current_exe()?.with_file_name("logsink-peers-allocations");
    let found = output(Command::new(program), case, &["--measure", "allocations"], inside)?;
    of(&found, "allocations")
}

fn instructions(case: &Case, inside: bool, out: &Path) -> anyhow::Result<f64> {
    fs::create_dir_all(out)?;
    let file = out.join(format!("callgrind.{}.{}", case.name, if inside { "inside" } else { "outside" }));
    let mut command = Command::new("valgrind");
    command.args(["-q", "--tool=callgrind", "--toggle-collect=measured"]);
    command.arg(format!("--callgrind-out-file={}", file.display())).arg(env::current_exe()?);
    let found = output(command, case, &["--measure", "instructions"], inside)?;
    let text = fs::read_to_string(&file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind counted nothing")?;
    Ok(total.trim().parse::<f64>()? / of(&found, "events")?)
}

fn output(mut command: Command, case: &Case, arguments: &[&str], inside: bool) -> anyhow::Result<Figures> {
    command.args(["--case", case.name]).args(arguments).args(inside.then_some("--inside"));
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    figures::parse(&text).with_context(|| format!("{command:?} printed no figures:\n{text}{errors}"))
}
