//! What the lock-free parts are made of. Their models (`models/`) put loom's in the place of this module.

pub(crate) use std::{
    sync::atomic::{AtomicBool, Ordering, compiler_fence, fence},
    thread::yield_now,
};
