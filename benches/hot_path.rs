//! What does an event cost its caller: off, silenced by a rule, kept, judged by its values, kept by the flight recorder
//! only, and a span around it?
//!
//! A span is compared with what it costs under tracing-subscriber's registry and a layer that does nothing, in a process of
//! its own. (Without any layer the registry never closes a span.)
//!
//! A span is compared with what it costs under tracing-subscriber's registry and a layer that does nothing, in a process of
//! its own. (Without any layer the registry never closes a span.)
//!
//! Without arguments: nanoseconds of every case. `--case NAME --events N` runs one case for callgrind, which counts only what
//! is called from [`measured`]; `dev/instructions` does that for all cases. What is kept goes through the real layer,
//! queue and worker to a sink that discards it. A run in which an event was lost is an error.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]

use std::{
    fs,
    hint::black_box,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use logsink::transport::{Accepted, Batch, Sending, Transport};
use logsink_benches::report_apart;
use tracing_subscriber::layer::{Identity, SubscriberExt as _};

const ROUNDS: usize = 200;
/// A round of 2,500 events of about 330 bytes fits into 13 chunks, which stay in the cache, as at a usual rate, and do not wake
/// the worker, whose work beside the caller benches/throughput.rs measures.
const EVENTS: u32 = 2_500;
/// Before a count: templates are built, chunks are taken.
const WARM: u32 = 1_000;

const RULES: &str = r#"
[[rule]]
name = "noise"
when = "target=noisy"
then = "drop"

[[rule]]
name = "slow"
when = "target=judged latency_ms>100"
then = "drop"
"#;

/// Takes every batch and keeps none.
struct Discard;

impl Transport for Discard {
    fn send(&self, _: Batch) -> Sending<'_> {
        Box::pin(async { Ok(Accepted::default()) })
    }
}

/// The event that all figures are about.
macro_rules! event {
    ($($target:tt)*) => {
        tracing::info!(
            $($target)* user_id = black_box(42_u64), path = black_box("/api/v1/items"), latency_ms = black_box(3.5_f64),
            "request finished"
        )
    };
}

type Case = (&'static str, fn(u32));

const CASES: [Case; 7] = [
    ("disabled", |events| {
        (0..events).for_each(|n| tracing::trace!(user_id = n, path = "/api/v1/items", "request finished"));
    }),
    ("silenced", |events| (0..events).for_each(|_| event!(target: "noisy",))),
    ("nospan", |events| (0..events).for_each(|_| event!())),
    ("span", |events| {
        let _entered = tracing::info_span!("request", user = "ada", attempt = 3_u64).entered();
        (0..events).for_each(|_| event!());
    }),
    ("recorded", |events| (0..events).for_each(|_| event!(target: "recorded",))),
    ("judged", |events| (0..events).for_each(|_| event!(target: "judged",))),
    ("new-span", new_spans),
];

/// The peer of `new-span`.
const REGISTRY: Case = ("new-span-registry", new_spans);

fn new_spans(spans: u32) {
    (0..spans).for_each(|n| drop(tracing::info_span!("request", user = "ada", attempt = n).entered()));
}

/// Callgrind counts from here on.
#[inline(never)]
#[unsafe(no_mangle)]
fn measured(case: fn(u32), events: u32) {
    case(events);
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let value = |name| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let counted = match value("--case") {
        Some(name) => Some((name.as_str(), value("--events").context("--events is missing")?.parse()?)),
        None => None,
    };
    let (registry, new_spans) = REGISTRY;
    if arguments.iter().any(|argument| argument == "--list") {
        CASES.iter().chain([&REGISTRY]).for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    if arguments.iter().any(|argument| argument == registry) {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Identity::new()))?;
        new_spans(WARM);
        match counted {
            Some((_, spans)) => measured(new_spans, spans),
            None => report_apart(registry, ROUNDS, EVENTS, new_spans, || {}),
        }
        return Ok(());
    }

    let dir = tempfile::tempdir()?;
    let rules = dir.path().join("rules.toml");
    fs::write(&rules, RULES)?;
    let logsink = logsink::builder()
        .alone()
        .service("bench")
        .filter("info,recorded=off")
        .recorder("off,recorded=info")
        // Only its name is used.
        .endpoint("stdout:")
        .rules(format!("file:{}", rules.display()))
        .transport(Arc::new(Discard))
        .init()?;
    // The file is read by the library's own thread.
    let deadline = Instant::now() + Duration::from_secs(10);
    while logsink.rules().revision.is_empty() {
        ensure!(Instant::now() < deadline, "the rules are not in force: {:?}", logsink.rules());
        thread::sleep(Duration::from_millis(1));
    }
    // So long the worker takes to learn the rate of the processor's counter; until then the clock is the system's.
    thread::sleep(Duration::from_secs(2));

    if let Some((wanted, events)) = counted {
        let (_, case) = CASES.iter().find(|(name, _)| *name == wanted).context("there is no such case")?;
        case(WARM);
        measured(*case, events);
    } else {
        for (name, case) in CASES {
            case(WARM);
            // The worker has nothing to do while a round runs, and hands the chunks back before the next.
            report_apart(name, ROUNDS, EVENTS, case, || drop(logsink.flush(Duration::from_secs(10))));
        }
        let peer = Command::new(std::env::current_exe()?).arg(registry).status()?;
        ensure!(peer.success(), "{registry} failed: {peer}");
    }

    logsink.flush(Duration::from_secs(60))?;
    let lost = logsink.metrics().lost();
    ensure!(lost == 0, "{lost} events were lost: the figures include drops");
    Ok(())
}
