//! The `tracing` layer: event → filter → encode → queue, on the caller's thread.
//!
//! What the rules do not want and the flight recorder does goes to the recorder's ring instead of the queue.
//!
//! It never blocks, takes no lock that the worker holds while it works, and allocates nothing in steady state. When the
//! queue is full the event is dropped and counted.
//!
//! Add it by [`LogsinkLayer::filtered`]: `tracing` then knows which callsites and spans this layer wants without other
//! layers of the same subscriber losing any, and where no other layer wants an event either, it costs what a disabled one
//! costs. A subscriber's only layer speaks for all of it ([`LogsinkLayer::sole`]), which spares every event the book-keeping
//! of filters. Added bare, the layer filters by itself, but every event gets as far as it.

mod around;
mod capture;
mod filter;
#[cfg(feature = "opentelemetry")]
mod otel;
mod recorded;
mod thread;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tracing_core::{Event, LevelFilter, Metadata, Subscriber, span, subscriber::Interest as CallsiteInterest};
use tracing_subscriber::{Layer, filter::Filtered, layer::Context as LayerContext, registry::LookupSpan};

pub use self::{
    capture::{Capture, FieldNames, SpanFields},
    filter::RulesFilter,
};
use self::{recorded::Ring, thread::State};
use crate::{
    Severity,
    callsite::{self, Callsite, Entry, Judged, Known},
    clock,
    encode::{
        event::{EventEncoder, FINISH_BYTES},
        view::{RecordView, Scratch, rewrite},
    },
    filter::{EventView as _, Fate, rules::Interest},
    metrics::{Metrics, Reason},
    queue::{Draft, LOCAL_TAG, Producer},
    recorder::Recorder,
    reload::{Active, Reload},
    span::{Spans, stack::Stack},
};
#[cfg(feature = "log")]
use crate::{encode::view::add_attributes, log_bridge};

/// Sends events to the queue.
pub struct LogsinkLayer {
    /// Tells layers apart where threads keep things for several; never used twice.
    id: u64,
    queue: Producer,
    reload: Arc<Reload>,
    metrics: Arc<Metrics>,
    capture: Capture,
    spans: Spans,
    recorder: Option<Arc<Recorder>>,
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
            spans: Spans::new(),
            recorder: None,
            filter: None,
            #[cfg(feature = "opentelemetry")]
            tracer: otel::Tracer::default(),
        }
    }

    /// Records what the recorder's filter in `reload` wants.
    pub(crate) fn recording(mut self, recorder: Arc<Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
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
        let State { callsites, around, writer, recording, scratch, .. } = state;
        let meta = event.metadata();
        let Known { callsite, interest, mut releases } =
            callsites.get(meta, self.reload.generation(), |known| self.look_up(meta, known));
        if interest == Interest::Never {
            let around = around.get(self, stack, event, context);
            let ring =
                Ring { recording, around, callsite, judged: callsites.judged(meta), is_stray: writer.is_stray() };
            return self.record(ring, event, scratch);
        }
        let around = around.get(self, stack, event, context);
        let now = clock::now();
        let mut encoder = EventEncoder::new(writer.draft(around.len() + FINISH_BYTES, callsite.severity), callsite);
        if !encoder.begin(callsite, now) {
            return Err(encoder.draft.refusal());
        }
        let unfinished = Unfinished { layer: self, callsite };
        event.record(&mut encoder);
        std::mem::forget(unfinished);
        if !encoder.finish(callsite, around) {
            return Err(encoder.draft.refusal());
        }
        #[cfg(feature = "log")]
        if callsite.is_log {
            self.add_key_values(&mut encoder.draft, scratch)?;
        }
        if interest == Interest::Sometimes {
            let judged = callsites.judged(meta);
            match self.judge(&mut encoder.draft, callsite, judged, now, scratch) {
                Ok(Judgement::Passes { release }) => releases |= release,
                Ok(Judgement::Local(reason)) => {
                    releases = false;
                    if reason == Reason::FilteredByBase {
                        let ring = Ring { recording, around, callsite, judged, is_stray: encoder.draft.is_of_stray() };
                        // The console gets it whether or not it is recorded as well.
                        let _ = self.record_written(ring, encoder.draft.written());
                    }
                    // What goes to the console alone the sinks' counters need not know.
                    encoder.draft.written()[0] = LOCAL_TAG;
                }
                Err(Reason::FilteredByBase) => {
                    let ring = Ring { recording, around, callsite, judged, is_stray: encoder.draft.is_of_stray() };
                    return self.record_written(ring, encoder.draft.written());
                }
                Err(reason) => return Err(reason),
            }
        }
        encoder.draft.commit()?;
        if releases {
            self.release(recording.as_ref(), around);
        }
        let truncated = encoder.truncated + around.left_out;
        if truncated > 0 {
            self.count_truncated(truncated);
        }
        Ok(())
    }

    /// Adds the key-values of the record of the `log` crate that this event stands for.
    #[cfg(feature = "log")]
    #[cold]
    #[inline(never)]
    fn add_key_values(&self, draft: &mut Draft<'_>, scratch: &mut Scratch) -> Result<(), Reason> {
        let lost = log_bridge::with_current(|key_values| {
            let is_redacted = |key: &str| self.capture.redact.cover(key);
            add_attributes(draft.written(), &key_values.attributes, is_redacted, &mut scratch.record);
            if draft.replace(&scratch.record) {
                return Ok(key_values.truncated + key_values.left_out);
            }
            match draft.refusal() {
                // It fills a chunk without them.
                Reason::Oversize => Ok(key_values.count),
                reason => Err(reason),
            }
        });
        self.count_truncated(lost.transpose()?.unwrap_or(0));
        Ok(())
    }

    /// For an event inside another one, or made while the thread ends.
    #[cold]
    #[inline(never)]
    fn emit_apart<S>(&self, event: &Event<'_>, context: &LayerContext<'_, S>) -> Result<(), Reason>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        thread::apart(self.id, &self.queue, |state, stack| self.emit(state, stack, event, context))
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, meta: &'static Metadata<'static>, known: Option<&'static Callsite>) -> Entry {
        Entry::new(meta, known, self.id, self.capture, &self.reload)
    }

    #[cold]
    #[inline(never)]
    fn count_truncated(&self, values: u32) {
        (0..values).for_each(|_| self.metrics.truncated());
    }

    /// Asks the rules about a complete record, and changes it as they wish. Tells whether the flight recorder shall speak.
    #[cold]
    #[inline(never)]
    fn judge(
        &self,
        draft: &mut Draft<'_>,
        callsite: &Callsite,
        judged: Option<&Judged>,
        now: u64,
        scratch: &mut Scratch,
    ) -> Result<Judgement, Reason> {
        let active = self.reload.active();
        let is_of = |active: &Active| judged.filter(|judged| judged.is_of(self.id, active.generation));
        // While a swap is under way callsites go by the rules that they were judged by.
        let previous = if is_of(&active).is_none() { self.reload.previous() } else { None };
        let active = previous.as_deref().filter(|previous| is_of(previous).is_some()).unwrap_or(&active);
        let view = RecordView::of(draft.written(), active.rules.service(), callsite);
        let mut verdict = match is_of(active) {
            Some(judged) => active.rules.decide_by(&judged.plan, &view, now),
            None => active.rules.decide(&view, now),
        };
        let dropped = match verdict.fate {
            Fate::Keep => None,
            Fate::DropByFilter => Some(Reason::FilteredByBase),
            Fate::DropByRule(_) => Some(Reason::FilteredByRule),
        };
        let local = match (dropped, self.reload.console()) {
            (Some(reason), Some(filter)) if filter.wants(view.target(), callsite.severity) => Some(reason),
            (Some(reason), _) => return Err(reason),
            (None, _) => None,
        };
        if local.is_some() {
            (verdict.level, verdict.repeated) = (None, 0);
            verdict.edits = active.rules.edits_of(&view, now);
        }
        if verdict.changes() && rewrite(draft.written(), &verdict, scratch) && !draft.replace(&scratch.record) {
            return Err(draft.refusal());
        }
        Ok(match local {
            Some(reason) => Judgement::Local(reason),
            None => Judgement::Passes { release: verdict.release },
        })
    }
}

impl LogsinkLayer {
    #[cold]
    #[inline(never)]
    fn refused(&self, reason: Reason, event: &Event<'_>) {
        self.metrics.dropped(reason, Severity::from(event.metadata().level()));
    }
}

/// What becomes of a record that somebody wants.
enum Judgement {
    /// The sinks get it; the flight recorder may have to speak.
    Passes { release: bool },
    /// The console alone gets it: the rules drop it for this reason.
    Local(Reason),
}

/// Counts an event whose values panic while they are formatted: dropped by nothing but the panic.
struct Unfinished<'l> {
    layer: &'l LogsinkLayer,
    callsite: &'static Callsite,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.layer.metrics.dropped(Reason::Panicked, self.callsite.severity);
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
        self.count_truncated(self.spans.on_new(attributes, id, &context));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: LayerContext<'_, S>) {
        self.count_truncated(self.spans.on_record(values, id, &context));
    }

    fn on_enter(&self, id: &span::Id, _: LayerContext<'_, S>) {
        thread::with_stack(|stack| stack.enter(self.id, id));
    }

    fn on_exit(&self, id: &span::Id, _: LayerContext<'_, S>) {
        thread::with_stack(|stack| stack.exit(self.id, id));
    }

    fn on_close(&self, id: span::Id, _: LayerContext<'_, S>) {
        self.spans.close(&id);
    }

    #[inline(always)]
    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let outcome = match thread::lend() {
            Some(mut lent) => match lent.state(self.id, &self.queue) {
                Ok((state, stack)) => self.emit(state, Some(stack), event, &context),
                Err(reason) => Err(reason),
            },
            None => self.emit_apart(event, &context),
        };
        if let Err(reason) = outcome {
            self.refused(reason, event);
        }
    }
}
