//! What does not fit.

use tracing::{info, info_span};

use super::*;

/// Whether `shown` is a start of `whole` with a marker that accounts for the rest.
fn assert_cut(shown: &str, whole: &str) {
    let (start, marker) = shown.split_once('…').unwrap_or_else(|| panic!("no marker in {} bytes", shown.len()));
    assert!(whole.starts_with(start));
    assert_eq!(marker, format!("[truncated, {} bytes]", whole.len() - start.len()));
}

#[test]
fn a_string_larger_than_a_chunk_is_cut_at_a_characters_end() {
    for offset in 0..4 {
        // Four bytes each, so that all but one offset would be cut inside of one.
        let long = "x".repeat(offset) + &"🦀".repeat(40_000);
        let (bench, layer) = Bench::new();
        tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
            info!(text = &*long, after = 7, "recorded");
            info!(text = %long, after = 7, "shown");
            info!(after = 7, "{long}");
        });
        let records = bench.records();
        let [recorded, shown, message] = &records[..] else { panic!("{} records", records.len()) };
        for (record, text) in
            [(recorded, recorded.text("text")), (shown, shown.text("text")), (message, message.message())]
        {
            assert_cut(text, &long);
            assert!(text.len() > CHUNK_BYTES * 9 / 10, "most of a chunk is used: {}", text.len());
            assert_eq!(record.int("after"), 7, "what follows has its place");
        }
        assert_eq!(bench.metrics.snapshot().truncated, 3);
    }
}

#[test]
fn text_written_in_small_pieces_is_cut_too() {
    let numbers: Vec<u64> = (0..40_000).collect();
    let (bench, layer) = Bench::new();
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        info!(?numbers, after = 7, "shown");
    });
    let records = bench.records();
    assert_cut(records[0].text("numbers"), &format!("{numbers:?}"));
    assert_eq!((records[0].int("after"), records[0].message()), (7, "shown"));
}

#[test]
fn of_several_long_values_each_is_cut_or_counted() {
    let long = "y".repeat(100_000);
    let (bench, layer) = Bench::new();
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        info!(a = &*long, b = &*long, c = %long, d = long.as_bytes(), e = 1, f = true, "kept");
    });
    let records = bench.records();
    let [record] = &records[..] else { panic!("{} records", records.len()) };
    assert_eq!((record.message(), record.int("e")), ("kept", 1));
    let shown = ["a", "b", "c", "d"].into_iter().filter(|key| record.get(key).is_some()).count() as u32;
    assert_eq!(shown + record.raw.dropped_attributes_count, 4);
    assert_eq!(bench.metrics.snapshot().truncated, 4);
}

#[test]
fn every_length_around_the_bounds_survives() {
    // The lengths at which a record just fits what is left of a chunk, or a whole one.
    let (bench, layer) = Bench::with("filter = \"trace\"", 64, Capture::default());
    let dispatch = dispatch(layer);
    let text = "z".repeat(CHUNK_BYTES + 100);
    tracing::dispatcher::with_default(&dispatch, || {
        for length in (0..300).chain(CHUNK_BYTES - 4_000..CHUNK_BYTES + 100).step_by(7) {
            info!(text = &text[..length], "recorded");
            info!(text = %&text[..length], "shown");
            let records = bench.records();
            assert_eq!(records.len(), 2);
            for record in &records {
                let shown = record.text("text");
                if shown != &text[..length] {
                    assert_cut(shown, &text[..length]);
                }
            }
        }
    });
}

#[test]
fn a_spans_long_values_are_cut_and_counted() {
    let long = "ž".repeat(3_000);
    let (bench, layer) = Bench::new();
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let span = info_span!("long", a = %long, c = long.as_bytes(), d = tracing::field::Empty);
        span.record("d", &*long);
        span.in_scope(|| info!("inside"));
    });
    let records = bench.records();
    for key in ["a", "d"] {
        assert_cut(records[0].text(key), &long);
    }
    assert_eq!(records[0].get("c"), Some(&Value::BytesValue(long.as_bytes()[..4_096].to_vec())));
    assert_eq!(bench.metrics.snapshot().truncated, 3);
}

#[test]
fn spans_leave_room_for_the_event() {
    let long = "ž".repeat(3_000);
    let records = Bench::run(|| {
        let spans: Vec<_> = (0..200).map(|level| info_span!("deep", level, text = &*long).entered()).collect();
        info!("inside");
        drop(spans.into_iter().rev().collect::<Vec<_>>());
        let many: Vec<_> = (0..8)
            .map(|_| info_span!("wide", a = &*long, b = &*long, c = &*long, d = &*long, e = &*long).entered())
            .collect();
        info!(text = "x".repeat(60_000), "wide");
        drop(many.into_iter().rev().collect::<Vec<_>>());
    });
    let [deep, wide] = &records[..] else { panic!("{} records", records.len()) };
    assert_eq!(deep.int("level"), 199);
    assert_cut(deep.text("text"), &long);
    assert!(wide.get("a").is_some() && wide.get("e").is_none(), "{:?}", wide.attributes.keys());
    assert_eq!(wide.message(), "wide");
}
