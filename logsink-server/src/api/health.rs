//! `GET /readyz`: whether this process can do its work, dependency by dependency. What works and needs a person's eye all
//! the same is a warning: it is shown and does not make the process unready.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use crate::queue::BoxFuture;

/// How long a dependency may take to answer: less than the second or two that a prober usually waits.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

/// Asks a dependency how it is: well, with warnings, or not; the error says what is the matter.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<Vec<String>, String>> + Send + Sync>;

/// The dependencies of this process.
#[derive(Default)]
pub struct Health {
    probes: Vec<Dependency>,
    stopping: AtomicBool,
}

struct Dependency {
    /// The step that needs it.
    step: &'static str,
    /// What it is: a person knows where to look.
    name: &'static str,
    probe: Probe,
    /// Whether it was well when it was asked last: a change is logged once.
    well: AtomicBool,
}

/// The answer: `{"ready": false, "checks": {"index": {"ready": false, "dependency": "Elasticsearch", "error": "…"}}}`.
#[derive(Debug, Serialize)]
pub struct Report {
    ready: bool,
    checks: BTreeMap<&'static str, Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    ready: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    dependency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Check {
    fn new(dependency: &'static str, answer: Result<Vec<String>, String>) -> Self {
        match answer {
            Ok(warnings) => Self { ready: true, dependency, error: None, warnings },
            Err(error) => Self { ready: false, dependency, error: Some(error), warnings: Vec::new() },
        }
    }
}

impl Health {
    /// Adds what `step` depends on.
    pub fn add<F, T>(&mut self, step: &'static str, name: &'static str, probe: F)
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<Vec<String>, String>> + Send + 'static,
    {
        let probe: Probe = Box::new(move || Box::pin(probe()));
        self.probes.push(Dependency { step, name, probe, well: AtomicBool::new(true) });
    }

    /// Not ready from now on: load balancers send no more while the server stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Asks all dependencies at once.
    pub async fn report(&self) -> Report {
        let checks = self.probes.iter().map(|Dependency { step, name, probe, well }| async move {
            let late = || format!("no answer within {} ms", PROBE_TIMEOUT.as_millis());
            let answer = timeout(PROBE_TIMEOUT, probe()).await.unwrap_or_else(|_| Err(late()));
            match (&answer, well.swap(answer.is_ok(), Ordering::Relaxed)) {
                (Err(error), true) => tracing::warn!(step, dependency = name, error, "not ready"),
                (Ok(_), false) => tracing::info!(step, dependency = name, "ready again"),
                _ => {}
            }
            (*step, Check::new(name, answer))
        });
        let mut checks: BTreeMap<_, _> = join_all(checks).await.into_iter().collect();
        if self.stopping.load(Ordering::Relaxed) {
            checks.insert("server", Check::new("", Err("is stopping".into())));
        }
        Report { ready: checks.values().all(|check| check.ready), checks }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.probes.iter().map(|dependency| (dependency.step, dependency.name))).finish()
    }
}

pub(super) async fn answer(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let report = health.report().await;
    (if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_sick_dependency_is_named_and_a_silent_one_does_not_hang() {
        let mut health = Health::default();
        health.add("queue", "Kafka", || async { Ok(vec!["one of three brokers is away".to_owned()]) });
        assert!(health.report().await.ready);
        health.add("index", "Elasticsearch", || async { Err("no route to host".to_owned()) });
        health.add("rules", "etcd", std::future::pending);
        let report = serde_json::to_value(health.report().await).unwrap();
        assert_eq!(
            report,
            serde_json::json!({ "ready": false, "checks": {
                "queue": { "ready": true, "dependency": "Kafka", "warnings": ["one of three brokers is away"] },
                "index": { "ready": false, "dependency": "Elasticsearch", "error": "no route to host" },
                "rules": { "ready": false, "dependency": "etcd", "error": "no answer within 900 ms" },
            }})
        );
    }

    #[tokio::test]
    async fn a_stopping_server_is_not_ready() {
        let health = Health::default();
        health.stop();
        assert!(!health.report().await.ready);
    }
}
