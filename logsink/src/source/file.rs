//! Rules from a file, applied when it changes: written in place, replaced by a rename (editors), or swapped by a symlink
//! (Kubernetes). A file that goes missing changes nothing.
//!
//! The operating system's notices say when to look; a regular look, at what is then compared by content, covers what they
//! miss: a folder that did not exist, a network file system, a link's far end in a third folder.

mod notices;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use self::notices::Notices;
use super::{Documents, RuleSource, stopped};
use crate::{filter::rules::DOCUMENT_BYTES_MAX, reload::Reload, voice::say};

/// How long a file must be left alone before it is read: an editor truncates, writes and renames within this.
const QUIET: Duration = Duration::from_millis(50);
/// The look that does not depend on notices. Where there never are any, it is what makes rules take effect within a second.
const LOOK_EVERY: Duration = Duration::from_millis(if cfg!(target_os = "linux") { 2_000 } else { 500 });

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
                    // Before the first content it is worth a word; later, nothing has changed.
                    Err(_) if applied.is_some() => return,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        say(format_args!("rules file {} is not there yet; waiting for it", self.path.display()));
                        return;
                    }
                    Err(error) => {
                        let error = format!("cannot read it: {error}");
                        return reload.refuse(&self.path.display().to_string(), &error);
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
/// per kind of error. Never ends; may be dropped at any time. Needs a tokio runtime with I/O and time enabled.
pub async fn follow(path: &Path, mut changed: impl FnMut(io::Result<String>)) {
    let mut notices = Notices::of(path);
    let mut last: Option<Result<String, io::ErrorKind>> = None;
    loop {
        let content = read(path).await;
        let seen = content.as_ref().map(String::clone).map_err(io::Error::kind);
        if last.as_ref() != Some(&seen) {
            last = Some(seen);
            changed(content);
            // A link may lead elsewhere by now, or a folder may have come into being. What happens between the reading
            // and this is for the regular look.
            notices = Notices::of(path);
        }
        tokio::select! {
            () = notices.next() => {
                tokio::time::sleep(QUIET).await;
                notices.clear();
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                if notices.are_none() {
                    notices = Notices::of(path);
                }
            }
        }
    }
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
