//! What the library says on stderr about its sink: one line when it is down, one a minute while it stays so, one when it is
//! back, and at most one a minute about events that were lost. Decides purely; the worker says it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::send::REPORT_INTERVAL;
use crate::metrics::{Reason, Snapshot};

/// A sink that fails for less than this restarts or moves; not worth a line.
const GRACE: Duration = Duration::from_secs(1);

/// The sink as the last answers show it.
#[derive(Debug)]
pub(crate) struct Health {
    sink: String,
    down: Option<Down>,
    /// The last refusal, for the next report.
    refused: Option<(Reason, String)>,
    /// Losses that were reported already, and when.
    lost_reported: u64,
    reported: Option<Instant>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    /// When stderr last heard of it.
    said: Option<Instant>,
    lost_before: u64,
}

impl Health {
    pub(crate) fn new(sink: String) -> Self {
        Self { sink, down: None, refused: None, lost_reported: 0, reported: None }
    }

    /// A try failed and will be repeated.
    pub(crate) fn failed(&mut self, now: Instant, message: &str, counts: &Snapshot) -> Option<String> {
        let lost = counts.lost();
        let down = self.down.get_or_insert(Down { since: now, said: None, lost_before: lost });
        let duration = now.duration_since(down.since);
        match down.said {
            None if duration < GRACE => return None,
            Some(said) if now.duration_since(said) < REPORT_INTERVAL => return None,
            _ => {}
        }
        let first = down.said.replace(now).is_none();
        let lost = lost - down.lost_before.min(lost);
        Some(if first {
            format!("{} takes no events, which wait in memory meanwhile: {message}", self.sink)
        } else {
            let seconds = duration.as_secs();
            format!("{} has taken no events for {seconds} s, {lost} were lost meanwhile: {message}", self.sink)
        })
    }

    /// A batch was taken. Whether the sink was down before, and what to say about it.
    pub(crate) fn succeeded(&mut self, now: Instant, counts: &Snapshot) -> (bool, Option<String>) {
        let Some(down) = self.down.take() else { return (false, None) };
        let line = down.said.map(|_| {
            let seconds = now.duration_since(down.since).as_secs();
            let lost = counts.lost() - down.lost_before.min(counts.lost());
            format!("{} takes events again after {seconds} s, {lost} were lost meanwhile", self.sink)
        });
        (true, line)
    }

    /// Whether the last try failed.
    pub(super) fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Records were refused for good.
    pub(crate) fn refused(&mut self, reason: Reason, message: &str) {
        self.refused = Some((reason, message.to_owned()));
    }

    /// What was lost since the last report, when that is long enough ago.
    pub(crate) fn report(&mut self, now: Instant, counts: &Snapshot) -> Option<String> {
        if self.reported.is_some_and(|reported| now.duration_since(reported) < REPORT_INTERVAL) {
            return None;
        }
        let line = self.report_last(counts)?;
        self.reported = Some(now);
        Some(line)
    }

    /// What was lost since the last report.
    pub(crate) fn report_last(&mut self, counts: &Snapshot) -> Option<String> {
        let lost = counts.lost();
        if lost <= self.lost_reported {
            return None;
        }
        let more = lost - self.lost_reported;
        self.lost_reported = lost;
        let mut line = format!("{more} events were lost; since the start:");
        let mut separator = ' ';
        for reason in Reason::ALL.into_iter().filter(|reason| reason.is_loss()) {
            let count = counts.dropped_for(reason);
            if count > 0 {
                line.push_str(&format!("{separator}{reason}={count}"));
                separator = ',';
            }
        }
        if let Some((reason, message)) = self.refused.take() {
            line.push_str(&format!("; the last by {} as {reason}: {message}", self.sink));
        }
        Some(line)
    }
}

/// Whole after every statement, so a panic elsewhere does not spoil it.
pub(super) fn lock(health: &Mutex<Health>) -> MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Severity, metrics::Metrics};

    #[test]
    fn an_outage_is_said_once_then_every_minute_then_its_end() {
        let metrics = Metrics::new();
        let counts = || metrics.snapshot();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::new("http://sink".to_owned());
        assert_eq!(health.succeeded(at(0), &counts()), (false, None));

        assert_eq!(health.failed(at(0), "refused", &counts()), None, "grace");
        assert_eq!(health.succeeded(at(0), &counts()), (true, None), "a hiccup is not worth a line");

        assert_eq!(health.failed(at(1), "refused", &counts()), None);
        let line = health.failed(at(2), "refused", &counts()).unwrap();
        assert_eq!(line, "http://sink takes no events, which wait in memory meanwhile: refused");
        metrics.dropped(Reason::QueueFull, Severity::INFO);
        assert_eq!(health.failed(at(61), "refused", &counts()), None);
        let line = health.failed(at(62), "refused", &counts()).unwrap();
        assert_eq!(line, "http://sink has taken no events for 61 s, 1 were lost meanwhile: refused");
        let (was_down, line) = health.succeeded(at(63), &counts());
        assert!(was_down);
        assert_eq!(line.unwrap(), "http://sink takes events again after 62 s, 1 were lost meanwhile");
    }

    #[test]
    fn losses_are_reported_once() {
        let metrics = Metrics::new();
        let now = Instant::now();
        let mut health = Health::new("http://sink".to_owned());
        metrics.dropped(Reason::FilteredByRule, Severity::INFO);
        assert_eq!(health.report(now, &metrics.snapshot()), None, "not a loss");
        metrics.dropped_many(Reason::Permanent, Severity::INFO, 3);
        health.refused(Reason::Permanent, "unauthenticated");
        assert_eq!(
            health.report(now, &metrics.snapshot()).unwrap(),
            "3 events were lost; since the start: permanent=3; the last by http://sink as permanent: unauthenticated"
        );
        metrics.dropped(Reason::QueueFull, Severity::INFO);
        assert_eq!(health.report(now + Duration::from_secs(59), &metrics.snapshot()), None, "not again so soon");
        let line = health.report(now + REPORT_INTERVAL, &metrics.snapshot()).unwrap();
        assert_eq!(line, "1 events were lost; since the start: queue_full=1,permanent=3");
        assert_eq!(health.report_last(&metrics.snapshot()), None);
    }
}
