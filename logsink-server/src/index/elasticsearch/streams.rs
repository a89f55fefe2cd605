//! The streams that are there, when events are routed to several: a process makes one when it first meets an event for it.
//!
//! The templates in the cluster are the list: they outlive processes and are the same for all of them. At
//! `streams_max` no more are made. The list only grows, so an event that went to the overflow stream goes there again when it is read
//! again, unless somebody has raised the bound meanwhile.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use super::{
    Elasticsearch, Failed,
    body::{Body, Buffers, Part, Shape},
    route::{Routes, Stream},
    setup::{self, SetUp},
    write::Backoff,
};
use crate::{compute::compute, queue::Message};

/// What this process knows of the streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    known: Mutex<Known>,
    /// Held while streams are made: one process makes one at a time.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    names: Arc<BTreeSet<String>>,
    /// Names that others have; `streams_max` at most.
    taken: Arc<BTreeSet<String>>,
    is_full: bool,
    /// Whether those that were there before this process have what its settings say.
    are_up_to_date: bool,
}

/// Writes the documents of `messages`; the streams that they go to are there when it returns.
pub(super) async fn body<'a>(
    elasticsearch: &Elasticsearch,
    set_up: SetUp,
    messages: &'a [Message],
    mut buffers: Buffers,
    part: Part,
) -> Body<'a> {
    let shape = Shape::new(set_up.flavor, elasticsearch.options.field_names);
    loop {
        let routes = elasticsearch.streams.routes(elasticsearch, set_up);
        let write = || Body::write_into(buffers, messages, elasticsearch.origin, shape, &routes, part);
        let body = compute(write).await;
        let new: Vec<&Stream> = body.streams.iter().filter(|stream| stream.is_new).collect();
        if new.is_empty() || elasticsearch.streams.make(elasticsearch, set_up, &new).await {
            let overflowed = body.streams.iter().map(|stream| stream.overflowed).sum();
            elasticsearch.metrics.index_overflowed.inc_by(overflowed);
            return body;
        }
        // One could not be made: its documents go elsewhere from now on.
        buffers = body.into_buffers();
    }
}

impl Streams {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // A panic while it is held leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self, elasticsearch: &Elasticsearch, set_up: SetUp) -> Routes {
        let known = self.lock().clone();
        let options = &elasticsearch.options;
        Routes {
            pattern: Arc::clone(&elasticsearch.pattern),
            layout: set_up.layout,
            known: known.names,
            taken: known.taken,
            is_full: known.is_full,
            streams_max: options.streams_max,
            now_ns: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
            kept_days: options
                .retention
                .age
                .map(|age| i64::try_from(age.as_secs().div_ceil(86_400)).unwrap_or(i64::MAX)),
        }
    }

    /// Makes new streams, however often it takes. False when there are as many as may be and not all are among them.
    async fn make(&self, elasticsearch: &Elasticsearch, set_up: SetUp, new: &[&Stream]) -> bool {
        let _making = self.making.lock().await;
        let mut backoff = Backoff::default();
        loop {
            match self.try_make(elasticsearch, set_up, new).await {
                Ok(all) => return all,
                Err(failed) => {
                    elasticsearch.trouble.failed(&failed, "cannot set up a stream");
                    backoff.wait(&failed).await;
                }
            }
        }
    }

    async fn try_make(&self, elasticsearch: &Elasticsearch, set_up: SetUp, new: &[&Stream]) -> Result<bool, Failed> {
        let options = &elasticsearch.options;
        let overflow = elasticsearch.pattern.overflow();
        for Stream { name, .. } in new {
            let mut known = self.lock().clone();
            if known.names.contains(name) {
                continue;
            }
            if known.is_full || known.taken.contains(name) {
                return Ok(false);
            }
            if options.setup {
                // Another process may have made this one or others.
                let there = setup::streams(elasticsearch, set_up.layout).await?;
                let there: BTreeSet<_> = there.into_iter().filter(|name| *name != overflow).collect();
                if !known.are_up_to_date {
                    for name in &there {
                        match setup::put(elasticsearch, set_up, name).await {
                            // It goes on as it is; others must not wait for a person to look at it.
                            Err(Failed::BadRequest { message }) => {
                                tracing::warn!(stream = %name, reason = %message, "a stream does not get changed settings");
                            }
                            other => _ = other?,
                        }
                    }
                    known.are_up_to_date = true;
                }
                known.names = Arc::new(there);
            }
            let mut is_all = true;
            if !known.names.contains(name) {
                if known.names.len() >= options.streams_max {
                    tracing::warn!(
                        streams_max = options.streams_max, stream = %name, %overflow,
                        "there are as many streams as elasticsearch.streams_max allows: events for further ones go to the overflow stream"
                    );
                    (known.is_full, is_all) = (true, false);
                } else if !options.setup || put(elasticsearch, set_up, name).await? {
                    Arc::make_mut(&mut known.names).insert(name.clone());
                } else {
                    Arc::make_mut(&mut known.taken).insert(name.clone());
                    // Who chooses names for us that others have is not asked about for ever.
                    (known.is_full, is_all) = (known.taken.len() >= options.streams_max, false);
                }
            }
            *self.lock() = known;
            if !is_all {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Makes one stream. False when others have the name, or templates for it that are as good as ours.
async fn put(elasticsearch: &Elasticsearch, set_up: SetUp, name: &str) -> Result<bool, Failed> {
    match setup::put(elasticsearch, set_up, name).await {
        Err(Failed::BadRequest { message }) => {
            tracing::warn!(stream = name, reason = %message, "the cluster will not have this stream: its events go to the overflow stream");
            Ok(false)
        }
        other => other,
    }
}

/// Every stream of ours: the one, or those of the pattern with the overflow.
pub(super) async fn all(elasticsearch: &Elasticsearch, set_up: SetUp) -> Result<Vec<String>, Failed> {
    match elasticsearch.pattern.fixed() {
        Some(name) => Ok(vec![name.to_owned()]),
        None => setup::streams(elasticsearch, set_up.layout).await,
    }
}
