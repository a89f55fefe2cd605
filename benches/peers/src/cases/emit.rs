//! `emit` into `emit_otlp`, over HTTP to a server in this process that counts.

use std::{hint::black_box, time::Duration};

use super::{Running, WhenFull};
use crate::sink;

#[inline(never)]
fn outside(events: u32) {
    for _ in 0..events {
        emit::info!(
            "request finished",
            user_id: black_box(42_u64),
            path: black_box("/api/v1/items"),
            latency_ms: black_box(3.5_f64)
        );
    }
}

fn inside(events: u32) {
    let properties = emit::props! { request_id: 7_u64, method: "GET" };
    emit::Frame::push(emit::runtime::shared().ctxt(), properties).call(|| outside(events));
}

pub(super) fn start(_: WhenFull) -> anyhow::Result<Running> {
    let port = sink::http_server("200 OK", |body| sink::protobuf_messages(body, &[1, 2, 2]))?;
    let http = emit_otlp::http(format!("http://127.0.0.1:{port}/v1/logs"));
    let otlp = emit_otlp::new()
        .resource(emit::props! { #[emit::key("service.name")] service_name: "bench" })
        .logs(emit_otlp::logs_proto(http))
        .spawn();
    let emit = emit::setup().emit_to(otlp).init();
    let flush = Box::new(move || {
        emit.blocking_flush(Duration::from_secs(5));
    });
    Ok(Running { outside, inside, flush, ..Running::tracing() })
}
