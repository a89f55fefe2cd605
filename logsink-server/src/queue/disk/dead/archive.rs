//! Reads the files of dead letters, whether or not a server writes them.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{CURRENT, PREVIOUS};
use crate::{
    ingest::json::base64,
    queue::{
        Headers, QueueError, TRACEPARENT,
        dead::{DeadArchive, DeadLetter},
    },
};

/// The dead letters in a directory.
#[derive(Debug)]
pub struct DiskDeadArchive {
    dir: PathBuf,
}

impl DiskDeadArchive {
    /// Those in `dir`, which need not be there.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn failed(&self, action: &str, error: &io::Error) -> QueueError {
        QueueError::Failed(format!("cannot {action} the dead letters in {}: {error}", self.dir.display()))
    }
}

impl DeadArchive for DiskDeadArchive {
    fn each(&self, show: &mut dyn FnMut(DeadLetter) -> bool) -> Result<(), QueueError> {
        for name in [PREVIOUS, CURRENT] {
            let file = match File::open(self.dir.join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.failed("read", &error)),
            };
            for line in BufReader::new(file).split(b'\n') {
                let line = line.map_err(|error| self.failed("read", &error))?;
                // The last line may be half written, within a character; a server that is killed leaves one, too.
                let Some(letter) = letter(&line) else {
                    tracing::warn!(file = name, "passed over a line that is no dead letter");
                    continue;
                };
                if !show(letter) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn purge(&self) -> Result<u64, QueueError> {
        let mut letters = 0;
        self.each(&mut |_| {
            letters += 1;
            true
        })?;
        match fs::remove_file(self.dir.join(PREVIOUS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed("remove", &error)),
            _ => {}
        }
        // A server goes on writing at the end of the file, wherever that is.
        match File::options().write(true).open(self.dir.join(CURRENT)).and_then(|file| file.set_len(0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", &error)),
            _ => Ok(letters),
        }
    }
}

fn letter(line: &[u8]) -> Option<DeadLetter> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let time: jiff::Timestamp = line["time"].as_str()?.parse().ok()?;
    let headers = Headers {
        instance: text("instance"),
        sequence: line["sequence"].as_u64(),
        rules: text("rules"),
        appended_ms: line["appended_ms"].as_i64(),
        others: text(TRACEPARENT).map(|trace| (TRACEPARENT.to_owned(), trace.into())).into_iter().collect(),
        ..Headers::default()
    };
    let record = line["record"].as_u64().and_then(|record| u32::try_from(record).ok());
    let offset = line["offset"].as_i64()?;
    Some(DeadLetter {
        id: record.map_or_else(|| offset.to_string(), |record| format!("{offset}/{record}")),
        time_ms: time.as_millisecond(),
        reason: text("reason")?,
        source: format!("queue/{}/{offset}", line["partition"].as_i64()?),
        record,
        headers,
        bytes: base64(line["bytes"].as_str()?)?.into(),
        cut_from: None,
    })
}
