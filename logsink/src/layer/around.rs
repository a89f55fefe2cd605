//! Which context an event gets: what its thread and the spans around it have to say.
//!
//! A thread's events mostly have the context of the one before. It is settled again after the thread has entered or left a
//! span, or a value was recorded for any span, and for an event that names its parent.

use tracing_core::{Event, Subscriber, span};
use tracing_subscriber::{layer::Context as LayerContext, registry::LookupSpan};

use super::LogsinkLayer;
use crate::span::{Context, epoch, stack::Stack};

/// The contexts that a thread keeps for one layer.
#[derive(Default)]
pub(super) struct Around {
    /// [`Stack::version`] when it was settled; 0 for "settle again".
    version: u64,
    /// [`epoch`] when it was settled.
    epoch: u64,
    /// Whether the settled context is `inside`, else `outside`.
    is_inside: bool,
    /// Outside of any span.
    outside: Context,
    /// Of the span that an event was last in.
    inside: Context,
}

impl Around {
    #[inline(always)]
    pub(super) fn get<S>(
        &mut self,
        layer: &LogsinkLayer,
        stack: Option<&Stack>,
        event: &Event<'_>,
        context: &LayerContext<'_, S>,
    ) -> &Context
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let settled = event.is_contextual()
            && self.epoch == epoch()
            && stack.is_some_and(|stack| stack.version() == self.version);
        if !settled {
            self.settle(layer, stack, event, context);
        }
        if self.is_inside { &self.inside } else { &self.outside }
    }

    #[cold]
    #[inline(never)]
    fn settle<S>(
        &mut self,
        layer: &LogsinkLayer,
        stack: Option<&Stack>,
        event: &Event<'_>,
        context: &LayerContext<'_, S>,
    ) where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // Before anything is read that may change.
        self.epoch = epoch();
        self.version = 0;
        let leaf = match stack {
            _ if !event.is_contextual() => event.parent().cloned(),
            Some(stack) => {
                self.version = stack.version();
                stack.current(layer.id)
            }
            // While the thread ends, only the registry still knows.
            None => context.lookup_current().map(|span| span.id()),
        };
        // A parent that this layer does not see (filtered out, or closed) gives nothing.
        let span = leaf.as_ref().and_then(|leaf| context.span(leaf));
        self.is_inside = span.is_some();
        if !self.outside.is_built() {
            self.outside.build_thread(&layer.capture);
        }
        if let Some(span) = span
            && !self.inside.still_shows(&layer.spans, &span)
        {
            let ids = |ids: &mut Vec<u8>| layer.push_ids(&span.id(), ids);
            self.inside.build_span(&layer.capture, &self.outside, &layer.spans, &span, ids);
        }
    }
}

impl LogsinkLayer {
    /// Appends the trace's fields, if the span is part of a trace.
    #[cfg(feature = "opentelemetry")]
    fn push_ids(&self, leaf: &span::Id, ids: &mut Vec<u8>) {
        self.tracer.push_ids(leaf, ids);
    }

    #[cfg(not(feature = "opentelemetry"))]
    fn push_ids(&self, _: &span::Id, _: &mut Vec<u8>) {}
}
