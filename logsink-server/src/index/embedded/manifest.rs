//! The one file that says what the store holds: the published blocks, and the messages whose records are in them.
//!
//! It is replaced whole (write, fsync, rename, fsync of the directory), so a block and the log position that it reaches
//! become true in one step: after a crash the log is read from there, and files that no manifest names are leftovers.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::seen::Seen;
use crate::index::IndexError;

pub(super) const NAME: &str = "MANIFEST";
/// First line: magic, format version, CRC-32 of what follows.
const MAGIC: &str = "logsink-index";
const VERSION: u32 = 1;

/// What the store holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The id of the next block.
    pub(super) next_id: u64,
    pub(super) blocks: Vec<Entry>,
    pub(super) seen: Seen,
}

/// A published block: enough to know whether a search has to open it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) id: u64,
    /// The UTC day of its events, and its directory: `2026-11-22`.
    pub(super) day: String,
    pub(super) rows: u32,
    pub(super) time_min_ns: i64,
    pub(super) time_max_ns: i64,
    /// When it was written: bounds what a wrong clock in the future can do to retention.
    pub(super) published_ns: i64,
    /// Bit n: some event has severity number n.
    pub(super) severities: u32,
    /// Every service in it; none when they are more than are worth listing.
    pub(super) services: Option<Vec<String>>,
    pub(super) parquet_bytes: u64,
    /// Of the whole file; ties the side file to it.
    pub(super) parquet_crc32: u32,
    pub(super) side_bytes: u64,
}

impl Entry {
    pub(super) fn parquet_name(&self) -> String {
        format!("{}/{:010}.parquet", self.day, self.id)
    }

    pub(super) fn side_name(&self) -> String {
        format!("{}/{:010}.filters", self.day, self.id)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parquet_bytes + self.side_bytes
    }
}

impl Manifest {
    /// Reads the manifest of `dir`; an empty one when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read or is damaged: the store does not guess what it holds.
    pub(super) fn load(dir: &Path) -> Result<Self, IndexError> {
        let path = dir.join(NAME);
        let damaged = |what: &str| {
            IndexError::Failed(format!(
                "{}: {what}; restore it from a backup, or move the directory away to begin an empty store",
                path.display()
            ))
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("not text")),
            Err(error) => return Err(IndexError::Failed(format!("cannot read {}: {error}", path.display()))),
        };
        let (head, body) = text.split_once('\n').ok_or_else(|| damaged("has no first line"))?;
        let mut words = head.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(damaged("not a manifest of this store"));
        }
        if words.next() != Some(VERSION.to_string().as_str()) {
            return Err(damaged("made by another version of logsink-server"));
        }
        if words.next() != Some(format!("{:08x}", crc32fast::hash(body.as_bytes())).as_str()) {
            return Err(damaged("damaged (its checksum does not match)"));
        }
        let manifest: Self = serde_json::from_str(body).map_err(|error| damaged(&error.to_string()))?;
        if !manifest.seen.is_valid() {
            return Err(damaged("its ranges are not in order"));
        }
        Ok(manifest)
    }

    /// Makes this the manifest of `dir`, durably.
    pub(super) fn store(&self, dir: &Path) -> io::Result<()> {
        let body = serde_json::to_string(self).map_err(io::Error::other)?;
        let head = format!("{MAGIC} {VERSION} {:08x}\n", crc32fast::hash(body.as_bytes()));
        write_durably(dir, NAME, &[head.as_bytes(), body.as_bytes()])
    }
}

/// Creates `dir/name` with these bytes, whole or not at all, and durably: the caller may rely on it after a power cut.
pub(super) fn write_durably(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap().next_id, 0);
        let mut manifest = Manifest { next_id: 3, ..Manifest::default() };
        manifest.seen.note(0, Some(("a", 7)));
        manifest.store(dir.path()).unwrap();
        let loaded = Manifest::load(dir.path()).unwrap();
        assert_eq!((loaded.next_id, loaded.seen.first_missing()), (3, 1));

        let path = dir.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap().replace("\"next_id\":3", "\"next_id\":4");
        fs::write(&path, text).unwrap();
        let error = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("MANIFEST") && error.contains("checksum"), "{error}");
    }
}
