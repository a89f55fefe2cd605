//! A step that runs by itself until it is told to stop.

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::error::Error;

/// A running step. Its end is reported once, to whoever waits first.
pub(super) struct Task {
    step: &'static str,
    handle: Option<JoinHandle<Result<(), Error>>>,
}

impl Task {
    pub(super) fn spawn(step: &'static str, work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Self {
        Self { step, handle: Some(tokio::spawn(work)) }
    }

    /// Waits for its end; a step whose end was reported already has ended well. Cancel-safe.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        let Some(handle) = &mut self.handle else { return Ok(()) };
        let result = handle.await;
        self.handle = None;
        result.unwrap_or_else(|panic| Err(Error::step(self.step, panic)))
    }

    /// Its end before it was told to: always an error. For ever pending when that was reported already.
    pub(super) async fn early_end(&mut self) -> Error {
        self.end().await.err().unwrap_or_else(|| Error::step(self.step, "ended by itself"))
    }

    /// Waits for its end, and cuts it off at `deadline`.
    pub(super) async fn end_by(mut self, deadline: Instant) -> Result<(), Error> {
        if let Ok(result) = timeout_at(deadline, self.end()).await {
            return result;
        }
        if let Some(handle) = &self.handle {
            handle.abort();
        }
        Err(Error::step(self.step, "did not stop in time"))
    }
}
