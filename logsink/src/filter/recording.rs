//! What the flight recorder wants of the events that the rules do not. Pure.

use tracing_core::{LevelFilter, Metadata};

use super::rules::{BaseFilter, Interest, RuleSet, target_known};
use crate::Severity;

/// The recorder's own filter, and what makes it speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recording {
    /// Which events are kept that the rules do not let pass.
    pub(crate) filter: BaseFilter,
    /// Events of this severity and above make the recorder send what it has kept of their span tree.
    pub(crate) trigger: Severity,
}

/// Whether an event that the rules do not let pass is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// No event of the callsite is.
    Never,
    /// Every one.
    Always,
    /// It depends on its target: the callsite stands for all events of the `log` crate.
    ByTarget,
}

impl Recording {
    /// What to do with the callsite's events that do not pass. What a rule drops for good is not recorded: it would be
    /// dropped when it is released.
    pub(crate) fn wish(&self, rules: &RuleSet, meta: &Metadata<'_>) -> Wish {
        let severity = Severity::from(meta.level());
        let wanted = match target_known(meta) {
            Some(target) => Some(self.filter.wants(target, severity)),
            None => self.filter.wants_any_target(severity),
        };
        if wanted == Some(false)
            || rules.interest(meta) == Interest::Always
            || rules.plan_over(&self.filter, meta).interest == Interest::Never
        {
            return Wish::Never;
        }
        if wanted == Some(true) { Wish::Always } else { Wish::ByTarget }
    }

    /// The most verbose level that it may want.
    pub(crate) fn max_level(&self) -> LevelFilter {
        match self.filter.least() {
            None => LevelFilter::OFF,
            Some(least) if least <= Severity::TRACE => LevelFilter::TRACE,
            Some(least) if least <= Severity::DEBUG => LevelFilter::DEBUG,
            Some(least) if least <= Severity::INFO => LevelFilter::INFO,
            Some(least) if least <= Severity::WARN => LevelFilter::WARN,
            Some(_) => LevelFilter::ERROR,
        }
    }
}
