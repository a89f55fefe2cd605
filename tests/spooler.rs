//! An application that spills, for the story of a thousand kills: emits numbered events, flushes, and says on standard output
//! which numbers were acknowledged. Its sink is a file that outlives it; how well that works, its arguments say.

#![allow(clippy::print_stdout, reason = "standard output is how it answers")]

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use logsink::{
    config::Overflow,
    transport::{Accepted, Batch, SendError, Sending, Transport, header},
};
use opentelemetry_proto::tonic::{collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value};
use prost::Message;

/// Events between two flushes.
const ROUND_EVENTS: i64 = 7;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or_else(|| "too few arguments".to_owned());
    let told = (|| {
        let (spool, sink, mode) = (next()?, next()?, next()?);
        let number = |text: String| text.parse::<i64>().map_err(|error| format!("{text}: {error}"));
        run(spool.into(), sink.into(), &mode, number(next()?)?, number(next()?)?)
    })();
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spooler: {error}");
            ExitCode::from(2)
        }
    }
}

/// Emits `rounds` rounds of numbers from `first` on; with `mode` = `drain`, none, and stays.
fn run(spool: PathBuf, sink: PathBuf, mode: &str, first: i64, rounds: i64) -> Result<(), String> {
    let file = File::options().create(true).append(true).open(sink).map_err(|error| error.to_string())?;
    let transport = FileSink { file: Mutex::new(Taken { file, sends: first as u64 }), mode: mode.to_owned() };
    let guard = logsink::builder()
        .alone()
        .service("spooler")
        .rules("none")
        .transport(Arc::new(transport))
        .overflow(Overflow::Spill)
        .configure(move |config| {
            config.spool.dir = Some(spool);
            config.batch.age_ms_max = 2;
            config.send.in_flight_max = 1;
            config.retry.delay_ms_min = 1;
            config.retry.delay_ms_max = 2;
        })
        .init()
        .map_err(|error| error.to_string())?;
    let mut numbers = first..;
    for _ in 0..rounds {
        let mut last = first;
        for number in numbers.by_ref().take(ROUND_EVENTS as usize) {
            tracing::info!(n = number, "event");
            last = number;
        }
        if guard.flush(Duration::from_secs(30)).is_ok() {
            println!("ack {last}");
            io::stdout().flush().map_err(|error| error.to_string())?;
        }
    }
    if mode == "drain" {
        // Until standard input ends.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    }
    drop(guard);
    Ok(())
}

/// A sink whose memory is a file: what it has taken survives the process.
struct FileSink {
    file: Mutex<Taken>,
    mode: String,
}

struct Taken {
    file: File,
    /// Counts sends, from anywhere: decides which of them fail.
    sends: u64,
}

impl FileSink {
    fn take(&self, batch: &Batch) -> Result<Accepted, SendError> {
        let not_now = || SendError::Retryable { message: "not now".to_owned(), after: None };
        let mut taken = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        taken.sends = taken.sends.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = taken.sends >> 61;
        match self.mode.as_str() {
            "down" => return Err(not_now()),
            "flaky" if dice < 4 => return Err(not_now()),
            _ => {}
        }
        let numbers: Vec<_> = numbers(batch).iter().map(i64::to_string).collect();
        let instance = batch.header(header::INSTANCE).unwrap_or_default();
        let line = format!("{instance} {} {}\n", batch.sequence, numbers.join(","));
        // In one piece: a kill comes before or after it.
        taken.file.write_all(line.as_bytes()).map_err(|error| SendError::Permanent { message: error.to_string() })?;
        // Taken, but the answer gets lost.
        if self.mode == "flaky" && dice == 4 { Err(not_now()) } else { Ok(Accepted::default()) }
    }
}

impl Transport for FileSink {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(async move { self.take(&batch) })
    }
}

fn numbers(batch: &Batch) -> Vec<i64> {
    let request = ExportLogsServiceRequest::decode(batch.payload.clone()).unwrap_or_default();
    let records = request.resource_logs.into_iter().flat_map(|logs| logs.scope_logs).flat_map(|logs| logs.log_records);
    let number = |value| if let Value::IntValue(number) = value { Some(number) } else { None };
    let attributes = records.flat_map(|record| record.attributes).filter(|pair| pair.key == "n");
    attributes.filter_map(|pair| pair.value?.value.and_then(number)).collect()
}
