//! The load generator: OTLP over gRPC from bodies that were made before, over 4 connections with 8 requests under way each.
//!
//! Straight on HTTP/2 without a gRPC library, because it shares the cores with what it measures.

use std::{
    cell::RefCell,
    fs,
    io::Write as _,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::LocalSet,
    time::sleep,
};

use crate::{figures, payload, plan::Arguments, process::own_cpu_s};

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 8;
/// Different bodies hold so many records together: 21 MB.
const RECORDS_DIFFERENT: u32 = 40_000;
/// And there are no more of them than this.
const BODIES_MAX: u32 = 4_000;
/// What waits for its answer longer than this has been lost.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A refused request is sent again after this.
const RETRY_AFTER: Duration = Duration::from_millis(2);

const PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What the connections share.
struct Load {
    bodies: Vec<Bytes>,
    encoding: &'static str,
    uri: String,
    /// Requests that no connection has taken.
    left: u64,
    refused: u64,
    latencies_us: Vec<u32>,
}

/// `load --address HOST:PORT --records N --per-request N --encoding none|gzip|zstd [--ca FILE]`
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let address: SocketAddr = arguments.text("--address")?.parse()?;
    let (records, per_request): (u64, u32) = (arguments.number("--records")?, arguments.number("--per-request")?);
    let encoding = match arguments.text("--encoding")? {
        "none" => "",
        "gzip" => "gzip",
        "zstd" => "zstd",
        other => bail!("--encoding {other}: write none, gzip or zstd"),
    };
    let count = (RECORDS_DIFFERENT / per_request).clamp(4, BODIES_MAX);
    let bodies: Vec<Bytes> = (0..count)
        .map(|index| framed(&payload::request(index, per_request).encode_to_vec(), encoding))
        .collect::<Result<_, _>>()?;
    let bytes: usize = bodies.iter().map(Bytes::len).sum();
    let requests = records.div_ceil(u64::from(per_request));
    let scheme = if arguments.get("--ca").is_some() { "https" } else { "http" };
    let load = Rc::new(RefCell::new(Load {
        bodies,
        encoding,
        uri: format!("{scheme}://{address}{PATH}"),
        left: requests,
        refused: 0,
        latencies_us: Vec::with_capacity(usize::try_from(requests)?),
    }));
    let tls = arguments.get("--ca").map(connector).transpose()?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (start, cpu) = (Instant::now(), own_cpu_s());
    local.block_on(&runtime, async {
        let mut tasks = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let client = match &tls {
                None => handshake(stream).await?,
                Some(tls) => handshake(tls.connect(ServerName::IpAddress(address.ip().into()), stream).await?).await?,
            };
            for _ in 0..IN_FLIGHT {
                tasks.push(tokio::task::spawn_local(requests_in_turn(client.clone(), Rc::clone(&load))));
            }
        }
        for task in tasks {
            task.await??;
        }
        anyhow::Ok(())
    })?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), own_cpu_s() - cpu);

    let mut load = load.borrow_mut();
    load.latencies_us.sort_unstable();
    let ms = |share: f64| f64::from(load.latencies_us[((load.latencies_us.len() - 1) as f64 * share) as usize]) / 1e3;
    let acked = load.latencies_us.len() as f64;
    print!(
        "{}",
        figures::line(&[
            ("requests", acked),
            ("records", acked * f64::from(per_request)),
            ("refused", load.refused as f64),
            ("seconds", seconds),
            ("cpu_s", cpu),
            ("p50_ms", ms(0.5)),
            ("p99_ms", ms(0.99)),
            ("request_bytes", bytes as f64 / f64::from(count)),
        ])
    );
    Ok(())
}

async fn handshake<S>(stream: S) -> anyhow::Result<SendRequest<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(stream)
        .await?;
    // What ends it shows as requests that fail.
    tokio::task::spawn_local(connection);
    Ok(client)
}

async fn requests_in_turn(mut client: SendRequest<Bytes>, load: Rc<RefCell<Load>>) -> anyhow::Result<()> {
    loop {
        let (body, uri, encoding) = {
            let mut load = load.borrow_mut();
            if load.left == 0 {
                return Ok(());
            }
            load.left -= 1;
            let index = usize::try_from(load.left)? % load.bodies.len();
            (load.bodies[index].clone(), load.uri.clone(), load.encoding)
        };
        loop {
            let start = Instant::now();
            let answer = tokio::time::timeout(ANSWER_MAX, request(&mut client, &uri, encoding, body.clone()));
            let status = answer.await.context("a request was not answered")??;
            match status.as_str() {
                "0" => {
                    let us = u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX);
                    load.borrow_mut().latencies_us.push(us);
                    break;
                }
                // RESOURCE_EXHAUSTED, UNAVAILABLE: try again.
                "8" | "14" => {
                    load.borrow_mut().refused += 1;
                    sleep(RETRY_AFTER).await;
                }
                status => bail!("gRPC status {status}"),
            }
        }
    }
}

/// One request; the answer is its gRPC status.
async fn request(
    client: &mut SendRequest<Bytes>,
    uri: &str,
    encoding: &'static str,
    body: Bytes,
) -> anyhow::Result<String> {
    let mut head = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    if !encoding.is_empty() {
        head = head.header("grpc-encoding", encoding);
    }
    let mut ready = client.clone().ready().await?;
    let (answer, mut stream) = ready.send_request(head.body(())?, false)?;
    stream.send_data(body, true)?;
    let answer = answer.await?;
    ensure!(answer.status() == 200, "HTTP status {}", answer.status());
    let (parts, mut body) = answer.into_parts();
    while let Some(piece) = body.data().await {
        let length = piece?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?;
    let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().map(str::to_owned).ok();
    trailers.as_ref().and_then(status).or_else(|| status(&parts.headers)).context("an answer without a gRPC status")
}

/// A gRPC message: whether it is compressed, its length, its bytes.
fn framed(message: &[u8], encoding: &str) -> anyhow::Result<Bytes> {
    let body = match encoding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(message)?;
            encoder.finish()?
        }
        "zstd" => zstd::bulk::compress(message, 3)?,
        _ => message.to_vec(),
    };
    let mut frame = vec![u8::from(!encoding.is_empty())];
    frame.extend(u32::try_from(body.len())?.to_be_bytes());
    frame.extend(body);
    Ok(frame.into())
}

fn connector(authority: &str) -> anyhow::Result<tokio_rustls::TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(authority)?)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}
