//! Where lines go: stdout, stderr or a file, opened when it is first written to. To be used on a thread that may block.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use crate::{config::Destination, transport::SendError};

/// Who may read a file of ours: its owner, and the owner's group for what collects logs.
#[cfg(unix)]
const FILE_MODE: u32 = 0o640;

/// A destination and how far it got.
#[derive(Debug)]
pub(super) struct Output {
    to: Destination,
    open: Option<File>,
    /// The batch that was written in part, and how many bytes of its whole lines are out.
    part: Option<(u64, usize)>,
    /// The last line that is out lacks its end.
    torn: bool,
}

impl Output {
    pub(super) fn new(to: Destination) -> Self {
        Self { to, open: None, part: None, torn: false }
    }

    /// Writes the lines of the batch with this sequence number; after a failure, what is not out yet of the same ones.
    pub(super) fn write(&mut self, sequence: u64, lines: &[u8]) -> Result<(), SendError> {
        // Another batch may be tried in between, so what is out of this one is kept until it is written or fails again.
        let from = self.part.take_if(|(part, _)| *part == sequence).map_or(0, |(_, bytes)| bytes);
        let lines = lines.get(from..).unwrap_or_default();
        let mut written = 0;
        self.write_from(lines, &mut written).map_err(|error| {
            let whole = lines[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            self.torn = written > whole || (self.torn && written == 0);
            if from + whole > 0 {
                self.part = Some((sequence, from + whole));
            }
            self.judge(&error)
        })
    }

    /// Writes to this file until the next failure.
    #[cfg(test)]
    pub(super) fn open_for_test(&mut self, file: File) {
        self.open = Some(file);
    }

    /// Counts in `written` how many bytes of `lines` are out.
    fn write_from(&mut self, lines: &[u8], written: &mut usize) -> io::Result<()> {
        self.reopen_when_moved();
        let file = match &mut self.open {
            Some(file) => file,
            closed => closed.insert(open(&self.to)?),
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        // In one call where the system takes it, so that lines of others do not come between.
        while *written < lines.len() {
            match file.write(&lines[*written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => *written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A file that was renamed or removed, as log rotation does, is left to whoever has it now.
    fn reopen_when_moved(&mut self) {
        if let (Destination::File(path), Some(file)) = (&self.to, &self.open)
            && !is_at(file, path)
        {
            self.open = None;
            self.torn = false;
        }
    }

    fn judge(&mut self, error: &io::Error) -> SendError {
        let name = match &self.to {
            Destination::Stdout => "stdout".to_owned(),
            Destination::Stderr => "stderr".to_owned(),
            Destination::File(path) => {
                // The next try opens it anew: a file system may have come back.
                self.open = None;
                path.display().to_string()
            }
        };
        let message = format!("cannot write to {name}: {error}");
        match (&self.to, error.kind()) {
            // Who read it has ended, and nobody can come after.
            (Destination::Stdout | Destination::Stderr, ErrorKind::BrokenPipe) => SendError::Permanent { message },
            _ => SendError::Retryable { message, after: None },
        }
    }
}

fn open(to: &Destination) -> io::Result<File> {
    match to {
        Destination::Stdout => duplicate(&io::stdout()),
        Destination::Stderr => duplicate(&io::stderr()),
        Destination::File(path) => {
            let mut options = OpenOptions::new();
            options.append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
            options.open(path)
        }
    }
}

/// The same stream without the standard library's lock and buffer: who waits on a stuck pipe here must not hold up those who
/// print.
#[cfg(unix)]
fn duplicate(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn duplicate(stream: &impl std::os::windows::io::AsHandle) -> io::Result<File> {
    stream.as_handle().try_clone_to_owned().map(File::from)
}

/// Whether this open file is still the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

/// Where an open file can be neither renamed nor removed, it is.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}
