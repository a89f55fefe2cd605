//! Rules in files: `global.toml`, and `service/<name>.toml` for each service.
//!
//! Written whole by a rename after an fsync. An operator may edit them by hand: changes are seen within a second.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use logsink::filter::rules::DOCUMENT_BYTES_MAX;
use tokio::sync::watch;

use super::{ControlError, RuleStore, Scope, Snapshot, Stored, Task};
use crate::queue::BoxFuture;

/// Reading a few small files twice a second costs nothing worth measuring, works on every file system, and "within a second"
/// holds.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Services with a document of their own.
const FILES_MAX: usize = 10_000;

/// Keeps the documents in a directory.
pub struct FileStore {
    shared: Arc<Shared>,
    _task: Task,
}

struct Shared {
    dir: PathBuf,
    snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    /// Held while files are written or read, so that a look never sees half of a change. The revisions that were warned about.
    warned: Mutex<BTreeMap<Scope, String>>,
}

impl FileStore {
    /// Opens the store, creating its directory, and looks after it from a task of the current runtime.
    ///
    /// # Errors
    /// When the directory cannot be created or read.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(dir.join("service"))?;
        let shared = Arc::new(Shared { dir, snapshot: watch::Sender::new(None), warned: Mutex::default() });
        shared.look()?;
        let looking = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let shared = Arc::clone(&looking);
                // What cannot be read now may be readable at the next look; until then the rules stay.
                if let Ok(Err(error)) = tokio::task::spawn_blocking(move || shared.look()).await {
                    tracing::warn!(%error, "cannot read the rules directory, the rules stay");
                }
            }
        });
        Ok(Self { shared, _task: Task(task) })
    }
}

impl RuleStore for FileStore {
    fn write<'a>(&'a self, scope: &'a Scope, text: Option<String>) -> BoxFuture<'a, Result<String, ControlError>> {
        let (shared, scope) = (Arc::clone(&self.shared), scope.clone());
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || shared.write(&scope, text.as_deref())).await;
            written
                .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
                .map_err(|error| ControlError::Failed(format!("cannot write the rules: {error}")))
        })
    }

    fn watch(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.shared.snapshot.subscribe()
    }
}

impl Shared {
    fn path(&self, scope: &Scope) -> PathBuf {
        match scope {
            Scope::Global => self.dir.join("global.toml"),
            Scope::Service(name) => self.dir.join("service").join(format!("{}.toml", encode(name))),
        }
    }

    fn write(&self, scope: &Scope, text: Option<&str>) -> io::Result<String> {
        let path = self.path(scope);
        {
            let _writing = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            match text {
                Some(text) => replace(&path, text.as_bytes())?,
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
        }
        self.look()?;
        Ok(text.map(revision).unwrap_or_default())
    }

    /// Reads all files and shows what has changed.
    fn look(&self) -> io::Result<()> {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        let mut take = |scope: Scope, path: &Path| -> io::Result<()> {
            if let Some(text) = read(path)? {
                let revision = revision(&text);
                found.insert(scope, Stored { text, revision });
            }
            Ok(())
        };
        take(Scope::Global, &self.path(&Scope::Global))?;
        for file in fs::read_dir(self.dir.join("service"))?.take(FILES_MAX) {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".toml"));
            // Other names are editors' copies and scratch files.
            if let Some(name) = name.and_then(decode) {
                take(Scope::Service(name), &path)?;
            }
        }
        let before = self.snapshot.borrow().clone();
        let next = before.as_deref().cloned().unwrap_or_default().advance(found, &mut warned);
        if before.as_deref() != Some(&next) {
            self.snapshot.send_replace(Some(Arc::new(next)));
        }
        Ok(())
    }
}

/// None when there is no such file.
fn read(path: &Path) -> io::Result<Option<String>> {
    use io::Read;
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        // One byte more than the parser takes: it then says that there is too much.
        Ok(file) => file.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A document that is not UTF-8 is a broken one, not an error of the store: the parser meets the replacement characters.
    Ok(Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let scratch = path.with_extension("tmp");
    let mut file = fs::File::create(&scratch)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&scratch, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn revision(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

/// A service's name as a file's: what is not a letter, digit, `-`, `_` or an inner `.` becomes `%` and two hexadecimal digits.
fn encode(name: &str) -> String {
    let mut encoded = String::new();
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            b'.' if index > 0 => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

/// None for a name that [`encode`] does not make.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = encoded;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '%' {
            bytes.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
        }
    }
    String::from_utf8(bytes).ok().filter(|name| encode(name) == encoded && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(watch: &mut watch::Receiver<Option<Arc<Snapshot>>>, scope: &Scope, text: Option<&str>) {
        let holds = |snapshot: &Option<Arc<Snapshot>>| {
            snapshot.as_ref().is_some_and(|all| all.documents.get(scope).map(|stored| stored.text.as_str()) == text)
        };
        tokio::time::timeout(Duration::from_secs(20), watch.wait_for(holds)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn keeps_what_was_written_and_follows_edits_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let service = Scope::Service("a/b .c".to_owned());
        let store = FileStore::open(dir.path()).unwrap();
        let mut watch = store.watch();
        assert_eq!(watch.borrow().as_deref(), Some(&Snapshot::default()));
        let revision = store.write(&service, Some("filter = \"warn\"".into())).await.unwrap();
        assert_eq!(watch.borrow().as_ref().unwrap().for_service("a/b .c").revision, format!("g0-s{revision}"));
        store.write(&Scope::Global, Some("filter = \"info\"".into())).await.unwrap();

        let global = dir.path().join("global.toml");
        fs::write(&global, "filter = \"debug\"").unwrap();
        until(&mut watch, &Scope::Global, Some("filter = \"debug\"")).await;
        // Broken by hand: the last good one stays, and another change is still seen.
        fs::write(&global, "filter = \"dbug\"").unwrap();
        fs::write(dir.path().join("service/x.toml"), "filter = \"error\"").unwrap();
        until(&mut watch, &Scope::Service("x".into()), Some("filter = \"error\"")).await;
        until(&mut watch, &Scope::Global, Some("filter = \"debug\"")).await;
        fs::remove_file(&global).unwrap();
        until(&mut watch, &Scope::Global, None).await;
        drop(store);

        let store = FileStore::open(dir.path()).unwrap();
        until(&mut store.watch(), &service, Some("filter = \"warn\"")).await;
        assert_eq!(store.write(&service, None).await.unwrap(), "");
        assert_eq!(store.write(&service, None).await.unwrap(), "");
        until(&mut store.watch(), &service, None).await;
    }

    #[test]
    fn names_become_file_names_and_back() {
        for name in ["checkout", "a.b-c_d", ".hidden", "../../etc/passwd", "ä b", "%41"] {
            let encoded = encode(name);
            assert!(!encoded.contains('/') && !encoded.starts_with('.'), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(name));
        }
        for stranger in ["%4", "%zz", "a b", "%61", "", ".a", "%é1"] {
            assert_eq!(decode(stranger), None, "{stranger}");
        }
    }
}
