//! What a thread keeps between events, and what happens when it cannot be had.
//!
//! The thread lends its state to one event at a time. An event inside it (a `Debug` implementation that logs), or one made
//! while the thread ends, gets a fresh state for itself, whose record goes to the queue's strays. So no state is ever used
//! twice at a time, whatever the user's code does.

use std::{
    cell::{Cell, UnsafeCell},
    ptr::NonNull,
};

use super::around::Around;
use crate::{
    callsite::Cache,
    encode::view::Scratch,
    metrics::Reason,
    queue::{Producer, Writer, is_own_thread},
    span::stack::Stack,
};

/// Events inside the thread's event, one in the other: deeper ones are refused and counted, before a `Debug` implementation
/// that logs itself has used up the stack.
const NESTED_MAX: u8 = 7;

/// What an event of one layer needs.
pub(super) struct State {
    layer: u64,
    pub(super) callsites: Cache,
    pub(super) around: Around,
    pub(super) writer: Writer,
    /// Writes for the flight recorder, from the first event on that is recorded.
    pub(super) recording: Option<Writer>,
    /// Where a rule's changes are written.
    pub(super) scratch: Scratch,
}

impl State {
    fn new(layer: u64, writer: Writer) -> Box<Self> {
        Box::new(Self {
            layer,
            callsites: Cache::new(),
            around: Around::default(),
            writer,
            recording: None,
            scratch: Scratch::default(),
        })
    }
}

/// A thread's states, one for each layer; all but one are there for processes with several.
struct States {
    current: Option<Box<State>>,
    #[allow(clippy::vec_box, reason = "a state has 2 KiB: changing the current one is to move a pointer")]
    others: Vec<Box<State>>,
}

impl States {
    /// The state for this layer, which writes to `queue`.
    ///
    /// # Errors
    /// When the thread is the library's own. That is marked before a thread's first event, so it is enough to ask when it has
    /// no state yet.
    #[inline(always)]
    fn of(&mut self, layer: u64, queue: &Producer) -> Result<&mut State, Reason> {
        if self.current.as_ref().is_none_or(|state| state.layer != layer) {
            self.change(layer, queue)?;
        }
        match &mut self.current {
            Some(state) => Ok(state),
            None => unreachable!("filled above"),
        }
    }

    #[cold]
    #[inline(never)]
    fn change(&mut self, layer: u64, queue: &Producer) -> Result<(), Reason> {
        if is_own_thread() {
            return Err(Reason::OwnThread);
        }
        self.others.extend(self.current.take());
        self.others.retain(|state| !state.writer.is_closed());
        let known = self.others.iter().position(|state| state.layer == layer);
        self.current = Some(match known {
            Some(at) => self.others.swap_remove(at),
            None => State::new(layer, Writer::new(queue)),
        });
        Ok(())
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

/// A thread's state while an event has it. Dropping it gives the state back, also when the user's code panics.
pub(super) struct Lent {
    /// Not to be sent elsewhere: it is this thread's.
    local: NonNull<Local>,
}

impl Lent {
    /// The thread's state for this layer, whose queue is `queue`, and the spans that the thread is in.
    ///
    /// # Errors
    /// When the thread is the library's own.
    #[inline(always)]
    pub(super) fn state(&mut self, layer: u64, queue: &Producer) -> Result<(&mut State, &Stack), Reason> {
        // SAFETY: a thread's variables live until it ends, and this value, which cannot leave the thread, is in a frame of it.
        let local = unsafe { self.local.as_ref() };
        // SAFETY: `lend` found the states not lent and marked them, so this value alone gives references to them, one at a
        // time.
        let states = unsafe { &mut *local.states.get() };
        Ok((states.of(layer, queue)?, &local.stack))
    }
}

impl Drop for Lent {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `state`.
        unsafe { self.local.as_ref() }.lent.set(false);
    }
}

/// The thread's state; `None` for an event inside another one, or while the thread ends.
#[inline(always)]
pub(super) fn lend() -> Option<Lent> {
    LOCAL.try_with(|local| (!local.lent.replace(true)).then(|| Lent { local: NonNull::from(local) })).ok().flatten()
}

/// Runs `event` with a state of its own and, unless the thread is ending, the spans that it is in.
///
/// # Errors
/// What `event` says; or that the thread is the library's own, or that events are nested too deeply.
#[inline(always)]
pub(super) fn apart(
    layer: u64,
    queue: &Producer,
    event: impl FnOnce(&mut State, Option<&Stack>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    struct Depth;
    impl Drop for Depth {
        fn drop(&mut self) {
            NESTED.set(NESTED.get() - 1);
        }
    }
    if is_own_thread() {
        return Err(Reason::OwnThread);
    }
    if NESTED.get() >= NESTED_MAX {
        return Err(Reason::Reentrant);
    }
    NESTED.set(NESTED.get() + 1);
    let _depth = Depth;
    let mut state = State::new(layer, Writer::stray(queue));
    let mut event = Some(event);
    let mut run = |stack: Option<&Stack>| event.take().map_or(Ok(()), |event| event(&mut state, stack));
    LOCAL.try_with(|local| run(Some(&local.stack))).unwrap_or_else(|_| run(None))
}

/// Runs `look` with the spans that the thread is in; `None` while it ends.
#[inline]
pub(super) fn with_stack<R>(look: impl FnOnce(&Stack) -> R) -> Option<R> {
    LOCAL.try_with(|local| look(&local.stack)).ok()
}
