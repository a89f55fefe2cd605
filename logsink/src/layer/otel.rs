//! The trace that a span belongs to, as `tracing-opentelemetry` knows it.

use std::sync::OnceLock;

use opentelemetry::trace::TraceContextExt;
use tracing_core::{Dispatch, dispatcher::WeakDispatch, span};

use crate::encode::{push_delimited, tag};

/// Looks spans up in the subscriber that the layer is part of.
#[derive(Default)]
pub(super) struct Tracer {
    dispatch: OnceLock<WeakDispatch>,
}

impl Tracer {
    pub(super) fn set_dispatch(&self, dispatch: &Dispatch) {
        // A layer is part of one subscriber: the first call counts.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    /// Appends `trace_id`, `span_id` and `flags`. Nothing when the span is part of no trace. Starts the trace's span if it
    /// has not started, since it has no ids before.
    pub(super) fn push_ids(&self, leaf: &span::Id, ids: &mut Vec<u8>) {
        let Some(dispatch) = self.dispatch.get().and_then(WeakDispatch::upgrade) else { return };
        let Some(context) = tracing_opentelemetry::get_otel_context(leaf, &dispatch) else { return };
        let span = context.span();
        let trace = span.span_context();
        if trace.is_valid() {
            push_delimited(ids, tag::TRACE_ID, &trace.trace_id().to_bytes());
            push_delimited(ids, tag::SPAN_ID, &trace.span_id().to_bytes());
            ids.push(tag::FLAGS);
            ids.extend_from_slice(&u32::from(trace.trace_flags().to_u8()).to_le_bytes());
        }
    }
}
