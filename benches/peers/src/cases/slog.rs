//! `slog` through `slog-async`; a time stamp is made by the drain, if at all.

use std::{hint::black_box, sync::OnceLock};

use slog::{Drain, Logger, Never, OwnedKVList, Record};
use slog_async::{Async, OverflowStrategy};

use super::{Running, WhenFull};
use crate::sink;

/// As many as `tracing-appender` takes, roughly; its own default of 128 would lose a burst.
const QUEUE: usize = 100_000;

static ROOT: OnceLock<Logger> = OnceLock::new();

struct Counting;

impl Drain for Counting {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        black_box((record, values));
        sink::deliver(1);
        Ok(())
    }
}

#[inline(never)]
fn log(logger: &Logger, events: u32) {
    for _ in 0..events {
        slog::info!(
            logger, "request finished";
            "user_id" => black_box(42_u64), "path" => black_box("/api/v1/items"), "latency_ms" => black_box(3.5_f64)
        );
    }
}

fn outside(events: u32) {
    if let Some(root) = ROOT.get() {
        log(root, events);
    }
}

fn inside(events: u32) {
    if let Some(root) = ROOT.get() {
        log(&root.new(slog::o!("request_id" => 7_u64, "method" => "GET")), events);
    }
}

pub(super) fn start(when_full: WhenFull) -> anyhow::Result<Running> {
    // As shipped it also reports drops as records of their own, which would count as delivered.
    let overflow = match when_full {
        WhenFull::AsShipped => OverflowStrategy::Drop,
        WhenFull::Block => OverflowStrategy::Block,
    };
    let drain = Async::new(Counting).chan_size(QUEUE).overflow_strategy(overflow).build().fuse();
    ROOT.get_or_init(|| Logger::root(drain, slog::o!()));
    Ok(Running { outside, inside, ..Running::tracing() })
}
