//! The end of the process: what is still in the pipelines is sent by a handler of the C library's `exit`, and a forked
//! process is told that it has none.
//!
//! The handler runs when `main` returns or anybody calls `std::process::exit`, after the thread-local destructors of the
//! thread that exits. Handlers run last registered first, so that events of those registered after ours are sent, and those
//! of earlier ones are dropped and counted.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, Once, OnceLock, TryLockError, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::init::Pipeline;

/// Ends the process with this code, after sending what is left: waits for that no longer than `flush_timeout` of the settings
/// (default: five seconds).
///
/// `std::process::exit` does the same where [`init`](crate::init) or [`layer`](crate::layer()) was called in this process:
/// the library has a handler there. This function says what is meant, and needs no guard. `std::process::abort` and `_exit` run
/// no handler: call [`Guard::flush`](crate::Guard::flush) before them.
///
/// Never waits for ever: in a forked process and on a thread of the library it sends nothing.
///
/// ```no_run
/// let _logsink = logsink::init()?;
/// if std::env::args().len() < 2 {
///     tracing::error!("a file must be named");
///     logsink::exit(2);
/// }
/// # Ok::<(), logsink::InitError>(())
/// ```
pub fn exit(code: i32) -> ! {
    end_all();
    std::process::exit(code)
}

/// A lock here is held for some instructions. Who does not get it in this time is in a process that was forked without
/// handlers while another thread had it.
const LOCK_WITHIN: Duration = Duration::from_millis(100);

/// All pipelines of this process that may still run.
static PIPELINES: Mutex<Vec<Weak<Pipeline>>> = Mutex::new(Vec::new());

/// The pipeline of `init`, which ends with the process.
static OF_PROCESS: OnceLock<Arc<Pipeline>> = OnceLock::new();

/// From here on, the end of the process ends this pipeline.
///
/// To be called when its clients exist: libraries below them (OpenSSL) have handlers of their own, which must run after ours.
pub(crate) fn register(pipeline: &Arc<Pipeline>) {
    if let Some(mut pipelines) = lock() {
        pipelines.retain(|pipeline| pipeline.strong_count() > 0);
        pipelines.push(Arc::downgrade(pipeline));
    }
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: `at_exit` may be called at any time and does not unwind. It fails only without memory, and then the
        // process's end is as it would be without.
        unsafe { libc::atexit(at_exit) };
        #[cfg(unix)]
        // SAFETY: the handlers may be called on any thread and do not unwind. It fails only without memory; forked processes
        // then count nothing.
        unsafe {
            pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child))
        };
    });
}

/// The pipeline of `init` does not end with its guard.
pub(crate) fn keep(pipeline: &Arc<Pipeline>) {
    let _ = OF_PROCESS.set(pipeline.clone());
}

/// The pipelines that may still run; none when they cannot be had.
pub(crate) fn pipelines() -> Vec<Arc<Pipeline>> {
    lock().map(|pipelines| pipelines.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
}

/// Ends all pipelines, each within its own time, all at the same time.
pub(crate) fn end_all() {
    let pipelines = pipelines();
    let Some((last, others)) = pipelines.split_last() else { return };
    thread::scope(|scope| {
        for pipeline in others {
            // A process that gets no thread any more does it one after the other.
            let spawned = thread::Builder::new().spawn_scoped(scope, || pipeline.end_in_time());
            if spawned.is_err() {
                pipeline.end_in_time();
            }
        }
        last.end_in_time();
    });
}

fn lock() -> Option<MutexGuard<'static, Vec<Weak<Pipeline>>>> {
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match PIPELINES.try_lock() {
            Ok(pipelines) => return Some(pipelines),
            // Whole after every statement.
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

extern "C" fn at_exit() {
    // A panic here has nowhere to go; it has said itself on stderr.
    let _ = catch_unwind(end_all);
}

// === Fork ===

#[cfg(unix)]
unsafe extern "C" {
    /// In POSIX; the crate `libc` does not have it for Linux.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

thread_local! {
    /// Held by the thread that forks while it does, so that the child finds the list whole and unlocked.
    static HELD: Cell<Option<MutexGuard<'static, Vec<Weak<Pipeline>>>>> = const { Cell::new(None) };
}

#[cfg(unix)]
unsafe extern "C" fn before_fork() {
    // A thread that is ending has no place for it, and forks without.
    let _ = HELD.try_with(|held| held.set(lock()));
}

#[cfg(unix)]
unsafe extern "C" fn after_fork_in_parent() {
    let _ = HELD.try_with(Cell::take);
}

/// Every event of this process is refused from here on and counted as [`Forked`](crate::metrics::Reason::Forked).
#[cfg(unix)]
unsafe extern "C" fn after_fork_in_child() {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Some(held) = HELD.try_with(Cell::take).ok().flatten().or_else(lock) else { return };
        for pipeline in held.iter().filter_map(Weak::upgrade) {
            pipeline.forked();
            // Its last owner may have been another thread, and who is the last here would wait for threads that do not exist.
            std::mem::forget(pipeline);
        }
    }));
}
