//! Which spans the calling thread is in, as the registry counts them: a span that is entered twice stays where it was.

use std::cell::{Cell, RefCell};

use tracing_core::span::Id;

/// The spans of one thread, of all layers.
pub(crate) struct Stack {
    entered: RefCell<Vec<Entered>>,
    /// Layer and id of the span whose context the thread keeps; zeros when it has been left since, for then it may have
    /// closed, and its id may stand for another.
    watched: Cell<(u64, u64)>,
}

struct Entered {
    layer: u64,
    id: u64,
    again: bool,
}

impl Stack {
    pub(crate) const fn new() -> Self {
        Self { entered: RefCell::new(Vec::new()), watched: Cell::new((0, 0)) }
    }

    pub(crate) fn enter(&self, layer: u64, id: &Id) {
        let id = id.into_u64();
        let mut entered = self.entered.borrow_mut();
        let again = entered.iter().any(|span| span.id == id && span.layer == layer);
        entered.push(Entered { layer, id, again });
    }

    pub(crate) fn exit(&self, layer: u64, id: &Id) {
        let id = id.into_u64();
        let mut entered = self.entered.borrow_mut();
        if let Some(at) = entered.iter().rposition(|span| span.id == id && span.layer == layer) {
            entered.remove(at);
        }
        if self.watches(layer, id) {
            self.watch_none();
        }
    }

    /// The innermost span.
    #[inline]
    pub(crate) fn current(&self, layer: u64) -> Option<u64> {
        let entered = self.entered.borrow();
        entered.iter().rev().find(|span| span.layer == layer && !span.again).map(|span| span.id)
    }

    /// From here on, tell whether this span, which the thread is in, has been left.
    pub(crate) fn watch(&self, layer: u64, id: u64) {
        self.watched.set((layer, id));
    }

    pub(crate) fn watch_none(&self) {
        self.watched.set((0, 0));
    }

    /// Whether this span is watched and has not been left since.
    #[inline]
    pub(crate) fn watches(&self, layer: u64, id: u64) -> bool {
        self.watched.get() == (layer, id)
    }
}
