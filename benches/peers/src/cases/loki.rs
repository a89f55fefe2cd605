//! `tracing-loki`, over HTTP to a server in this process that counts.

use tracing::subscriber::set_global_default;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt};

use super::{Running, WhenFull};
use crate::sink;

pub(super) fn start(_: WhenFull) -> anyhow::Result<Running> {
    let port = sink::http_server("204 No Content", |body| {
        let text = snap::raw::Decoder::new().decompress_vec(body).unwrap_or_default();
        sink::protobuf_messages(&text, &[1, 2])
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let url = format!("http://127.0.0.1:{port}").parse()?;
    let (layer, task) = tracing_loki::builder().label("app", "bench")?.build_url(url)?;
    runtime.spawn(task);
    set_global_default(Registry::default().with(EnvFilter::new("info,hyper=off,reqwest=off")).with(layer))?;
    Ok(Running { keep: vec![Box::new(runtime)], ..Running::tracing() })
}
