//! The operating system's notices that something has changed in a folder.
//!
//! inotify is read on the caller's own runtime. A watcher with a thread of its own would log from a thread that nobody can
//! tell from the application's: what it says about a change of the rules would become an event.
//!
//! Where there is no inotify there are no notices, and the caller's regular look has to do.

use std::path::Path;

/// Notices of anything in the folder of a file, and in that of the file it leads to.
pub(super) struct Notices {
    #[cfg(target_os = "linux")]
    inotify: Option<tokio::io::unix::AsyncFd<inotify::Inotify>>,
}

impl Notices {
    /// Whether there is nothing to wait for: no such folder yet, no such thing on this system, or too many watches.
    pub(super) fn are_none(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.inotify.is_none();
        #[cfg(not(target_os = "linux"))]
        true
    }
}

#[cfg(target_os = "linux")]
impl Notices {
    /// Must be called within a runtime that has I/O enabled.
    pub(super) fn of(path: &Path) -> Self {
        let inotify = watch(path);
        // SAFETY: `Inotify` owns its descriptor, and neither it nor this file closes or replaces it before the drop.
        Self { inotify: inotify.and_then(|inotify| unsafe { tokio::io::unix::AsyncFd::register(inotify) }.ok()) }
    }

    /// Resolves when something has happened; never when there are no notices.
    pub(super) async fn next(&mut self) {
        while let Some(inotify) = &mut self.inotify {
            let Ok(mut ready) = inotify.readable_mut().await else { break };
            match ready.try_io(|inotify| read(inotify.get_mut())) {
                Ok(Ok(())) => return,
                // The descriptor is spoilt: the regular look makes another.
                Ok(Err(_)) => self.inotify = None,
                // There was nothing after all.
                Err(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Takes what has come in the meantime.
    pub(super) fn clear(&mut self) {
        if let Some(inotify) = &mut self.inotify {
            while read(inotify.get_mut()).is_ok() {}
        }
    }
}

#[cfg(target_os = "linux")]
fn read(inotify: &mut inotify::Inotify) -> std::io::Result<()> {
    // Several notices, or one with the longest name. What they say does not matter: the file's content does.
    let mut buffer = [0; 4096];
    inotify.read_events(&mut buffer).map(drop)
}

#[cfg(target_os = "linux")]
fn watch(path: &Path) -> Option<inotify::Inotify> {
    use inotify::WatchMask as On;
    // All but reading, which the look itself does.
    let mask = On::CREATE | On::MODIFY | On::ATTRIB | On::CLOSE_WRITE | On::MOVE | On::DELETE | On::ONLYDIR;
    let inotify = inotify::Inotify::init().ok()?;
    let near = folder(path);
    inotify.watches().add(&near, mask).ok()?;
    if let Ok(far) = path.canonicalize().map(|target| folder(&target))
        && far != near
    {
        // The regular look covers it when this fails.
        let _ = inotify.watches().add(&far, mask);
    }
    Some(inotify)
}

#[cfg(target_os = "linux")]
fn folder(path: &Path) -> std::path::PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    }
}

#[cfg(not(target_os = "linux"))]
impl Notices {
    pub(super) fn of(_: &Path) -> Self {
        Self {}
    }

    pub(super) async fn next(&mut self) {
        std::future::pending().await
    }

    pub(super) fn clear(&mut self) {}
}
