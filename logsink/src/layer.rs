//! The `tracing` layer: event → filter → encode → queue, on the caller's thread.
//!
//! It never blocks, takes no lock that the worker holds while it works, and allocates nothing in steady state. When the
//! queue is full the event is dropped and counted.
//!
//! Add it by [`LogsinkLayer::filtered`]: `tracing` then knows which callsites and spans this layer wants without other
//! layers of the same subscriber losing any, and where no other layer wants an event either, it costs what a disabled one
//! costs. A subscriber's only layer speaks for all of it ([`LogsinkLayer::sole`]), which spares every event the book-keeping
//! of filters. Added bare, the layer filters by itself, but every event gets as far as it.

mod filter;
#[cfg(feature = "opentelemetry")]
mod otel;
mod thread;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tracing_core::{Event, LevelFilter, Metadata, Subscriber, span, subscriber::Interest as CallsiteInterest};
use tracing_subscriber::{Layer, filter::Filtered, layer::Context as LayerContext, registry::LookupSpan};

pub use self::filter::RulesFilter;
use self::thread::State;
use crate::{
    Severity,
    callsite::{self, Callsite, Judged, Known},
    clock,
    encode::{
        event::{EventEncoder, FINISH_BYTES, close_frame},
        view::{RecordView, rewrite},
    },
    filter::{EventView as _, Fate, rules::Interest},
    metrics::{Metrics, Reason},
    queue::{self, Draft, LOCAL_TAG, Producer},
    reload::Reload,
    span::{self as spans, Context, stack::Stack},
};

/// What is sent beside an event's own fields, level, message and target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capture {
    /// `code.file.path`, `code.line.number`, and `code.namespace` where the module is not the target. Default: yes.
    pub location: bool,
    /// `thread.name` and `thread.id`. Default: yes.
    pub thread: bool,
    /// `span.name`, `span.path` and the fields of the spans around the event. Default: yes.
    pub spans: bool,
}

impl Default for Capture {
    fn default() -> Self {
        Self { location: true, thread: true, spans: true }
    }
}

/// Sends events to the queue.
pub struct LogsinkLayer {
    /// Tells layers apart where threads keep things for several; never used twice.
    id: u64,
    queue: Producer,
    reload: Arc<Reload>,
    metrics: Arc<Metrics>,
    capture: Capture,
    /// In a subscriber's only layer: what it wants, the subscriber wants.
    filter: Option<RulesFilter>,
    #[cfg(feature = "opentelemetry")]
    tracer: otel::Tracer,
}

impl std::fmt::Debug for LogsinkLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogsinkLayer").field("capture", &self.capture).finish_non_exhaustive()
    }
}

impl LogsinkLayer {
    /// A layer that judges events by the rules in `reload` and counts what it drops.
    pub(crate) fn new(queue: Producer, reload: Arc<Reload>, metrics: Arc<Metrics>, capture: Capture) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            queue,
            reload,
            metrics,
            capture,
            filter: None,
            #[cfg(feature = "opentelemetry")]
            tracer: otel::Tracer::default(),
        }
    }

    /// The layer with its filter in front: what a subscriber should be given.
    pub fn filtered<S>(self) -> Filtered<Self, RulesFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let filter = self.rules_filter();
        self.with_filter(filter)
    }

    /// For a subscriber that has no other layer: what the rules do not want is disabled for the whole subscriber.
    pub(crate) fn sole(mut self) -> Self {
        self.filter = Some(self.rules_filter());
        self
    }

    fn rules_filter(&self) -> RulesFilter {
        RulesFilter::new(self.id, self.reload.clone(), self.capture)
    }

    fn emit<S>(
        &self,
        state: &mut State,
        stack: Option<&Stack>,
        event: &Event<'_>,
        context: &LayerContext<'_, S>,
    ) -> Result<(), Reason>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let State { callsites, outside, inside, scratch, writers, .. } = state;
        let known = callsites.get(event.metadata(), self.id, self.capture, &self.reload);
        if known.is_unwanted() {
            return Err(Reason::FilteredByBase);
        }
        let Known { callsite, judged } = known;
        let now = clock::now();
        let around = self.context(outside, inside, stack, event, context);
        let mut draft = writers.get(&self.queue).draft(around.len() + FINISH_BYTES, callsite.severity);
        if !draft.room(callsite.head.len()) {
            return Err(draft.refusal());
        }
        let mut encoder = EventEncoder::new(&mut draft, callsite, now);
        let unfinished = Unfinished { metrics: &self.metrics, severity: callsite.severity };
        event.record(&mut encoder);
        std::mem::forget(unfinished);
        let outcome = encoder.finish();
        if draft.failed() {
            return Err(draft.refusal());
        }
        around.append(&mut draft, callsite, &outcome);
        close_frame(&mut draft);
        if judged.plan.interest != Interest::Always {
            self.judge(&mut draft, callsite, judged, now, scratch)?;
        }
        draft.commit()?;
        self.count_truncated(outcome.truncated + around.left_out);
        Ok(())
    }

    #[inline]
    fn count_truncated(&self, values: u32) {
        (0..values).for_each(|_| self.metrics.truncated());
    }

    /// What the event gets from its thread and spans, from what the thread keeps or built anew.
    #[inline]
    fn context<'c, S>(
        &self,
        outside: &'c mut Context,
        inside: &'c mut Context,
        stack: Option<&Stack>,
        event: &Event<'_>,
        context: &LayerContext<'_, S>,
    ) -> &'c Context
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let leaf = match stack {
            _ if !event.is_contextual() => event.parent().map(|parent| (parent.clone(), false)),
            Some(stack) => stack.current(self.id).map(|leaf| (leaf, !stack.watched_was_left())),
            // While the thread ends, only the registry still knows.
            None => context.lookup_current().map(|span| (span.id(), false)),
        };
        match leaf {
            Some((leaf, entered_since)) => self.context_of(outside, inside, stack, &leaf, entered_since, context),
            None => self.context_outside(outside),
        }
    }

    #[inline]
    fn context_outside<'c>(&self, outside: &'c mut Context) -> &'c Context {
        if outside.made_for.is_none_or(|made_for| made_for.layer != self.id) {
            outside.build_thread(self.id, self.capture);
        }
        outside
    }

    /// `entered_since`: the thread has been in the span whose context it keeps all the time since it was built.
    #[inline]
    fn context_of<'c, S>(
        &self,
        outside: &'c mut Context,
        inside: &'c mut Context,
        stack: Option<&Stack>,
        leaf: &span::Id,
        entered_since: bool,
        context: &LayerContext<'_, S>,
    ) -> &'c Context
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let fresh = inside.made_for.is_some_and(|made_for| {
            made_for.layer == self.id && made_for.span == leaf.into_u64() && made_for.epoch == spans::epoch()
        });
        if fresh && entered_since {
            return inside;
        }
        // A parent that this layer does not see (filtered out, or closed) gives nothing.
        let Some(span) = context.span(leaf) else { return self.context_outside(outside) };
        let same = fresh && inside.made_for.is_some_and(|made_for| made_for.serial == spans::serial(&span));
        if !same {
            let thread = self.context_outside(outside);
            inside.build_span(self.id, self.capture, thread, &span, |ids| self.push_ids(leaf, ids));
        }
        if let Some(stack) = stack {
            stack.watch(leaf.into_u64());
        }
        inside
    }

    /// Appends the trace's fields, if the span is part of a trace.
    #[cfg(feature = "opentelemetry")]
    fn push_ids(&self, leaf: &span::Id, ids: &mut Vec<u8>) {
        self.tracer.push_ids(leaf, ids);
    }

    #[cfg(not(feature = "opentelemetry"))]
    fn push_ids(&self, _: &span::Id, _: &mut Vec<u8>) {}

    /// Asks the rules about a complete record, and changes it as they wish.
    #[cold]
    #[inline(never)]
    fn judge(
        &self,
        draft: &mut Draft<'_>,
        callsite: &Callsite,
        judged: &Judged,
        now: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let active = self.reload.active();
        let view = RecordView::new(draft.written(), active.rules.service(), callsite.severity);
        let mut verdict = if judged.is_of(self.id, active.generation) {
            active.rules.decide_by(&judged.plan, &view, now)
        } else {
            // Swapped since the callsite was looked up.
            active.rules.decide(&view, now)
        };
        let dropped = match verdict.fate {
            Fate::Keep => None,
            Fate::DropByFilter => Some(Reason::FilteredByBase),
            Fate::DropByRule(_) => Some(Reason::FilteredByRule),
        };
        let local = match (dropped, self.reload.console()) {
            (None, _) => false,
            (Some(_), Some(filter)) if filter.wants(view.target(), callsite.severity) => true,
            (Some(reason), _) => return Err(reason),
        };
        if local {
            (verdict.level, verdict.redact) = (None, active.rules.redactions(&view, now));
        }
        if verdict.level.is_some() || !verdict.redact.is_empty() {
            rewrite(draft.written(), verdict.level, verdict.redact, scratch);
            if !draft.replace(scratch) {
                return Err(draft.refusal());
            }
        }
        if local {
            // It goes to the console alone, which the sinks' counters need not know.
            draft.written()[0] = LOCAL_TAG;
        }
        Ok(())
    }
}

/// Counts an event whose values panic while they are formatted: dropped by nothing but the panic.
struct Unfinished<'m> {
    metrics: &'m Metrics,
    severity: Severity,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.metrics.dropped(Reason::Panicked, self.severity);
    }
}

impl<S> Layer<S> for LogsinkLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, _dispatch: &tracing_core::Dispatch) {
        #[cfg(feature = "opentelemetry")]
        self.tracer.set_dispatch(_dispatch);
    }

    fn register_callsite(&self, meta: &'static Metadata<'static>) -> CallsiteInterest {
        if meta.is_event() {
            callsite::prepare(meta, self.capture);
        }
        match &self.filter {
            Some(filter) => filter.interest(meta),
            // Another answer would speak for all layers. The filter in front speaks for this one.
            None => CallsiteInterest::always(),
        }
    }

    fn enabled(&self, meta: &Metadata<'_>, _: LayerContext<'_, S>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.wants(meta))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filter.as_ref().map(RulesFilter::level)
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: LayerContext<'_, S>) {
        self.count_truncated(spans::on_new(attributes, id, &context));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: LayerContext<'_, S>) {
        self.count_truncated(spans::on_record(values, id, &context));
    }

    fn on_enter(&self, id: &span::Id, _: LayerContext<'_, S>) {
        thread::with_stack(|stack| stack.enter(self.id, id));
    }

    fn on_exit(&self, id: &span::Id, _: LayerContext<'_, S>) {
        thread::with_stack(|stack| stack.exit(self.id, id));
    }

    #[inline]
    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let result = if queue::is_own_thread() {
            Err(Reason::OwnThread)
        } else {
            thread::with_state(|state, stack| self.emit(state, stack, event, &context))
                .unwrap_or(Err(Reason::Reentrant))
        };
        if let Err(reason) = result {
            self.metrics.dropped(reason, Severity::from(event.metadata().level()));
        }
    }
}
