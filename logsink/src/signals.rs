//! SIGTERM and SIGINT end the process as they do without us, but after a flush.
//!
//! The handler does what a handler may: it writes to a pipe. A thread of ours reads it, ends the pipelines within their own
//! deadlines, and raises the signal again with the system's own action, so that whoever waits for the process sees it killed by
//! that signal. A second signal does not wait.
//!
//! It takes only what nobody has: a signal that the application handles or ignores at that time is left alone. A handler
//! that the application sets later takes its place; one that passes signals on to the handler before it (tokio's does) has the
//! events flushed and stays in charge of whether the process ends.

use std::{
    io, mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, Ordering::SeqCst},
    },
    thread,
};

use libc::c_int;

use crate::exit;

/// What ends processes in order; SIGHUP often means something else, SIGQUIT asks for a core dump at once.
const SIGNALS: [c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Reads a pipe and waits for a flush.
const STACK_BYTES: usize = 256 << 10;

/// The end that the handler writes to.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process whose thread reads the pipe: a forked one shares the pipe and has no such thread.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// A signal has come.
static SEEN: AtomicBool = AtomicBool::new(false);

/// Takes the signals that nobody has; once in a process.
///
/// # Errors
/// When there is no pipe or thread to be had, as at the first call.
pub(crate) fn take() -> io::Result<()> {
    static TAKEN: OnceLock<Result<(), Option<i32>>> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| start().map_err(|error| error.raw_os_error()));
    taken.map_err(|code| code.map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error))
}

fn start() -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors fit into `ends`.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for end in ends {
        // SAFETY: a descriptor of our own, which programs that this process starts must not have.
        unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: as above. The handler must not block: that the pipe is full means that it was told already.
    unsafe { libc::fcntl(ends[1], libc::F_SETFL, libc::O_NONBLOCK) };
    PIPE.store(ends[1], SeqCst);
    PROCESS.store(std::process::id() as i32, SeqCst);
    let read_end = ends[0];
    thread::Builder::new().name("logsink-signal".to_owned()).stack_size(STACK_BYTES).spawn(move || serve(read_end))?;
    SIGNALS.into_iter().filter(|signal| action_of(*signal) == libc::SIG_DFL).for_each(handle);
    Ok(())
}

/// Who handles a signal: a function's address, `SIG_DFL` or `SIG_IGN`. May be called in a handler.
fn action_of(signal: c_int) -> libc::sighandler_t {
    // SAFETY: plain data, of which zeros are a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks only; `action` outlives the call.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    action.sa_sigaction
}

fn handle(signal: c_int) {
    // SAFETY: plain data, of which zeros are a value: no flags but those below, no signals blocked meanwhile.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = our_address();
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `on_signal` has the signature of a handler without `SA_SIGINFO` and does only what a handler may.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

fn our_address() -> libc::sighandler_t {
    on_signal as extern "C" fn(c_int) as libc::sighandler_t
}

/// Runs between any two instructions of any thread: touches atomics and makes system calls that a handler may make.
extern "C" fn on_signal(signal: c_int) {
    // SAFETY: takes nothing, and cannot fail.
    let is_our_process = unsafe { libc::getpid() } == PROCESS.load(SeqCst);
    let is_second = is_our_process && SEEN.swap(true, SeqCst);
    if (is_second || !is_our_process) && action_of(signal) == our_address() {
        die(signal);
    }
    if !is_our_process {
        return;
    }
    let number = signal as u8;
    let errno = errno();
    // SAFETY: reads one byte of `number`. `errno` is put back, as the interrupted code may be about to look at it.
    unsafe {
        let before = *errno;
        libc::write(PIPE.load(SeqCst), (&raw const number).cast(), 1);
        *errno = before;
    }
}

/// Ends the process by this signal: at once or, in a handler of the same signal, when that returns.
fn die(signal: c_int) {
    // SAFETY: the system's own action, which ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// The thread that reads what the handler writes.
fn serve(pipe: c_int) {
    loop {
        let mut number = 0_u8;
        // SAFETY: one byte fits into `number`.
        let read = unsafe { libc::read(pipe, (&raw mut number).cast(), 1) };
        if read < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if read != 1 {
            return;
        }
        let signal = c_int::from(number);
        if action_of(signal) == our_address() {
            exit::end_all();
            unblock(signal);
            die(signal);
        } else {
            // The application's handler, which passed the signal on to us, decides about the process.
            for pipeline in exit::pipelines() {
                pipeline.flush(pipeline.flush_timeout());
            }
            SEEN.store(false, SeqCst);
        }
    }
}

/// Lets the signal reach this thread, though the thread that started it may have blocked it.
fn unblock(signal: c_int) {
    // SAFETY: plain data, of which zeros are a value; filled by the calls below, which it outlives.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

/// Where the calling thread's `errno` is.
fn errno() -> *mut c_int {
    #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "fuchsia", target_os = "redox"))]
    // SAFETY: gives an address, valid while the thread lives.
    return unsafe { libc::__errno_location() };
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    // SAFETY: as above.
    return unsafe { libc::__errno() };
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
    // SAFETY: as above.
    return unsafe { libc::__error() };
}
