//! What the lock-free parts are made of. Their models (`models/`) put loom's in the place of this module.

pub(crate) mod barrier;

pub(crate) use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence, fence},
    },
    thread::{Thread, current, park_timeout, yield_now},
    time::Instant,
};
