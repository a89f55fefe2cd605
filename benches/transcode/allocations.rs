//! Writing a body allocates nothing for its records, in the memory of an earlier one.

#[path = "../../logsink/tests/support/counting.rs"]
mod counting;
mod payload;

use logsink_transcode::{
    Transcoder,
    otlp::{self, Limits},
    queue::Message,
};

use self::{counting::allocations, payload::message};

#[test]
fn records_are_written_without_an_allocation() {
    let messages = |records| (0..3).map(|index| message(index, records)).collect::<Vec<Message>>();
    let (few, many) = (messages(50), messages(500));
    let mut transcoder = Transcoder::default();
    let mut count = |messages: &[Message]| {
        let before = allocations();
        let documents = transcoder.body(messages, |bytes| assert!(!bytes.is_empty()));
        (documents, allocations() - before)
    };
    count(&many);
    let (few, many) = (count(&few), count(&many));
    assert_eq!((few.0, many.0), (150, 1_500));
    assert_eq!(few.1, many.1, "more records take more allocations");
    // A message's id, its list of attributes as it grows, and some for the body.
    assert!(many.1 < 50, "{} allocations for three messages", many.1);
}

#[test]
fn a_check_allocates_nothing() {
    let message = message(1, 100);
    // Its keys are met for the first time.
    otlp::check(&message.payload, &Limits::default()).expect("a request");
    let before = allocations();
    let summary = otlp::check(&message.payload, &Limits::default());
    assert_eq!(allocations() - before, 0);
    assert_eq!(summary.map(|summary| summary.records), Ok(100));
}
