//! What operators look at: a real Prometheus scrapes a server, evaluates the alerts of `deploy/`, and answers what the panels ask.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use logsink_tests::{
    Server, http, load,
    process::{Process, free_port, run},
    server::Space,
    stack, unique, until,
};
use prost::Message as _;
use serde_json::Value;

const FOUND: Duration = Duration::from_secs(60);
/// What panels show nothing of where all is well: each needs a failure.
const FAILURES: [&str; 1] = ["Requests tried again, by reason"];

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

struct Prometheus {
    url: String,
    _process: Process,
}

impl Prometheus {
    /// Scrapes this server, twice a second.
    fn start(dir: &Path, server: &Server) -> Self {
        let (port, config) = (free_port(), dir.join("prometheus.yaml"));
        let target = server.http_url("");
        let text = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [{:?}]\n\
             scrape_configs: [{{job_name: logsink, static_configs: [{{targets: [{:?}]}}]}}]\n",
            deploy("prometheus/alerts.yaml"),
            target.trim_start_matches("http://")
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(stack::program("prometheus/usr/bin/prometheus"));
        command.arg("--config.file").arg(config).arg("--storage.tsdb.path").arg(dir.join("prometheus"));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command, &dir.join("prometheus.log"));
        Self { url: format!("http://127.0.0.1:{port}"), _process: process }
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), parameters).unwrap();
        let answer: Value = serde_json::from_str(&http::get(url.as_str())?.body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer.to_string()) }
    }

    /// The series that an expression comes to now.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let data = self.get("/api/v1/query", &[("query", expression)])?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    fn await_series(&self, expression: &str) -> Vec<Value> {
        until(expression, FOUND, || match self.query(expression)? {
            series if series.is_empty() => Err("nothing".to_owned()),
            series => Ok(series),
        })
    }
}

#[test]
fn every_panel_shows_something_and_the_first_dead_letter_raises_its_alert() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("prometheus").partitions(1);
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let service = unique("watched");
    let prometheus = Prometheus::start(dir.path(), &server);
    // Twice at nothing, so that one is an increase.
    prometheus.await_series("count_over_time(logsink_index_dead_total{reason=\"not_otlp\"}[1m]) >= 2");

    let rule = dir.path().join("rule.toml");
    fs::write(&rule, "[[rule]]\nname = \"odd\"\nwhen = 'n=1'\nthen = \"drop\"\n").unwrap();
    server.rules(&["put", "--service", &service, &rule.display().to_string()]);
    let request = |numbers: std::ops::Range<u64>| load::request(&service, numbers).encode_to_vec();
    let post = |body: Vec<u8>| http::post(&server.http_url("/v1/logs"), "application/x-protobuf", body).unwrap().status;
    assert_eq!(post(request(0..10)), 200);
    assert_eq!(post(b"no OTLP".to_vec()), 400);
    let producer = load::producer(&[]);
    load::send(&producer, &space.topic, 0, b"{\"message\": \"this is no OTLP\"}");
    load::flush(&producer);
    until("all is done", FOUND, || match server.counter("logsink_drain_records_total") {
        10.. => Ok(()),
        records => Err(format!("{records} records")),
    });
    server.query(&format!("service={service}"));

    let firing = prometheus.await_series("ALERTS{alertname=\"LogsinkDeadLetters\", alertstate=\"firing\"}");
    assert_eq!((firing.len(), &firing[0]["metric"]["reason"]), (1, &"not_otlp".into()));
    let rules = prometheus.get("/api/v1/rules", &[]).unwrap();
    let rules: Vec<&Value> =
        rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() >= 13 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");

    let dashboard: Value = serde_json::from_slice(&fs::read(deploy("grafana/logsink.json")).unwrap()).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (title, expression) = (panel["title"].as_str().unwrap(), target["expr"].as_str().unwrap());
            let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "30s");
            if FAILURES.contains(&title) {
                prometheus.query(&expression).unwrap_or_else(|error| panic!("{title}: {error}"));
            } else {
                prometheus.await_series(&expression);
            }
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} expressions");
}

#[test]
fn alerts_fire_when_they_should_and_say_what_they_should() {
    let promtool = stack::program("prometheus/usr/bin/promtool");
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let output = run(Command::new(&promtool).args(arguments).current_dir(deploy("prometheus")));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    // Each has a case in which it fires.
    let [alerts, tests] =
        ["alerts.yaml", "alerts_test.yaml"].map(|file| fs::read_to_string(deploy("prometheus").join(file)).unwrap());
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
    }
}
