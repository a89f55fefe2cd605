//! What the worker asks now and then of the steps that it does not know.

use std::sync::Arc;

#[cfg(feature = "log")]
use crate::log_bridge;
use crate::{
    clock,
    encode::repeated::push_repeated,
    reload::{self, Reload},
    worker,
};

/// The worker comes by far more often than windows end, and asking looks at every key of every rule.
const REPEATS_EVERY_NS: u64 = 100_000_000;

/// What `dedup` rules have dropped and no event tells of, as records.
pub(super) fn repeats(reload: Arc<Reload>) -> worker::Own {
    let mut asked_ns = 0;
    Box::new(move |last, records| {
        let now_ns = reload::unix_now_ns();
        // Also when the clock was set back.
        if last || now_ns.abs_diff(asked_ns) >= REPEATS_EVERY_NS {
            asked_ns = now_ns;
            let active = reload.active();
            let due = active.rules.due(if last { u64::MAX } else { now_ns });
            due.for_each(|repeated| push_repeated(records, now_ns, &repeated));
        }
    })
}

/// The revision in force, when it is from a source.
pub(super) fn revision(reload: Arc<Reload>) -> Box<dyn Fn() -> Option<String> + Send> {
    Box::new(move || Some(reload.active().revision.clone()).filter(|revision| !revision.is_empty()))
}

/// What must happen now and then: the clock is kept right, rules expire, and the level of `log` follows the rules.
pub(super) fn tick(reload: Arc<Reload>, sole: bool) -> Box<dyn FnMut() + Send> {
    Box::new(move || {
        clock::keep();
        reload.expire(reload::unix_now_ns());
        #[cfg(feature = "log")]
        if sole {
            log_bridge::follow_level();
        }
        #[cfg(not(feature = "log"))]
        let _ = sole;
    })
}
