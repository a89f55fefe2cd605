//! Work that keeps a processor busy for milliseconds between two awaits: writing a body, compressing it.
//!
//! A task that did it as it is would keep its worker thread from everything else that hangs on it: with two processors, the
//! doors and the answers of the index would wait. So the worker hands its other tasks to another thread first
//! ([`tokio::task::block_in_place`]), which the system runs beside it; and no more of it is done at a time than there are
//! processors, since more would only share them and hold memory meanwhile.

use std::{sync::LazyLock, thread};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
    task::block_in_place,
};

static PROCESSORS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));

/// Does `work` when a processor is to be had. Other futures of the same task wait meanwhile, other tasks do not.
pub(crate) async fn compute<T>(work: impl FnOnce() -> T) -> T {
    // It fails only for a semaphore that was closed, and nobody closes this one: then it is just not waited for.
    let _processor = PROCESSORS.acquire().await.ok();
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        // There is no other thread to go on meanwhile: tests.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_only_worker_goes_on_with_other_tasks() {
        let (send, receive) = mpsc::channel();
        let (busy, is_busy) = tokio::sync::oneshot::channel();
        let work = tokio::spawn(compute(move || {
            busy.send(()).unwrap();
            // Ends only when another task of the same worker has run.
            receive.recv_timeout(std::time::Duration::from_secs(20)).unwrap()
        }));
        is_busy.await.unwrap();
        tokio::spawn(async move { send.send(7).unwrap() });
        assert_eq!(work.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_does_it_in_place() {
        assert_eq!(compute(|| 7).await, 7);
    }
}
