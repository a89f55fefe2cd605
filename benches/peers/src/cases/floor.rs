//! `tracing` by itself: what no layer can go below.

use std::{fmt, hint::black_box};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    subscriber::set_global_default,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    layer::{Context, SubscriberExt},
};

use super::{Running, WhenFull};

/// As services write it: a level for themselves, others for noisy dependencies.
const DIRECTIVES: &str = "info,hyper=warn,tonic=warn,logsink_peers=debug";

struct Noop;

impl<S: Subscriber> Layer<S> for Noop {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        black_box(event);
    }
}

struct Visiting;

impl<S: Subscriber> Layer<S> for Visiting {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Seen);
    }
}

struct Seen;

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        black_box((field, value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        black_box((field, value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        black_box((field, value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        black_box((field, value));
    }
}

pub(super) fn off(_: WhenFull) -> anyhow::Result<Running> {
    set_global_default(Registry::default().with(EnvFilter::new("warn")).with(Noop))?;
    Ok(Running::tracing())
}

pub(super) fn noop(_: WhenFull) -> anyhow::Result<Running> {
    set_global_default(Registry::default().with(Noop))?;
    Ok(Running::tracing())
}

pub(super) fn visit(_: WhenFull) -> anyhow::Result<Running> {
    set_global_default(Registry::default().with(Visiting))?;
    Ok(Running::tracing())
}

pub(super) fn reload(_: WhenFull) -> anyhow::Result<Running> {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(EnvFilter::new(DIRECTIVES));
    set_global_default(Registry::default().with(filter).with(Noop))?;
    Ok(Running { keep: vec![Box::new(handle)], ..Running::tracing() })
}
