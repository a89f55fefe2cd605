//! What the server can fail with, and its only mapping to exit codes and to the HTTP status of the API.
//!
//! The OTLP doors answer with `google.rpc.Status` as the protocol wants it; that mapping is in [`crate::ingest`].

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use logsink::ConfigError;

use crate::{index::IndexError, queue::QueueError};

/// Why the server does not run, or a command did not succeed. One sentence each, for the one who started it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command was given something wrong.
    #[error("{0}")]
    Usage(String),
    /// A listener cannot be opened.
    #[error("cannot listen on {address} ({setting}): {}", listen_reason(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that gave it.
        setting: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A file or directory cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: `create`, `read`, `write to`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A step could not start, or gave up.
    #[error("{step}: {message}")]
    Step {
        /// The step: `queue`, `index`, `drain`, `rules`.
        step: &'static str,
        /// What is the matter.
        message: String,
    },
    /// Anything else, said by the command.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// 2: the one who started it wrote something wrong. 1: everything else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Listen { .. } | Self::File { .. } | Self::Step { .. } | Self::Failed(_) => ExitCode::FAILURE,
        }
    }

    /// A step's error.
    pub fn step(step: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Step { step, message: error.to_string() }
    }
}

fn listen_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program, perhaps another logsink-server, uses this port: stop it or choose another port".into()
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 are reserved for root: choose another port".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    }
}

/// An answer of the HTTP API that is not a success: `{"error": "…"}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// 400: the request is wrong; the message says what to write instead.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    /// 503: try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into() }
    }

    /// The status that the answer will have.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<IndexError> for ApiError {
    fn from(error: IndexError) -> Self {
        let status = match &error {
            IndexError::BadRequest(_) => StatusCode::BAD_REQUEST,
            IndexError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            IndexError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: error.to_string() }
    }
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Self {
        Self::step("queue", error)
    }
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        Self::step("index", error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.message }))).into_response()
    }
}
