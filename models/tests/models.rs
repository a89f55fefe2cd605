//! Runs the models. Some seconds in all; `LOOM_LOG=trace` tells what an interleaving that fails does, step by step.

use logsink_models::{handshakes, queue, recorders};

#[test]
fn an_act_is_seen_or_refused() {
    handshakes::an_act_is_seen_or_refused();
}

#[test]
fn both_sides_take_turns() {
    handshakes::both_sides_take_turns();
}

#[test]
fn at_the_end_every_record_is_drained_or_refused() {
    queue::at_the_end_every_record_is_drained_or_refused();
}

#[test]
fn what_is_published_is_written() {
    queue::what_is_published_is_written();
}

#[test]
fn no_wake_is_lost() {
    queue::no_wake_is_lost();
}

#[test]
fn a_ring_is_not_written_where_it_is_read() {
    recorders::a_ring_is_not_written_where_it_is_read();
}

#[test]
fn what_was_recorded_before_the_error_is_found() {
    recorders::what_was_recorded_before_the_error_is_found();
}
