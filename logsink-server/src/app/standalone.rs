//! Standalone: the on-disk log, the embedded store and the rules, all below the data directory.
//!
//! | directory | holds |
//! |---|---|
//! | `queue` | acknowledged requests that are not in a published block yet |
//! | `index` | Parquet blocks and their side files |
//! | `dead` | what is not OTLP, with the reason |
//! | `rules` | rule documents |

use std::sync::Arc;

use super::{DrainParts, Steps, data};
use crate::{
    config::Config,
    error::Error,
    index::embedded::{Embedded, EmbeddedOptions},
    metrics::Metrics,
    queue::disk::{self, DiskDeadLetters, DiskDeadLettersOptions, DiskOptions},
};

pub(super) fn compose(config: &Config, metrics: &Arc<Metrics>) -> Result<Steps, Error> {
    let dir = data::open(config)?;
    let dead = Arc::new(DiskDeadLetters::open(&dir.join("dead"), DiskDeadLettersOptions::default())?);
    let defaults = EmbeddedOptions::new(dir.join("index"));
    let index = Embedded::open(EmbeddedOptions {
        // The log holds what is in no published block: up to two blocks, and room must remain beside them.
        block_bytes: defaults.block_bytes.min(config.queue.disk_bytes_max.as_usize() / 4),
        retention_age: Some(config.retention.age.0),
        retention_bytes: Some(config.retention.bytes.0),
        dead_letters: Some(dead),
        ..defaults
    })?;
    for damage in index.damaged() {
        tracing::error!(%damage, "a block of the store is damaged: searches do without it");
    }
    // The store's manifest, not the log, knows what is durable in the index.
    let options = DiskOptions { bytes_max: config.queue.disk_bytes_max.0, from: index.resume_at() };
    let (writer, reader) = disk::open(&dir.join("queue"), options, metrics.clone())?;
    show_stats(metrics, &index);
    Ok(Steps {
        queue_writer: Some(Arc::new(writer)),
        drain: Some(DrainParts { reader: Box::new(reader), writer: index.clone() }),
        index: Some(index),
        retention: None,
        dead: None,
    })
}

/// The store counts by itself.
fn show_stats(metrics: &Metrics, index: &Arc<Embedded>) {
    use std::sync::atomic::Ordering::Relaxed;

    // Weak: the metrics must not keep the store alive.
    let index = Arc::downgrade(index);
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.ask_before_showing(move |metrics| {
        let Some(stats) = index.upgrade().map(|index| index.stats()) else { return };
        metrics.index_disk_bytes.set(gauge(stats.bytes));
        metrics.index_events.set(gauge(stats.events + stats.events_open));
        metrics.index_duplicates.inner().store(stats.resent, Relaxed);
        metrics.index_blocks_published.inner().store(stats.blocks_published, Relaxed);
        metrics.index_blocks_removed.inner().store(stats.blocks_expired, Relaxed);
        metrics.index_blocks_damaged.inner().store(stats.blocks_damaged, Relaxed);
        metrics.index_expired.inner().store(stats.events_expired, Relaxed);
    });
}
