//! `handshake.rs`: what the actor does and what the other side does never overlap.

use loom::{cell::UnsafeCell, sync::Arc, thread};

use crate::{
    FOREVER,
    handshake::{Actor, Fences},
    sync::{AtomicBool, Ordering},
};

struct Place {
    actor: Actor,
    barred: AtomicBool,
    fences: Fences,
    /// Written by whoever has the place: loom fails where two have it.
    value: UnsafeCell<u32>,
}

impl Place {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            actor: Actor::new(),
            barred: AtomicBool::new(false),
            fences: Fences::new(),
            value: UnsafeCell::new(0),
        })
    }

    fn act(&self) -> bool {
        // SAFETY: what the model is about.
        self.actor.act(&self.barred, self.fences, || self.value.with_mut(|value| unsafe { *value += 1 })).is_some()
    }

    fn bar(&self) {
        self.barred.store(true, Ordering::Relaxed);
        self.fences.heavy();
        assert!(self.actor.wait(FOREVER));
    }

    fn value(&self) -> u32 {
        // SAFETY: what the model is about.
        self.value.with(|value| unsafe { *value })
    }
}

/// Once barred, for good: each act has happened before the other side goes on, or was refused.
pub fn an_act_is_seen_or_refused() {
    crate::explore(4, || {
        let place = Place::new();
        let actor = thread::spawn({
            let place = place.clone();
            move || (0..2).filter(|_| place.act()).count()
        });
        place.bar();
        let seen = place.value();
        let acted = actor.join().expect("the actor does not panic");
        assert_eq!(seen as usize, acted);
    });
}

/// Barred and let go, twice: both sides use the value, never at a time.
pub fn both_sides_take_turns() {
    crate::explore(3, || {
        let place = Place::new();
        let actor = thread::spawn({
            let place = place.clone();
            move || (0..2).filter(|_| place.act()).count()
        });
        for _ in 0..2 {
            place.bar();
            // SAFETY: what the model is about.
            place.value.with_mut(|value| unsafe { *value += 10 });
            place.barred.store(false, Ordering::Release);
        }
        let acted = actor.join().expect("the actor does not panic");
        assert_eq!(place.value() as usize, 20 + acted);
    });
}
