//! The layer's part of the flight recorder: what goes there, and when it shall speak.

use tracing_core::Event;

use super::{LogsinkLayer, Unfinished};
use crate::{
    callsite::{Callsite, Judged},
    clock,
    encode::{
        event::{EventEncoder, FINISH_BYTES},
        view::{RecordView, Scratch},
    },
    filter::{EventView, recording::Wish},
    metrics::Reason,
    queue::Writer,
    span::Context,
};

/// What is known of an event that the rules do not let pass.
pub(super) struct Ring<'e> {
    pub(super) recording: &'e mut Option<Writer>,
    pub(super) around: &'e Context,
    pub(super) callsite: &'static Callsite,
    pub(super) judged: Option<&'e Judged>,
    /// The event has a state of its own, which ends with it: a ring for it alone would push another thread's out.
    pub(super) is_stray: bool,
}

impl Ring<'_> {
    fn wish(&self) -> Wish {
        self.judged.map_or(Wish::Never, |judged| judged.wish)
    }
}

impl LogsinkLayer {
    /// Keeps an event of a callsite that no rule lets pass. What cannot be kept is counted.
    ///
    /// # Errors
    /// When it is not to be kept.
    #[inline(never)]
    #[cfg_attr(not(feature = "log"), allow(unused_variables, reason = "only records of `log` need the scratch"))]
    pub(super) fn record(&self, ring: Ring<'_>, event: &Event<'_>, scratch: &mut Scratch) -> Result<(), Reason> {
        let Some(recorder) = self.recorder.as_ref().filter(|_| ring.wish() != Wish::Never) else {
            return Err(Reason::FilteredByBase);
        };
        let wish = ring.wish();
        let Ring { recording, around, callsite, is_stray, .. } = ring;
        if is_stray {
            recorder.refuse();
            return Ok(());
        }
        let writer = recording.get_or_insert_with(|| Writer::recording(&self.queue, recorder));
        let Some(draft) = writer.record(around.len() + FINISH_BYTES, callsite.severity) else { return Ok(()) };
        let mut encoder = EventEncoder::new(draft, callsite);
        if !encoder.begin(callsite, clock::now()) {
            recorder.refuse();
            return Ok(());
        }
        let unfinished = Unfinished { layer: self, callsite };
        event.record(&mut encoder);
        std::mem::forget(unfinished);
        let written = encoder.finish(callsite, around);
        #[cfg(feature = "log")]
        let written = written && (!callsite.is_log || self.add_key_values(&mut encoder.draft, scratch).is_ok());
        let kept = written && (!self.wants(wish, callsite, encoder.draft.written()) || encoder.draft.keep(around.root));
        let truncated = encoder.truncated + around.left_out;
        if !kept {
            recorder.refuse();
        } else if truncated > 0 {
            self.count_truncated(truncated);
        }
        Ok(())
    }

    /// As [`LogsinkLayer::record`], when the record was complete before its values showed that the rules do not want it.
    ///
    /// # Errors
    /// When it is not to be kept.
    #[cold]
    #[inline(never)]
    pub(super) fn record_written(&self, ring: Ring<'_>, record: &[u8]) -> Result<(), Reason> {
        let recorder = match &self.recorder {
            Some(recorder) if self.wants(ring.wish(), ring.callsite, record) => recorder,
            _ => return Err(Reason::FilteredByBase),
        };
        if ring.is_stray {
            recorder.refuse();
            return Ok(());
        }
        let writer = ring.recording.get_or_insert_with(|| Writer::recording(&self.queue, recorder));
        let Some(mut draft) = writer.record(0, ring.callsite.severity) else { return Ok(()) };
        if !(draft.append(record, 0) && draft.keep(ring.around.root)) {
            recorder.refuse();
        }
        Ok(())
    }

    /// Whether the recorder wants this record.
    #[inline]
    fn wants(&self, wish: Wish, callsite: &Callsite, record: &[u8]) -> bool {
        match wish {
            Wish::Never => false,
            Wish::Always => true,
            Wish::ByTarget => self.wants_target(callsite, record),
        }
    }

    #[cold]
    fn wants_target(&self, callsite: &Callsite, record: &[u8]) -> bool {
        let view = RecordView::new(record, "", callsite.severity);
        self.reload.recording().is_some_and(|recording| recording.filter.wants(view.target(), callsite.severity))
    }

    /// An event of the trigger's severity was published: what is recorded around it shall be sent.
    #[cold]
    #[inline(never)]
    pub(super) fn release(&self, recording: Option<&Writer>, around: &Context) {
        let Some(recorder) = &self.recorder else { return };
        let key = if around.root == 0 { recording.and_then(Writer::recorded_key) } else { Some(around.root) };
        if let Some(key) = key {
            recorder.ask(key);
        }
    }
}
