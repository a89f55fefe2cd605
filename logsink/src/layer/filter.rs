//! Tells `tracing` which callsites and spans the rules want, for this layer alone.

use std::sync::Arc;

use tracing_core::{LevelFilter, Metadata, subscriber::Interest as CallsiteInterest};
use tracing_subscriber::layer::{Context, Filter};

use super::Capture;
use crate::{
    Severity, callsite,
    filter::rules::{BaseFilter, Interest},
    reload::Reload,
};

/// The rules as a per-layer filter: disables what no event of a callsite can pass. What depends on values is decided by the
/// layer, when it has them.
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
                    judged.plan.interest != Interest::Never || judged.console
                }
                None => self.wants_event(meta),
            };
        }
        self.wants_span(meta)
    }

    fn wants_event(&self, meta: &Metadata<'_>) -> bool {
        self.reload.active().rules.interest(meta) != Interest::Never || self.console_wants(meta)
    }

    fn console_wants(&self, meta: &Metadata<'_>) -> bool {
        self.reload.console().is_some_and(|filter| filter.may_want(meta))
    }

    /// A rule that drops events says nothing about spans: an error inside keeps the fields of the `info` span around it,
    /// though a rule drops that target's `info` events. So spans go by the base filter, and by rules that keep more.
    fn wants_span(&self, meta: &Metadata<'_>) -> bool {
        let active = self.reload.active();
        active.rules.base().wants(meta.target(), Severity::from(meta.level())) || self.wants_event(meta)
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
        let rules = self.reload.active().rules.max_level();
        let console = self.reload.console().and_then(BaseFilter::least);
        console.map_or(rules, |least| rules.max(least.into()))
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
