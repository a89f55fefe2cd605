//! A process that is forked while the library runs: the threads stay behind, and nobody may wait for them.

#![cfg(all(feature = "grpc", unix))]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::time::{Duration, Instant};

use otlp_server::{OtlpServer, PATIENCE};

#[test]
fn a_forked_process_ends_and_the_first_goes_on() {
    let server = OtlpServer::start();
    let guard = logsink::builder().alone().endpoint(server.url()).init().unwrap();
    tracing::info!(n = 0, "before");
    guard.flush(PATIENCE).unwrap();
    // SAFETY: the child allocates (which glibc allows after a fork), logs, and leaves by `_exit`; it returns to no code that
    // counts on the other threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        tracing::info!(n = 1, "in the child");
        let refused = guard.flush(PATIENCE).is_err();
        drop(guard);
        // SAFETY: ends the process, whatever its state.
        unsafe { libc::_exit(if refused { 0 } else { 3 }) }
    }
    assert!(child > 0);
    let deadline = Instant::now() + PATIENCE;
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if Instant::now() > deadline {
            // SAFETY: a signal to a child of ours that was not waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child waits for threads that it does not have");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0);
    tracing::info!(n = 2, "after");
    guard.shutdown(PATIENCE).unwrap();
    assert_eq!(server.numbers(), [0, 2]);
}
