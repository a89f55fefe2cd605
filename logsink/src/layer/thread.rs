//! What a thread keeps between events, and what happens when it cannot be had.
//!
//! The thread lends its state to one event at a time. An event inside it (a `Debug` implementation that logs), or one made
//! while the thread ends, gets a fresh state for itself, whose record goes to the queue's strays. So no state is ever used
//! twice at a time, whatever the user's code does.

use std::cell::{Cell, UnsafeCell};

use crate::{
    callsite::Cache,
    queue::{Producer, Writer},
    span::{Context, stack::Stack},
};

/// Events inside the thread's event, one in the other: deeper ones are refused and counted, before a `Debug` implementation
/// that logs itself has used up the stack.
const NESTED_MAX: u8 = 7;

/// What an event of one layer needs.
pub(super) struct State {
    layer: u64,
    /// One event's own: nothing outside knows what it holds.
    pub(super) stray: bool,
    pub(super) callsites: Cache,
    /// The context outside of any span.
    pub(super) outside: Context,
    /// The context of the span that an event was last in.
    pub(super) inside: Context,
    pub(super) writer: Writer,
    /// Where a rule's changes are written.
    pub(super) scratch: Vec<u8>,
}

impl State {
    fn new(layer: u64, writer: Writer, stray: bool) -> Box<Self> {
        Box::new(Self {
            layer,
            stray,
            callsites: Cache::new(),
            outside: Context::default(),
            inside: Context::default(),
            writer,
            scratch: Vec::new(),
        })
    }
}

/// A thread's states, one for each layer; all but one are there for processes with several.
struct States {
    current: Option<Box<State>>,
    others: Vec<Box<State>>,
}

impl States {
    /// The state for this layer, which writes to `queue`.
    #[inline(always)]
    fn of(&mut self, layer: u64, queue: &Producer) -> &mut State {
        if !self.current.as_ref().is_some_and(|state| state.layer == layer) {
            self.change(layer, queue);
        }
        match &mut self.current {
            Some(state) => state,
            None => unreachable!("filled above"),
        }
    }

    #[cold]
    #[inline(never)]
    fn change(&mut self, layer: u64, queue: &Producer) {
        self.others.extend(self.current.take());
        self.others.retain(|state| !state.writer.is_closed());
        let known = self.others.iter().position(|state| state.layer == layer);
        self.current = Some(match known {
            Some(at) => self.others.swap_remove(at),
            None => State::new(layer, Writer::new(queue), false),
        });
    }
}

struct Local {
    states: UnsafeCell<States>,
    /// Whether an event has them.
    lent: Cell<bool>,
    stack: Stack,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            states: UnsafeCell::new(States { current: None, others: Vec::new() }),
            lent: Cell::new(false),
            stack: Stack::new(),
        }
    };
    /// How many events that have a state of their own are under way. No destructor, so it can be used while the thread ends.
    static NESTED: Cell<u8> = const { Cell::new(0) };
}

/// Ends the lending, also when the user's code panics.
struct Lent<'l>(&'l Cell<bool>);

impl Drop for Lent<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Runs `event` with the thread's state for this layer and, unless the thread is ending, the spans that it is in; `None` when
/// events are nested too deeply.
#[inline(always)]
pub(super) fn with_state<R>(
    layer: u64,
    queue: &Producer,
    event: impl FnOnce(&mut State, Option<&Stack>) -> R,
) -> Option<R> {
    let mut event = Some(event);
    let usual = LOCAL.try_with(|local| {
        if local.lent.get() {
            return None;
        }
        let event = event.take()?;
        local.lent.set(true);
        let _lent = Lent(&local.lent);
        // SAFETY: only this thread can be here, and `lent` was false, so nobody else has a reference to the states; until
        // `_lent` is dropped, everybody finds it true.
        let states = unsafe { &mut *local.states.get() };
        Some(event(states.of(layer, queue), Some(&local.stack)))
    });
    match usual {
        Ok(Some(result)) => Some(result),
        _ => apart(layer, queue, event?),
    }
}

/// Runs `event` with a state of its own.
#[cold]
#[inline(never)]
fn apart<R>(layer: u64, queue: &Producer, event: impl FnOnce(&mut State, Option<&Stack>) -> R) -> Option<R> {
    struct Depth;
    impl Drop for Depth {
        fn drop(&mut self) {
            NESTED.set(NESTED.get() - 1);
        }
    }
    if NESTED.get() >= NESTED_MAX {
        return None;
    }
    NESTED.set(NESTED.get() + 1);
    let _depth = Depth;
    let mut state = State::new(layer, Writer::stray(queue), true);
    let mut event = Some(event);
    let mut run = |stack: Option<&Stack>| event.take().map(|event| event(&mut state, stack));
    LOCAL.try_with(|local| run(Some(&local.stack))).unwrap_or_else(|_| run(None))
}

/// Runs `look` with the spans that the thread is in; `None` while it ends.
#[inline]
pub(super) fn with_stack<R>(look: impl FnOnce(&Stack) -> R) -> Option<R> {
    LOCAL.try_with(|local| look(&local.stack)).ok()
}
