//! Records of the `log` crate within records: in a process of its own, since inside an event `tracing` hands out only a global
//! subscriber, and only where no thread has a scoped one.

use std::fmt;

use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};

use crate::{
    otlp_server::{OtlpServer, attribute},
    program::{Program, Story, library, run},
};

pub(crate) const STORIES: &[Story] =
    &[("records::a_record_within_a_record_has_its_own_key_values", nested), ("records::a_panic_leaves_none", panicked)];

pub(crate) const PROGRAMS: &[Program] = &[("nested", nested_program), ("panicked", panicked_program)];

/// The message of each record, and which of the keys it has.
fn shown(server: &OtlpServer) -> Vec<(String, bool, bool)> {
    let shown = |record: LogRecord| {
        let Some(Value::StringValue(message)) = record.body.and_then(|body| body.value) else { panic!("no message") };
        let has = |key| attribute(&record.attributes, key).is_some();
        (message, has("inner"), has("outer"))
    };
    let mut shown: Vec<_> = server.records().into_iter().map(shown).collect();
    shown.sort();
    shown
}

/// Logs while it is being formatted.
struct Nested;

impl fmt::Display for Nested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        log::info!(inner = 1; "with");
        log::info!("without");
        f.write_str("nested")
    }
}

fn nested() {
    let server = OtlpServer::start();
    run("nested", &server.url()).assert_code(0);
    let expected = [("after", false, false), ("nested", false, true), ("with", true, false), ("without", false, false)];
    assert_eq!(shown(&server), expected.map(|(message, inner, outer)| (message.to_owned(), inner, outer)));
}

fn nested_program() {
    let _guard = library().init().unwrap();
    log::info!(outer = 2; "{Nested}");
    log::info!("after");
}

struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("cannot be shown")
    }
}

fn panicked() {
    let server = OtlpServer::start();
    run("panicked", &server.url()).assert_code(0);
    assert_eq!(shown(&server), [("after".to_owned(), false, false)]);
}

fn panicked_program() {
    let _guard = library().init().unwrap();
    std::panic::catch_unwind(|| log::info!(outer = 2; "{Panics}")).unwrap_err();
    log::info!("after");
}
