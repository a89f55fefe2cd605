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
    filter::{Fate, rules::Interest},
    metrics::{Metrics, Reason},
    queue::{self, Draft, Producer},
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

    #[inline(always)]
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
        let State { stray, callsites, outside, inside, scratch, writer, .. } = state;
        let Known { callsite, interest, judged } = callsites.get(event.metadata(), self.id, self.capture, &self.reload);
        if interest == Interest::Never {
            return Err(Reason::FilteredByBase);
        }
        let around = self.context(outside, inside, stack, *stray, event, context);
        let mut draft = writer.draft(around.len() + FINISH_BYTES, callsite.severity);
        if !draft.room(callsite.head.len()) {
            return Err(draft.refusal());
        }
        let now = clock::now();
        let mut encoder = EventEncoder::new(draft, callsite, now);
        let unfinished = Unfinished { metrics: &self.metrics, severity: callsite.severity };
        event.record(&mut encoder);
        std::mem::forget(unfinished);
        let outcome = encoder.finish();
        let draft = &mut encoder.draft;
        if draft.failed() {
            return Err(draft.refusal());
        }
        around.append(draft, callsite, &outcome);
        close_frame(draft);
        if interest == Interest::Sometimes {
            self.judge(draft, callsite, judged, now, scratch)?;
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
    #[inline(always)]
    fn context<'c, S>(
        &self,
        outside: &'c mut Context,
        inside: &'c mut Context,
        stack: Option<&Stack>,
        stray: bool,
        event: &Event<'_>,
        context: &LayerContext<'_, S>,
    ) -> &'c Context
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let thread = match stack {
            Some(stack) if event.is_contextual() => stack,
            _ => return self.context_elsewhere(outside, inside, stack, stray, event, context),
        };
        let Some(leaf) = thread.current(self.id) else { return self.context_outside(outside) };
        if thread.watches(self.id, leaf) && inside.is_of(leaf) {
            return inside;
        }
        self.context_of(outside, inside, stack.filter(|_| !stray), &span::Id::from_u64(leaf), context)
    }

    /// For an event that names its parent, or is made while the thread ends: then only the registry still knows.
    #[cold]
    #[inline(never)]
    fn context_elsewhere<'c, S>(
        &self,
        outside: &'c mut Context,
        inside: &'c mut Context,
        stack: Option<&Stack>,
        stray: bool,
        event: &Event<'_>,
        context: &LayerContext<'_, S>,
    ) -> &'c Context
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let parent = match event.is_contextual() {
            true => context.lookup_current().map(|span| span.id()),
            false => event.parent().cloned(),
        };
        let Some(parent) = parent else { return self.context_outside(outside) };
        // The thread need not be in this span: nothing would tell when its id stands for another.
        if let Some(stack) = stack.filter(|_| !stray) {
            stack.watch_none();
        }
        self.context_of(outside, inside, None, &parent, context)
    }

    #[inline(always)]
    fn context_outside<'c>(&self, outside: &'c mut Context) -> &'c Context {
        if !outside.is_built() {
            outside.build_thread(self.capture);
        }
        outside
    }

    /// `entered`: where the thread is in this span, and the context stays with it.
    #[inline(never)]
    fn context_of<'c, S>(
        &self,
        outside: &'c mut Context,
        inside: &'c mut Context,
        entered: Option<&Stack>,
        leaf: &span::Id,
        context: &LayerContext<'_, S>,
    ) -> &'c Context
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // A parent that this layer does not see (filtered out, or closed) gives nothing.
        let Some(span) = context.span(leaf) else { return self.context_outside(outside) };
        if !(inside.is_of(leaf.into_u64()) && inside.serial() == spans::serial(&span)) {
            let thread = self.context_outside(outside);
            inside.build_span(self.capture, thread, &span, |ids| self.push_ids(leaf, ids));
        }
        if let Some(stack) = entered {
            stack.watch(self.id, leaf.into_u64());
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
        let verdict = if judged.is_of(self.id, active.generation) {
            active.rules.decide_by(&judged.plan, &view, now)
        } else {
            // Swapped since the callsite was looked up.
            active.rules.decide(&view, now)
        };
        match verdict.fate {
            Fate::Keep => {}
            Fate::DropByFilter => return Err(Reason::FilteredByBase),
            Fate::DropByRule(_) => return Err(Reason::FilteredByRule),
        }
        if verdict.level.is_some() || !verdict.redact.is_empty() {
            rewrite(draft.written(), verdict.level, verdict.redact, scratch);
            if !draft.replace(scratch) {
                return Err(draft.refusal());
            }
        }
        Ok(())
    }
}

impl LogsinkLayer {
    #[cold]
    #[inline(never)]
    fn refused(&self, reason: Reason, event: &Event<'_>) {
        self.metrics.dropped(reason, Severity::from(event.metadata().level()));
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

    #[inline(always)]
    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let result = if queue::is_own_thread() {
            Err(Reason::OwnThread)
        } else {
            thread::with_state(self.id, &self.queue, |state, stack| self.emit(state, stack, event, &context))
                .unwrap_or(Err(Reason::Reentrant))
        };
        if let Err(reason) = result {
            self.refused(reason, event);
        }
    }
}
