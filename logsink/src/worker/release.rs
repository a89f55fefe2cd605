//! What the flight recorder was asked for, on its way to the sinks: read from the rings, judged by the rules, marked.

use std::sync::Arc;

use crate::{
    encode::view::{RecordView, Scratch, mark, rewrite},
    filter::{EventView, Fate, recording::Recording},
    metrics::{Metrics, Reason},
    queue,
    recorder::{MARK, Recorder, Releaser},
    reload::{self, Reload},
};

/// Reads the recorder for the worker.
pub(crate) struct Release {
    releaser: Releaser,
    reload: Arc<Reload>,
    metrics: Arc<Metrics>,
    // Buffers that keep their capacity.
    changed: Scratch,
    run: Vec<u8>,
}

/// What is not needed all the time is given back beyond this.
const BUFFER_BYTES_MAX: usize = 1 << 20;

impl Release {
    pub(crate) fn new(recorder: Arc<Recorder>, reload: Arc<Reload>, metrics: Arc<Metrics>) -> Self {
        Self { releaser: Releaser::new(recorder), reload, metrics, changed: Scratch::default(), run: Vec::new() }
    }

    /// Does now what would make the first release slow.
    pub(super) fn prepare(&self) {
        self.releaser.prepare();
    }

    /// Calls `each` with runs of framed records: all that was asked for before the call and that the rules let pass, the base
    /// filter aside.
    pub(super) fn run(&mut self, each: &mut dyn FnMut(&[u8])) {
        let Self { releaser, reload, metrics, changed, run } = self;
        let mut released = 0;
        releaser.release(&mut |found| {
            let active = reload.active();
            let Some(Recording { filter, .. }) = reload.recording() else { return };
            let now = reload::unix_now_ns();
            run.clear();
            for record in queue::records(found) {
                let view = RecordView::read(record, active.rules.service());
                let verdict = active.rules.decide_over(filter, &view, now);
                match verdict.fate {
                    Fate::Keep => {}
                    Fate::DropByFilter => {
                        metrics.dropped(Reason::FilteredByBase, view.severity());
                        continue;
                    }
                    Fate::DropByRule(_) => {
                        metrics.dropped(Reason::FilteredByRule, view.severity());
                        continue;
                    }
                }
                let changes = verdict.changes() && rewrite(record, &verdict, changed);
                mark(if changes { &changed.record } else { record }, MARK, run);
                released += 1;
            }
            each(run);
        });
        self.run.clear();
        self.run.shrink_to(BUFFER_BYTES_MAX);
        self.releaser.recorder().released(released);
        self.metrics.recorder(self.releaser.recorder().counts());
    }
}
