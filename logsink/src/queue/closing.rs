//! The end of a queue: a record is either drained or refused, never published to nobody.
//!
//! A writer announces a commit, looks whether the queue is closed, and publishes only when it is not. The consumer closes the
//! queue, then waits for the announced commits, then drains. For that, the writer's announcement must be visible before its
//! look, and the closing before the consumer's look at the announcements. The usual means, a fence on both sides, would
//! cost every event some nanoseconds for the sake of one moment in the process's life; so where Linux offers it the consumer
//! pays for both sides, with a system call that puts a fence into every running thread.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

use crate::metrics::Reason;

/// Whether the queue takes records, and how both ends learn of it.
pub(super) struct Closing {
    closed: AtomicBool,
    /// This process was forked from the one that reads the queue.
    in_child: AtomicBool,
    /// Whether writers must bring their own fence.
    both_fence: bool,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self { closed: AtomicBool::new(false), in_child: AtomicBool::new(false), both_fence: !barrier::is_there() }
    }

    /// Good for an early way out; to rely on it needs [`Closing::announced`] before.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Why a closed queue refuses a record.
    #[cold]
    pub(super) fn reason(&self) -> Reason {
        if self.in_child.load(Ordering::Relaxed) { Reason::Forked } else { Reason::Shutdown }
    }

    /// The writer's side: between its announcement and its look at [`Closing::is_closed`].
    #[inline]
    pub(super) fn announced(&self) {
        if self.both_fence {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// Closes the queue of a process that has just been forked: its only thread is the caller, so nothing is under way.
    pub(super) fn close_in_child(&self) {
        self.in_child.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The consumer's side: who announces a commit after this finds the queue closed, and who announced one before is seen.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !self.both_fence {
            barrier::fence_all_threads();
        }
    }
}

/// `membarrier(2)`.
#[cfg(all(target_os = "linux", not(miri)))]
mod barrier {
    use libc::c_int;

    use libc::{
        MEMBARRIER_CMD_PRIVATE_EXPEDITED as FENCE, MEMBARRIER_CMD_QUERY as QUERY,
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as REGISTER,
    };

    fn membarrier(command: c_int) -> libc::c_long {
        // SAFETY: these commands take no pointer and change nothing but the order in which memory is seen.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    }

    pub(super) fn is_there() -> bool {
        let wanted = libc::c_long::from(FENCE | REGISTER);
        // Negative when there is no such call, or a sandbox forbids it.
        let offered = membarrier(QUERY);
        offered >= 0 && offered & wanted == wanted
    }

    /// Registers only here: that takes the system some milliseconds, which a start should not.
    pub(super) fn fence_all_threads() {
        let done = membarrier(REGISTER) == 0 && membarrier(FENCE) == 0;
        if !done {
            // A sandbox set up since the start. A processor's own stores reach the others in far less than this.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod barrier {
    pub(super) fn is_there() -> bool {
        false
    }

    pub(super) fn fence_all_threads() {}
}
