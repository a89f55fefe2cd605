//! A small HTTP service as people write them: a span per request, events in its handlers, errors with their causes. All of
//! it goes to logsink; nothing here knows how.
//!
//! Needs a server on this machine: `cargo run -p logsink-server`. Then
//! `cargo run -p logsink-examples --example axum-service`, `curl http://127.0.0.1:3000/orders/42`, and
//! `cargo run -p logsink-server -- query 'service=axum-service order_id=42' --from -5m`.
//! With `--traffic` it sends itself some requests a second. `PORT`: where it listens [3000].

use std::{error::Error, time::Duration};

use axum::{
    Router,
    extract::{Path, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};
use tracing::{Instrument as _, Span, field::Empty};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Dropped at the end of `main`: what is still on its way goes out first.
    let _logsink = logsink::init()?;

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    if std::env::args().any(|argument| argument == "--traffic") {
        tokio::spawn(traffic(address.port()));
    }

    let app = Router::new()
        .route("/orders/{id}", get(order))
        .route("/health", get(async || "ok"))
        .layer(middleware::from_fn(request_span));
    axum::serve(listener, app).with_graceful_shutdown(stopped()).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Every event of a request carries the fields of this span.
async fn request_span(request: Request, next: Next) -> Response {
    let span = tracing::info_span!(
        "request",
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = Empty,
    );
    async move {
        let response = next.run(request).await;
        // Known only now; from here on the span has it.
        Span::current().record("http.response.status_code", response.status().as_u16());
        tracing::info!("request answered");
        response
    }
    .instrument(span)
    .await
}

async fn order(Path(id): Path<u64>) -> Result<String, Refused> {
    let order = find_order(id)?;
    Ok(order)
}

#[tracing::instrument]
fn find_order(order_id: u64) -> Result<String, Refused> {
    // A number that brings bad luck, so that there is something to look for.
    if order_id.is_multiple_of(13) {
        let error = Refused { order_id, source: CardExpired };
        tracing::error!(error = &error as &dyn Error, "payment refused");
        return Err(error);
    }
    tracing::info!(items = order_id % 5 + 1, "order found");
    Ok(format!("order {order_id}\n"))
}

#[derive(Debug, thiserror::Error)]
#[error("order {order_id} cannot be paid")]
struct Refused {
    order_id: u64,
    source: CardExpired,
}

#[derive(Debug, thiserror::Error)]
#[error("the card has expired")]
struct CardExpired;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::PAYMENT_REQUIRED, format!("{self}\n")).into_response()
    }
}

/// A few customers, twenty requests a second.
async fn traffic(port: u16) {
    for order in 1_u64.. {
        if let Err(error) = visit(port, order % 50).await {
            tracing::warn!(%error, "a customer was not served");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn visit(port: u16, order: u64) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET /orders/{order} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    connection.read_to_end(&mut Vec::new()).await.map(drop)
}

/// Ctrl-C or SIGTERM.
async fn stopped() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
