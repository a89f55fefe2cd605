//! `logsink-bench-server`: what the server costs from door to queue and from queue to index, beside its peers and the limits
//! of the machine. `make bench-server`.
//!
//! Without arguments it is the parent ([`run`]): it fills a topic once, and in rounds, one case after the other, starts a
//! server ([`program`]) and what goes around it, each in a process of its own: the counting sink ([`sink`]) and the load
//! generator ([`load`]) are this same binary with another word, as are the limits ([`limits`]). [`report`] makes the tables
//! and [`plot`] the picture.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]
#![allow(clippy::print_stderr, reason = "and tells on standard error how far it is")]

#[path = "../../peers/src/bars.rs"]
mod bars;
mod cases;
mod drain;
mod figures;
mod http;
mod ingest;
mod limits;
mod load;
mod payload;
mod plan;
mod plot;
mod process;
mod program;
mod report;
mod run;
mod scan;
mod sink;
mod topic;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let word = arguments.next();
    let arguments = plan::Arguments::new(arguments.collect());
    match word.as_deref() {
        None => run::all(&plan::Plan::from_environment()?),
        Some("sink") => sink::serve(&arguments),
        Some("load") => load::run(&arguments),
        Some("limit") => limits::run(&arguments),
        Some("fill") => topic::fill(&arguments),
        Some(other) => bail!("`{other}` is not known: without arguments the whole bench runs"),
    }
}
