//! `membarrier(2)`: a fence in every thread of the process, at the caller's expense.

pub(crate) use system::{fence_all_threads, is_there, register};

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use libc::{
        MEMBARRIER_CMD_PRIVATE_EXPEDITED as FENCE, MEMBARRIER_CMD_QUERY as QUERY,
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as REGISTER, c_int,
    };

    fn membarrier(command: c_int) -> libc::c_long {
        // SAFETY: these commands take no pointer and change nothing but the order in which memory is seen.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    }

    pub(crate) fn is_there() -> bool {
        let wanted = libc::c_long::from(FENCE | REGISTER);
        // Negative when there is no such call, or a sandbox forbids it.
        let offered = membarrier(QUERY);
        offered >= 0 && offered & wanted == wanted
    }

    /// `false` when a sandbox set up since the start forbids it.
    pub(crate) fn register() -> bool {
        membarrier(REGISTER) == 0
    }

    /// Registers only here (again costs nothing): that takes the system some milliseconds, which a start should not.
    pub(crate) fn fence_all_threads() {
        let done = register() && membarrier(FENCE) == 0;
        if !done {
            // A sandbox set up since the start. A processor's own stores reach the others in far less than this.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    pub(crate) fn is_there() -> bool {
        false
    }

    pub(crate) fn register() -> bool {
        false
    }

    pub(crate) fn fence_all_threads() {}
}
