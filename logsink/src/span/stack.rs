//! Which spans the calling thread is in, as the registry counts them: a span that is entered twice stays where it was.

use std::cell::{Cell, RefCell};

use tracing_core::span::Id;

/// The spans of one thread, of all layers.
pub(crate) struct Stack {
    entered: RefCell<Vec<Entered>>,
    /// The span whose context the thread keeps, and whether it has been left since: it may have closed then, and its id
    /// may stand for another.
    watched: Cell<u64>,
    left: Cell<bool>,
}

struct Entered {
    layer: u64,
    id: u64,
    again: bool,
}

impl Stack {
    pub(crate) const fn new() -> Self {
        Self { entered: RefCell::new(Vec::new()), watched: Cell::new(0), left: Cell::new(false) }
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
        if self.watched.get() == id {
            self.left.set(true);
        }
    }

    /// The innermost span.
    #[inline]
    pub(crate) fn current(&self, layer: u64) -> Option<Id> {
        let entered = self.entered.borrow();
        entered.iter().rev().find(|span| span.layer == layer && !span.again).map(|span| Id::from_u64(span.id))
    }

    /// From here on, tell whether this span has been left.
    pub(crate) fn watch(&self, id: u64) {
        self.watched.set(id);
        self.left.set(false);
    }

    /// Whether the watched span has been left.
    #[inline]
    pub(crate) fn watched_was_left(&self) -> bool {
        self.left.get()
    }
}
