//! Models of the library's lock-free parts: the very files of `logsink/src/`, with loom's atomics in the place of the
//! standard library's, run through every interleaving and every value that a relaxed load may see.
//!
//! `membarrier` is modelled by the fences on both sides that stand for it where the system has none; what must hold without
//! them has a model without. What the threads do
//! to memory without atomics is not seen by loom; each model has a cell of loom's beside such memory, which is touched
//! when the memory is, so that an access that is not ordered is found.

#![allow(dead_code, unused_imports, reason = "a model needs a part of what the files offer")]

pub mod handshakes;
pub mod queue;
pub mod recorders;
mod sync;

/// The library's own files.
#[allow(unreachable_pub, reason = "what is public in the library need not be here")]
#[path = "../../logsink/src"]
mod library {
    pub(crate) mod handshake;
    pub(crate) mod metrics;
    pub(crate) mod recorder;
    pub(crate) mod severity;
}

pub(crate) use library::{handshake, metrics, recorder, severity::Severity};

/// Explores `model` with at most this many preemptions: bugs need few, and each more multiplies the time.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// As long as a wait may take where time stands still.
pub(crate) const FOREVER: std::time::Duration = std::time::Duration::from_secs(1);
