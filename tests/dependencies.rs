//! `/readyz` while a server that a process depends on is away: it says which one.

use std::time::Duration;

use logsink_tests::{
    Server, http,
    server::Space,
    stack::{alone, control},
    until,
};
use serde_json::Value;

/// A server that is away is seen within a probe; one that is back, when its clients have connected again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until readiness is as wanted; returns what it says.
fn ready(server: &Server, wanted: bool) -> Value {
    until(if wanted { "it is ready" } else { "it is not ready" }, PATIENCE, || {
        let answer = http::get(&server.http_url("/readyz"))?;
        let report: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        assert_eq!(answer.status, if report["ready"] == true { 200 } else { 503 }, "{report}");
        if report["ready"] == wanted { Ok(report) } else { Err(answer.body) }
    })
}

/// The step whose dependency is called so, and what is said about it. Nothing else is the matter.
fn the_matter<'r>(report: &'r Value, dependency: &str) -> &'r Value {
    let checks = report["checks"].as_object().expect("checks by step");
    for check in checks.values().filter(|check| check["dependency"] != dependency) {
        assert!(check["ready"] == true && check["warnings"].is_null(), "only {dependency} is away: {report}");
    }
    checks.values().find(|check| check["dependency"] == dependency).expect("it is among the checks")
}

#[test]
fn readiness_names_the_server_that_is_away_and_turns_green_when_it_is_back() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("away");
    let all = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let drain = Server::cluster(dir.path(), "drain", &["drain"], &space);
    let servers = [&all, &drain];
    for (program, dependency) in [("kafka", "Kafka"), ("elasticsearch", "Elasticsearch")] {
        for server in servers {
            ready(server, true);
        }
        // It accepts connections and answers nothing.
        control("pause", &[program]);
        for server in servers {
            let report = ready(server, false);
            let check = the_matter(&report, dependency);
            assert!(check["ready"] == false && check["error"].is_string(), "{report}");
        }
        control("resume", &[program]);
        for server in servers {
            ready(server, true);
        }
    }
    // Connections are refused. The rules in force stay, so that a process without etcd does its work: a warning.
    control("kill", &["etcd"]);
    for server in servers {
        until("etcd is said to be away", PATIENCE, || {
            let report = ready(server, true);
            let warning = &the_matter(&report, "etcd")["warnings"][0];
            if warning.as_str().is_some_and(|warning| warning.contains("does not answer")) {
                Ok(())
            } else {
                Err(report.to_string())
            }
        });
    }
    control("start", &["etcd"]);
    for server in servers {
        until("no warning is left", PATIENCE, || {
            let report = ready(server, true);
            if the_matter(&report, "etcd")["warnings"].is_null() { Ok(()) } else { Err(report.to_string()) }
        });
    }
}
