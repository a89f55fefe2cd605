//! `tracing_subscriber::fmt` into `tracing_appender::non_blocking`.

use tracing::{Level, subscriber::set_global_default};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{Running, WhenFull};
use crate::sink::CountingWriter;

fn writer(when_full: WhenFull) -> (NonBlocking, WorkerGuard) {
    // As shipped it drops what is beyond 128,000 lines.
    NonBlockingBuilder::default().lossy(when_full != WhenFull::Block).finish(CountingWriter)
}

pub(super) fn text(when_full: WhenFull) -> anyhow::Result<Running> {
    let (writer, guard) = writer(when_full);
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_max_level(Level::INFO);
    set_global_default(subscriber.finish())?;
    Ok(Running { keep: vec![Box::new(guard)], ..Running::tracing() })
}

pub(super) fn json(when_full: WhenFull) -> anyhow::Result<Running> {
    let (writer, guard) = writer(when_full);
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_max_level(Level::INFO).json();
    set_global_default(subscriber.finish())?;
    Ok(Running { keep: vec![Box::new(guard)], ..Running::tracing() })
}
