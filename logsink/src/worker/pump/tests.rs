//! What of a run a lane gets.

use super::*;
use crate::{
    Severity,
    encode::{padded, push_delimited, push_text, tag},
    filter::rules::Document,
    queue::LOCAL_TAG,
};

fn record(frame: u8, target: &str, severity: Severity, number: u8) -> Vec<u8> {
    let mut body = vec![tag::SEVERITY_NUMBER, severity.0];
    push_text(&mut body, "target", target);
    push_delimited(&mut body, tag::BODY, &[tag::INT, number]);
    let mut record = vec![frame];
    record.extend_from_slice(&padded(body.len()));
    record.extend_from_slice(&body);
    record
}

fn passed(run: &[u8], filter: Option<&str>, local: bool) -> Vec<Vec<u8>> {
    let filter = filter.and_then(|text| Document::of_filter(text).unwrap().filter);
    let mut passed = Vec::new();
    pass_some(run, filter.as_ref(), local, &mut |run| {
        // A run of whole records that a sink can read.
        assert!(queue::records(run).all(|record| record[0] == FRAME_TAG));
        passed.push(queue::records(run).map(|record| record[record.len() - 1]).collect());
    });
    passed
}

#[test]
fn neighbours_stay_together_and_strangers_stay_out() {
    let run = [
        record(FRAME_TAG, "app", Severity::INFO, 1),
        record(FRAME_TAG, "app::db", Severity::ERROR, 2),
        record(LOCAL_TAG, "app::db", Severity::DEBUG, 3),
        record(LOCAL_TAG, "app", Severity::DEBUG, 4),
        record(FRAME_TAG, "hyper", Severity::INFO, 5),
        record(FRAME_TAG, "hyper", Severity::ERROR, 6),
    ]
    .concat();
    for (filter, local, expected) in [
        (None, false, vec![vec![1, 2], vec![5, 6]]),
        (None, true, vec![vec![1, 2], vec![3], vec![4], vec![5, 6]]),
        (Some("error"), false, vec![vec![2], vec![6]]),
        (Some("off,app::db=debug"), true, vec![vec![2], vec![3]]),
        (Some("off,app::db=debug"), false, vec![vec![2]]),
        (Some("info,hyper=off"), true, vec![vec![1, 2]]),
        (Some("off"), true, vec![]),
    ] {
        assert_eq!(passed(&run, filter, local), expected, "{filter:?} {local}");
    }
}
