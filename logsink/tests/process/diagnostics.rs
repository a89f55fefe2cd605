//! What the library's own threads and their clients log: never an event, and on stderr only where that is asked for.

use std::env;

use logsink::metrics::Reason;

use crate::{
    otlp_server::{OtlpServer, PATIENCE, number},
    program::{Ended, Program, Story, run_with},
};

pub(crate) const STORIES: &[Story] = &[
    ("diagnostics::nothing_comes_back_at_trace", at_trace),
    ("diagnostics::it_can_be_seen_on_stderr", on_stderr),
    #[cfg(feature = "kafka")]
    ("diagnostics::librdkafka_can_be_seen_too", librdkafka),
];

pub(crate) const PROGRAMS: &[Program] = &[("diagnostics", program), ("diagnostics_away", program_away)];

/// As a service is started: everything comes from the environment.
fn run_service(server: &OtlpServer, variables: &[(&str, &str)]) -> Ended {
    let url = server.url();
    let ended = run_with("diagnostics", &url, &[&[("LOGSINK_ENDPOINT", &*url)], variables].concat());
    ended.assert_code(0);
    assert_eq!(server.numbers(), [0, 1, 2], "{}", ended.stderr);
    let records = server.records();
    let strange: Vec<_> = records.iter().filter(|record| number(&record.attributes).is_none()).collect();
    assert!(strange.is_empty(), "{} events too many, such as {:?}", strange.len(), strange[0]);
    ended
}

/// Lines of clients in what a program said.
fn client_lines(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.starts_with("logsink: [")).collect()
}

fn program() {
    let guard = logsink::init().unwrap();
    for n in 0..3 {
        tracing::info!(n, "event");
        guard.flush(PATIENCE).unwrap();
    }
    eprintln!("own {}", guard.metrics().dropped_for(Reason::OwnThread));
}

fn at_trace() {
    let ended = run_service(&OtlpServer::start(), &[("RUST_LOG", "trace"), ("LOGSINK_FILTER", "trace")]);
    assert!(ended.said("own") > 0, "or this shows nothing");
    assert_eq!(client_lines(&ended), [""; 0]);
}

fn on_stderr() {
    let ended = run_service(&OtlpServer::start(), &[("RUST_LOG", "info"), ("LOGSINK_DIAGNOSTICS", "trace")]);
    let lines = client_lines(&ended);
    assert!(lines.iter().any(|line| line.contains("h2::")), "{}", ended.stderr);
    let seconds = ended.took.as_secs() as usize + 2;
    assert!(lines.len() <= 101 * seconds, "{} lines in {seconds} s", lines.len());
    assert!(lines.iter().all(|line| line.len() < 1200));

    let ended = run_service(
        &OtlpServer::start(),
        &[("RUST_LOG", "trace"), ("LOGSINK_FILTER", "trace"), ("LOGSINK_DIAGNOSTICS", "error")],
    );
    assert_eq!(client_lines(&ended), [""; 0], "nothing of that level was said");
}

fn program_away() {
    let guard = logsink::builder().rules("none").endpoint("kafka://127.0.0.1:1/logs").init().unwrap();
    tracing::info!(n = 0, "event");
    crate::otlp_server::wait_until("a client's line", || guard.metrics().client_lines > 0);
    // SAFETY: ends the process, whatever its state.
    unsafe { libc::_exit(i32::from(env::var("LOGSINK_DIAGNOSTICS").is_err())) };
}

#[cfg(feature = "kafka")]
fn librdkafka() {
    let said = |ended: &Ended| client_lines(ended).iter().any(|line| line.starts_with("logsink: [ERROR rdkafka]"));
    let ended = run_with("diagnostics_away", "", &[("LOGSINK_DIAGNOSTICS", "error")]);
    ended.assert_code(0);
    assert!(said(&ended), "{}", ended.stderr);
    let ended = run_with("diagnostics_away", "", &[]);
    ended.assert_code(1);
    assert!(!said(&ended), "{}", ended.stderr);
}
