//! The last good rules, on disk: one small file per service, replaced whole by a rename.
//!
//! A cache that cannot be written or read costs a line on stderr, never the rules in force.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use super::Documents;
use crate::voice::say;

#[derive(Debug, Clone)]
pub(super) struct Cache {
    path: PathBuf,
}

impl Cache {
    pub(super) fn new(dir: &Path, service: &str) -> Self {
        Self { path: dir.join(format!("{}.rules.toml", file_name(service))) }
    }

    /// The documents, when there are any that can be read.
    pub(super) async fn load(&self) -> Option<Documents> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let text = fs::read_to_string(path)?;
            toml::from_str(&text).map_err(io::Error::other)
        });
        match read.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            Ok(documents) => Some(documents),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                say(format_args!("cannot use the cached rules in {}: {error}", self.path.display()));
                None
            }
        }
    }

    pub(super) async fn store(&self, documents: &Documents) {
        let (path, text) = (self.path.clone(), toml::to_string(documents));
        let written = tokio::task::spawn_blocking(move || replace(&path, text.map_err(io::Error::other)?.as_bytes()));
        if let Err(error) = written.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            say(format_args!("cannot keep the rules in {}: {error}", self.path.display()));
        }
    }
}

/// Old or new content, never half of one, also when several processes of one service write at a time.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let scratch = path.with_extension(format!("{}-{:08x}.tmp", std::process::id(), fastrand::u32(..)));
    let written = fs::File::create_new(&scratch).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&scratch, path)).inspect_err(|_| {
        // The error that matters is the first.
        let _ = fs::remove_file(&scratch);
    })
}

/// A service's name as a file name: letters, digits, `-` and `_` stay, the rest becomes its bytes in hexadecimal.
fn file_name(service: &str) -> String {
    let mut name = String::new();
    for byte in service.bytes().take(100) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_stored_is_loaded_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("below"), "a/b service");
        assert_eq!(cache.load().await, None);
        for text in ["filter = \"info\"\n", "when = '''\"quoted\" \\ text'''\n[[rule]]"] {
            let documents = Documents { revision: "7".into(), global: Some(text.into()), service: None };
            cache.store(&documents).await;
            assert_eq!(cache.load().await, Some(documents));
        }
        let files: Vec<_> =
            fs::read_dir(dir.path().join("below")).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["a%2fb%20service.rules.toml"]);
    }

    #[tokio::test]
    async fn a_spoilt_cache_is_no_rules() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), "a");
        fs::write(dir.path().join("a.rules.toml"), "\0\0\0").unwrap();
        assert_eq!(cache.load().await, None);
    }
}
