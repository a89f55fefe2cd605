//! Events as lines on stdout, on stderr or in a file: for people (`text`, `pretty`) and for what reads lines (`json`).
//!
//! Writing may block, on a pipe that nobody reads or on a slow disk, so it happens on a thread that may: a stuck pipe stops
//! this sink and nothing else. What could not be written is an error like any other sink's, and the worker tries again; it
//! goes on behind the last whole line, so nothing is written twice and no line is torn.

mod json;
mod output;
mod record;
mod text;

use std::{
    env,
    io::{self, IsTerminal as _},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{Accepted, Batch, SendError, Sending, Transport};
use crate::config::{Colour, Destination, Format};
use output::Output;
pub(crate) use record::put_time;

/// Writes the records of a batch as lines.
#[derive(Debug)]
pub struct Lines {
    /// Asynchronous, because it is fair: batches are written in the order in which they were sent.
    output: Arc<Mutex<Output>>,
    format: Format,
    coloured: bool,
}

impl Lines {
    /// Lines for this destination, which is opened with the first batch.
    pub fn new(to: Destination, format: Format, colour: Colour) -> Self {
        let coloured = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
            Colour::Auto => match to {
                Destination::Stdout => io::stdout().is_terminal(),
                Destination::Stderr => io::stderr().is_terminal(),
                Destination::File(_) => false,
            },
        };
        Self { output: Arc::new(Mutex::new(Output::new(to))), format, coloured }
    }

    async fn write(&self, batch: Batch) -> Result<Accepted, SendError> {
        let mut output = self.output.clone().lock_owned().await;
        let (format, coloured) = (self.format, self.coloured);
        let written = tokio::task::spawn_blocking(move || {
            let lines = lines(&batch.payload, format, coloured);
            output.write(batch.sequence, lines.as_bytes())
        });
        match written.await {
            Ok(result) => result.map(|()| Accepted::default()),
            Err(_) => Err(SendError::Permanent { message: "writing the lines panicked".to_owned() }),
        }
    }
}

impl Transport for Lines {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(self.write(batch))
    }
}

/// The records of an `ExportLogsServiceRequest`, each ended by a line feed.
fn lines(payload: &[u8], format: Format, coloured: bool) -> String {
    // What OTLP writes in bytes takes about as many characters.
    let mut lines = String::with_capacity(payload.len() + payload.len() / 4);
    record::each(payload, &mut |service, record| match format {
        Format::Text => text::line(&mut lines, record, coloured),
        Format::Pretty => text::pretty(&mut lines, record, coloured),
        Format::Json => json::line(&mut lines, service, record),
    });
    lines
}

#[cfg(test)]
mod tests;
