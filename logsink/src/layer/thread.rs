//! What a thread keeps between events, and what happens when it cannot be had.
//!
//! An event takes its thread's state and puts it back. An event inside it (a `Debug` implementation that logs), or one made
//! while the thread ends, finds none and gets a fresh one for itself, whose record goes to the queue's strays. So no
//! state is ever used twice at a time, whatever the user's code does.

use std::cell::Cell;

use crate::{
    callsite::Cache,
    queue::{Producer, Writer},
    span::{Context, stack::Stack},
};

/// Events inside events inside events…: deeper ones are refused and counted, before a `Debug` implementation that logs
/// itself has used up the stack.
const DEPTH_MAX: u8 = 8;

/// What an event needs.
pub(super) struct State {
    pub(super) callsites: Cache,
    /// The context outside of any span.
    pub(super) outside: Context,
    /// The context of the span that an event was last in.
    pub(super) inside: Context,
    /// Where a rule's changes are written.
    pub(super) scratch: Vec<u8>,
    pub(super) writers: Writers,
}

/// The writers of a thread, one for each queue; all but one are there for processes with several layers.
pub(super) struct Writers {
    stray: bool,
    current: Option<Writer>,
    others: Vec<Writer>,
}

impl State {
    fn new(stray: bool) -> Box<Self> {
        Box::new(Self {
            callsites: Cache::new(),
            outside: Context::default(),
            inside: Context::default(),
            scratch: Vec::new(),
            writers: Writers { stray, current: None, others: Vec::new() },
        })
    }

    /// Whether it is one event's own, so that nothing outside knows what it holds.
    pub(super) fn is_stray(&self) -> bool {
        self.writers.stray
    }
}

impl Writers {
    /// The writer for this queue.
    #[inline]
    pub(super) fn get(&mut self, queue: &Producer) -> &mut Writer {
        if !self.current.as_ref().is_some_and(|writer| writer.writes_to(queue)) {
            self.change(queue);
        }
        match &mut self.current {
            Some(writer) => writer,
            None => unreachable!("filled above"),
        }
    }

    #[cold]
    fn change(&mut self, queue: &Producer) {
        self.others.extend(self.current.take());
        self.others.retain(|writer| !writer.is_closed());
        let known = self.others.iter().position(|writer| writer.writes_to(queue));
        self.current = Some(match known {
            Some(at) => self.others.swap_remove(at),
            None if self.stray => Writer::stray(queue),
            None => Writer::new(queue),
        });
    }
}

struct Local {
    state: Cell<Option<Box<State>>>,
    stack: Stack,
}

thread_local! {
    static LOCAL: Local = const { Local { state: Cell::new(None), stack: Stack::new() } };
    /// How many events are under way. No destructor, so it can be used while the thread ends.
    static DEPTH: Cell<u8> = const { Cell::new(0) };
}

/// Puts the state back, also when the user's code panics.
struct Turn<'l> {
    /// `None` for a thread that is ending: its state ends with the event.
    local: Option<&'l Local>,
    state: Option<Box<State>>,
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if let Some(local) = self.local
            && let Some(state) = self.state.take()
            && !state.is_stray()
        {
            local.state.set(Some(state));
        }
    }
}

/// Runs `event` with the thread's state and, unless the thread is ending, the spans that it is in; `None` when events are
/// nested too deeply.
#[inline]
pub(super) fn with_state<R>(event: impl FnOnce(&mut State, Option<&Stack>) -> R) -> Option<R> {
    let depth = DEPTH.get();
    if depth >= DEPTH_MAX {
        return None;
    }
    let mut event = Some(event);
    let mut run = |local: Option<&Local>| {
        let state = match local.map(|local| local.state.take()) {
            Some(Some(state)) => state,
            Some(None) => State::new(depth > 0),
            None => State::new(true),
        };
        DEPTH.set(depth + 1);
        let mut turn = Turn { local, state: None };
        event.take().map(|event| event(turn.state.insert(state), local.map(|local| &local.stack)))
    };
    LOCAL.try_with(|local| run(Some(local))).unwrap_or_else(|_| run(None))
}

/// Runs `look` with the spans that the thread is in; `None` while it ends.
#[inline]
pub(super) fn with_stack<R>(look: impl FnOnce(&Stack) -> R) -> Option<R> {
    LOCAL.try_with(|local| look(&local.stack)).ok()
}
