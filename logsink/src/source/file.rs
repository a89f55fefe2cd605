//! Rules from a file, applied when it changes: written in place, replaced by a rename (editors), or swapped by a symlink
//! (Kubernetes). A file that goes missing changes nothing.
//!
//! The operating system's notices say when to look; a look every few seconds, at what is then compared by content, covers
//! what they miss: a folder that did not exist, a network file system, a link's far end in a third folder.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use super::{Documents, RuleSource, stopped};
use crate::{filter::rules::DOCUMENT_BYTES_MAX, reload::Reload};

/// How long a file must be left alone before it is read: an editor truncates, writes and renames within this.
const QUIET: Duration = Duration::from_millis(50);
/// The look that does not depend on notices.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Rules from one file: the document for the service.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// Rules from this file. It need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl RuleSource for FileSource {
    fn run(
        self: Box<Self>,
        reload: Arc<Reload>,
        mut stop: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut applied = None;
            let follow = follow(&self.path, |content| {
                let (revision, document) = match content {
                    Ok(text) => (revision(&text), Some(text)),
                    Err(error) => {
                        // Before the first good content it is worth a word; later, nothing has changed.
                        if applied.is_none() {
                            reload.refuse(&self.path.display().to_string(), &format!("cannot read it: {error}"));
                        }
                        return;
                    }
                };
                // The error is in the status and on stderr.
                let _ = Documents { revision: revision.clone(), global: None, service: document }.apply(&reload);
                applied = Some(revision);
            });
            tokio::select! {
                () = follow => {}
                () = stopped(&mut stop) => {}
            }
        })
    }
}

/// Calls `changed` with the file's content, and again whenever that has changed; with the error when it cannot be read, once
/// per error. Never ends; may be dropped at any time.
pub async fn follow(path: &Path, mut changed: impl FnMut(io::Result<String>)) {
    let (notices, mut noticed) = mpsc::channel(1);
    let mut watcher = notices_of(path, notices.clone());
    let mut last: Option<Result<String, io::ErrorKind>> = None;
    loop {
        let content = read(path).await;
        let seen = content.as_ref().map(String::clone).map_err(io::Error::kind);
        if last.as_ref() != Some(&seen) {
            last = Some(seen);
            changed(content);
            // A link may lead elsewhere by now, or a folder may have come into being.
            watcher = notices_of(path, notices.clone());
        }
        tokio::select! {
            // The channel never closes: this function holds a sender.
            _ = noticed.recv() => {
                tokio::time::sleep(QUIET).await;
                while noticed.try_recv().is_ok() {}
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                if watcher.is_none() {
                    watcher = notices_of(path, notices.clone());
                }
            }
        }
    }
}

/// Notices of anything in the folder of the file, and in that of the file it leads to. None when the system gives none.
fn notices_of(path: &Path, notices: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| !event.kind.is_access()) {
            // A full channel holds a notice already.
            let _ = notices.try_send(());
        }
    })
    .ok()?;
    let folder = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let near = folder(path);
    watcher.watch(&near, RecursiveMode::NonRecursive).ok()?;
    if let Ok(far) = path.canonicalize().map(|target| folder(&target))
        && far != near
    {
        // The regular look covers it when this fails.
        let _ = watcher.watch(&far, RecursiveMode::NonRecursive);
    }
    Some(watcher)
}

async fn read(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use io::Read;
        let mut text = String::new();
        // One byte more than the parser takes: it then says that there is too much.
        std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        Ok(text)
    });
    read.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// A name for this content.
fn revision(text: &str) -> String {
    format!("file-{:08x}", crc32fast::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;
    use crate::filter::rules::RuleSet;

    struct Running {
        reload: Arc<Reload>,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(path: &Path) -> Running {
        let reload = Reload::new(RuleSet::compile(&[], "app").unwrap());
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(Box::new(FileSource::new(path)).run(Arc::clone(&reload), stopping));
        Running { reload, stop, task }
    }

    impl Running {
        async fn until_base_is(&self, base: &str) {
            self.until(&format!("base {base}"), |reload| reload.active().rules.base().to_string() == base).await;
        }

        async fn until(&self, what: &str, holds: impl Fn(&Reload) -> bool) {
            let start = Instant::now();
            while !holds(&self.reload) {
                assert!(start.elapsed() < Duration::from_secs(20), "no {what}: {:?}", self.reload.status());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn follows_writes_renames_and_removal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.toml");
        let running = start(&path);
        running.until("refusal", |reload| reload.status().refused.is_some()).await;
        fs::write(&path, "filter = \"warn\"").unwrap();
        running.until_base_is("warn").await;
        fs::write(&path, "filter = \"debug\"").unwrap();
        running.until_base_is("debug").await;
        let scratch = dir.path().join(".rules.toml.swp");
        fs::write(&scratch, "filter = \"error\"").unwrap();
        fs::rename(&scratch, &path).unwrap();
        running.until_base_is("error").await;
        let revision = running.reload.status().revision;
        fs::write(&path, "filter = \"error\"\nnonsense").unwrap();
        running.until("refusal", |reload| reload.status().refused.is_some()).await;
        let status = running.reload.status();
        assert_eq!(status.revision, revision);
        assert!(status.refused.as_ref().unwrap().error.contains("rules line 2, column"), "{status:?}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "filter = \"info,a=off\"").unwrap();
        running.until_base_is("info,a=off").await;
        assert_eq!(running.reload.status().refused, None);
        running.stop.send(true).unwrap();
        running.task.await.unwrap();
    }

    /// Kubernetes: rules.toml → ..data/rules.toml, ..data → ..1, then a rename puts ..data → ..2 in its place.
    #[tokio::test]
    async fn follows_the_symlink_swap_of_a_config_map() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, base) in [("..1", "warn"), ("..2", "debug"), ("..3", "trace")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("rules.toml"), format!("filter = \"{base}\"")).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/rules.toml", at("rules.toml")).unwrap();
        let running = start(&at("rules.toml"));
        running.until_base_is("warn").await;
        for (version, base) in [("..2", "debug"), ("..3", "trace")] {
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            running.until_base_is(base).await;
        }
        drop(running.stop);
        running.task.await.unwrap();
    }
}
