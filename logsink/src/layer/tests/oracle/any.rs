//! Fields of any shape, as strategies of proptest.

use proptest::{prelude::*, sample::select};
use tracing::field::{debug, display};
use tracing_core::Level;

use super::{
    CONTEXT_BYTES_MAX,
    given::{Chain, Fields, Given, Shown},
};

/// Names that collide with each other or with ours, or lie around the bounds of encoded lengths.
pub(super) fn name() -> impl Strategy<Value = &'static str> {
    let long: &'static str = "k".repeat(130).leak();
    let longer: &'static str = "k".repeat(16_500).leak();
    let known = select(vec![
        "",
        "a",
        "a",
        "b",
        "message",
        "error",
        "err",
        "target",
        "span.name",
        "span.path",
        "thread.id",
        "thread.name",
        "exception.message",
        "r#type",
        "type",
        "code.line.number",
        "log.target",
        "klíč",
        "🦀",
        "a b\n\"c\"",
        "\0",
        long,
        longer,
    ]);
    prop_oneof![6 => known, 4 => any::<String>().prop_map(|name| &*name.leak())]
}

const ODD: [&str; 8] =
    ["\0", "\u{feff}", "\u{202e}abc", "e\u{301}\u{302}", "👩‍👩‍👧‍👦", "\u{10ffff}", "…[truncated, 7 bytes]", "\r\n"];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>(),
        2 => select(&ODD[..]).prop_map(str::to_owned),
        2 => (".", 100_usize..700).prop_map(|(piece, times)| piece.repeat(times)),
    ]
}

fn shown_text() -> impl Strategy<Value = Shown> {
    (prop::collection::vec(text(), 0..4), any::<bool>()).prop_map(|(pieces, fails)| Shown { pieces, fails })
}

fn given() -> impl Strategy<Value = Given> {
    let edge = select(vec![0, 1, -1, 127, 128, 16_383, 16_384, i64::MIN, i64::MAX]);
    let double = select(vec![f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MIN_POSITIVE]);
    let error = prop::collection::vec(text(), 1..5).prop_map(|messages| {
        let chain = messages.into_iter().rfold(None, |cause, message| Some(Box::new(Chain { message, cause })));
        let chain: &'static Chain = Box::leak(chain.expect("one message at least"));
        Given::Error(chain)
    });
    prop_oneof![
        Just(Given::Nothing),
        any::<i64>().prop_map(Given::Int),
        edge.prop_map(Given::Int),
        any::<u64>().prop_map(Given::Unsigned),
        any::<i128>().prop_map(Given::Wide),
        any::<u128>().prop_map(Given::WideUnsigned),
        any::<u64>().prop_map(|bits| Given::Double(f64::from_bits(bits))),
        double.prop_map(Given::Double),
        any::<bool>().prop_map(Given::Bool),
        text().prop_map(Given::Text),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Given::Bytes(bytes.leak())),
        error,
        shown_text().prop_map(|shown| Given::Debugged(debug(shown))),
        shown_text().prop_map(|shown| Given::Displayed(display(shown))),
    ]
}

pub(super) fn fields(count: std::ops::Range<usize>) -> impl Strategy<Value = Fields> {
    prop::collection::vec((name(), given()), count)
}

/// Spans that together surely have room beside the event: their values are small, their names are not too long.
pub(super) fn spans() -> impl Strategy<Value = Vec<Fields>> {
    prop::collection::vec(fields(0..4), 0..4).prop_filter("their context fits", |spans| {
        let bytes = |(name, given): &(&str, Given)| 2 * name.len() + given.bytes() + 32;
        spans.iter().flatten().map(bytes).sum::<usize>() < CONTEXT_BYTES_MAX - 1024
    })
}

pub(super) fn level() -> impl Strategy<Value = Level> {
    select(vec![Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR])
}

/// Far beyond a chunk, at any alignment.
pub(super) fn huge() -> impl Strategy<Value = Given> {
    let text = (any::<char>(), 60_000_usize..140_000).prop_map(|(letter, times)| letter.to_string().repeat(times));
    prop_oneof![
        text.clone().prop_map(Given::Text),
        text.clone()
            .prop_map(|text| Given::Displayed(display(Shown { pieces: vec![text.clone(), text], fails: true }))),
        text.prop_map(|text| Given::Bytes(text.into_bytes().leak())),
    ]
}

pub(super) fn small() -> impl Strategy<Value = Given> {
    prop_oneof![any::<i64>().prop_map(Given::Int), any::<bool>().prop_map(Given::Bool), Just(Given::Nothing)]
}
