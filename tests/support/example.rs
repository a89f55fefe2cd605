//! The project's examples as child processes.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    http,
    process::{self, Process, free_port},
    until,
};

/// The axum example, serving.
#[derive(Debug)]
pub struct Example {
    process: Process,
    port: u16,
}

/// The command line of an example, which has its files in `dir`.
///
/// # Panics
/// When it was not built.
pub fn command(name: &str, dir: &Path) -> Command {
    let path = process::target_dir().join("examples").join(name);
    assert!(path.exists(), "{} is missing: build it with `cargo build --examples`, or run `make test`", path.display());
    process::application(&path, dir)
}

impl Example {
    /// Starts `axum-service` as `service`, sending to `endpoint`.
    ///
    /// # Panics
    /// When it was not built or does not serve.
    pub fn axum(dir: &Path, service: &str, endpoint: &str) -> Self {
        let port = free_port();
        let mut command = command("axum-service", dir);
        command
            .env("OTEL_SERVICE_NAME", service)
            .env("LOGSINK_ENDPOINT", endpoint)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Process::start(&mut command, &dir.join(format!("{service}.log")));
        until("the example serves", Duration::from_secs(20), || http::get(&format!("http://127.0.0.1:{port}/health")));
        Self { process, port }
    }

    /// One request of it.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn get(&self, path: &str) -> http::Answer {
        http::get(&format!("http://127.0.0.1:{}{path}", self.port)).expect("the example answers")
    }

    /// SIGTERM; it flushes and ends.
    pub fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "{status}");
    }
}
