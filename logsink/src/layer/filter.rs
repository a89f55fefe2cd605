//! Tells `tracing` which callsites and spans the rules want, for this layer alone.

use std::sync::Arc;

use tracing_core::{LevelFilter, Metadata, subscriber::Interest as CallsiteInterest};
use tracing_subscriber::layer::{Context, Filter};

use super::Capture;
use crate::{
    Severity, callsite,
    filter::{
        recording::{Recording, Wish},
        rules::{BaseFilter, Interest},
    },
    reload::Reload,
};

/// The rules as a per-layer filter: disables what no event of a callsite can pass. What depends on values is decided by the
/// layer, when it has them. What only the flight recorder wants is enabled too.
#[derive(Debug)]
pub struct RulesFilter {
    layer: u64,
    reload: Arc<Reload>,
    capture: Capture,
}

impl RulesFilter {
    pub(super) fn new(layer: u64, reload: Arc<Reload>, capture: Capture) -> Self {
        Self { layer, reload, capture }
    }

    pub(super) fn wants(&self, meta: &Metadata<'_>) -> bool {
        if meta.is_event() {
            // Prepared callsites remember; records of the `log` crate come with metadata made for the moment.
            return match callsite::find(meta, self.capture) {
                Some(callsite) => {
                    let judged = callsite.judge(meta, self.layer, &self.reload);
                    judged.plan.interest != Interest::Never || judged.console || judged.wish != Wish::Never
                }
                None => self.wants_event(meta),
            };
        }
        self.wants_span(meta)
    }

    fn wants_event(&self, meta: &Metadata<'_>) -> bool {
        let rules = &self.reload.active().rules;
        let is_recorded = |recording: &Recording| recording.wish(rules, meta) != Wish::Never;
        rules.interest(meta) != Interest::Never
            || self.reload.console().is_some_and(|filter| filter.may_want(meta))
            || self.reload.recording().is_some_and(is_recorded)
    }

    /// A rule that drops events says nothing about spans: an error inside keeps the fields of the `info` span around it,
    /// though a rule drops that target's `info` events. So spans go by the base filter, by the recorder's, and by rules that
    /// keep more.
    fn wants_span(&self, meta: &Metadata<'_>) -> bool {
        let active = self.reload.active();
        let severity = Severity::from(meta.level());
        active.rules.base().wants(meta.target(), severity)
            || self.reload.recording().is_some_and(|recording| recording.filter.wants(meta.target(), severity))
            || self.wants_event(meta)
    }

    pub(super) fn interest(&self, meta: &'static Metadata<'static>) -> CallsiteInterest {
        // Asked anew, not remembered: a rule may have expired without a swap.
        let wanted = if meta.is_event() { self.wants_event(meta) } else { self.wants_span(meta) };
        if wanted && meta.is_event() {
            // Here, on the thread that swaps the rules, rather than in the callsite's next event: with a thousand rules it
            // takes longer than an event should.
            callsite::prepare(meta, self.capture).judge(meta, self.layer, &self.reload);
        }
        if wanted { CallsiteInterest::always() } else { CallsiteInterest::never() }
    }

    /// The most verbose level that is wanted anywhere.
    pub(super) fn level(&self) -> LevelFilter {
        let console = self.reload.console().and_then(BaseFilter::least).map_or(LevelFilter::OFF, LevelFilter::from);
        let recorded = self.reload.recording().map_or(LevelFilter::OFF, Recording::max_level);
        self.reload.active().rules.max_level().max(console).max(recorded)
    }
}

impl<S> Filter<S> for RulesFilter {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(meta)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> CallsiteInterest {
        self.interest(meta)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }
}
