//! Which spans the calling thread is in, as the registry counts them: a span that is entered twice stays where it was.

use std::cell::{Cell, RefCell};

use tracing_core::span::Id;

/// The spans of one thread, of all layers.
pub(crate) struct Stack {
    entered: RefCell<Vec<Entered>>,
    version: Cell<u64>,
}

struct Entered {
    layer: u64,
    id: u64,
    again: bool,
}

impl Stack {
    pub(crate) const fn new() -> Self {
        Self { entered: RefCell::new(Vec::new()), version: Cell::new(1) }
    }

    pub(crate) fn enter(&self, layer: u64, id: &Id) {
        let id = id.into_u64();
        let mut entered = self.entered.borrow_mut();
        let again = entered.iter().any(|span| span.id == id && span.layer == layer);
        entered.push(Entered { layer, id, again });
        self.version.set(self.version.get() + 1);
    }

    pub(crate) fn exit(&self, layer: u64, id: &Id) {
        let id = id.into_u64();
        let mut entered = self.entered.borrow_mut();
        let is_it = |span: &Entered| span.id == id && span.layer == layer;
        // Mostly the last one.
        if entered.last().is_some_and(is_it) {
            entered.pop();
        } else if let Some(at) = entered.iter().rposition(is_it) {
            entered.remove(at);
        }
        self.version.set(self.version.get() + 1);
    }

    /// The innermost span.
    pub(crate) fn current(&self, layer: u64) -> Option<Id> {
        let entered = self.entered.borrow();
        entered.iter().rev().find(|span| span.layer == layer && !span.again).map(|span| Id::from_u64(span.id))
    }

    /// Rises with each span that is entered or left; never 0. While it stays the thread is in the same spans, and none of them
    /// can close.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }
}
