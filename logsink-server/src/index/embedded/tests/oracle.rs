//! Random events and expressions: the planner's answer is that of a plain list.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValueList, any_value::Value};
use proptest::{prelude::*, sample::select};

use super::*;
use crate::index::embedded::{open::Message as OpenMessage, row};

/// Whole hits, newest first, as the list has them.
fn expected(messages: &[Message], query: &Query) -> Vec<Hit> {
    let taken: Vec<OpenMessage> = messages.iter().map(|message| OpenMessage::read(message, 1).unwrap()).collect();
    let mut hits = Vec::new();
    for message in &taken {
        message
            .for_each_row(&mut |key, record| {
                if (query.from_ns..query.to_ns).contains(&key.time_ns) && query.expr.matches(&record) {
                    hits.push((key, row::hit_of_record(key, &record)));
                }
            })
            .unwrap();
    }
    hits.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
    hits.into_iter().map(|(_, hit)| hit).collect()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => select(vec!["alpha", "beta", "7", "7.5", "true", "x y", ""]).prop_map(events::text),
        4 => select(vec![0i64, 7, -3, 250, i64::MAX]).prop_map(Value::IntValue),
        2 => select(vec![7.5, 7.0, -0.0, 250.25, 1e300]).prop_map(Value::DoubleValue),
        1 => any::<f64>().prop_map(Value::DoubleValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => Just(Value::BytesValue(vec![1, 2, 255])),
    ];
    prop_oneof![
        8 => leaf.clone(),
        1 => proptest::collection::vec(leaf.clone(), 0..3).prop_map(|values| {
            let values = values.into_iter().map(|value| AnyValue { value: Some(value) }).collect();
            Value::ArrayValue(ArrayValue { values })
        }),
        1 => (select(vec!["b", "c.d"]), leaf).prop_map(|(key, value)| {
            Value::KvlistValue(KeyValueList { values: vec![events::key_value(key, value)] })
        }),
    ]
}

/// Most events have `kind` as text and `latency` as a number: those become columns; the other keys are anything.
fn event() -> impl Strategy<Value = Event> {
    let attributes = (
        proptest::option::weighted(0.9, select(vec!["alpha", "beta", "gamma"])),
        proptest::option::weighted(0.8, 0i64..400),
        proptest::option::weighted(0.1, select(vec!["app::db", "app::web"])),
        proptest::collection::btree_map(select(vec!["a", "a.b", "mixed", "pid", "rare"]), value(), 0..3),
    );
    let words = proptest::collection::vec(
        select(vec!["connection", "refused", "Peer", "a_b.c", "timeout", "42", "straße", "10.0.0.1"]),
        0..6,
    );
    let ids = proptest::option::weighted(0.3, select(vec![1u8, 2, 255]));
    (
        0i64..50,
        select(vec![0, 1, 5, 9, 10, 13, 17, 21, 24]),
        select(vec!["shop", "billing", ""]),
        words,
        ids,
        attributes,
    )
        .prop_map(|(time, severity, service, words, id, (kind, latency, target, others))| {
            let mut attributes: Vec<(String, Value)> = Vec::new();
            attributes.extend(kind.map(|kind| ("kind".to_owned(), events::text(kind))));
            attributes.extend(latency.map(|latency| ("latency".to_owned(), Value::IntValue(latency))));
            attributes.extend(target.map(|target| ("target".to_owned(), events::text(target))));
            attributes.extend(others.into_iter().map(|(key, value)| (key.to_owned(), value)));
            Event {
                time_ns: 1_000_000_000 * (time + 1),
                severity,
                service: service.to_owned(),
                scope: if time % 2 == 0 { "scope".to_owned() } else { String::new() },
                message: words.join(" "),
                trace_id: id.map_or_else(Vec::new, |id| vec![id; 16]),
                span_id: id.map_or_else(Vec::new, |id| vec![id; 8]),
                attributes,
            }
        })
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "level>=warn",
        "level=info",
        "level<info",
        "level!=error",
        "service=shop",
        "service=\"\"",
        "service!=billing",
        "service=none",
        "target=app::db",
        "target=scope",
        "target~\"^app\"",
        "exists(target)",
        "\"connection\"",
        "\"connection refused\"",
        "\"a_b.c\"",
        "\"straße\"",
        "\"zzz\"",
        "message=\"timeout\"",
        "message~\"ref.sed\"",
        "kind=alpha",
        "kind!=beta",
        "kind~\"a$\"",
        "latency>250",
        "latency<=7",
        "latency=7",
        "latency=7.0",
        "mixed=7",
        "mixed=7.5",
        "mixed>0",
        "mixed=alpha",
        "mixed=true",
        "mixed~\"7\"",
        "exists(mixed)",
        "a.b=7",
        "exists(a.b)",
        "exists(a)",
        "a.c.d=beta",
        "rare=0",
        "rare!=0",
        "pid=41",
        "pid>40",
        "exists(nothing)",
        "host.name=h1",
        "trace_id=01010101010101010101010101010101",
        "exists(span_id)",
        "span_id=ffffffffffffffff",
        "rare=\"AQL/\"",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_plain_list(
        batches in proptest::collection::vec(proptest::collection::vec(event(), 1..40), 1..12),
        expressions in proptest::collection::vec(expression(), 12),
        block_rows in 20usize..150,
        (from, to) in (0i64..30, 20i64..52),
        limit in 3usize..40,
    ) {
        let messages: Vec<Message> =
            batches.iter().enumerate().map(|(offset, events)| message(offset as i64, events)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path(), block_rows);
            store.write(&messages).await.unwrap();
            for text in &expressions {
                let all = query(text);
                let some = Query { from_ns: from * 1_000_000_000, to_ns: to * 1_000_000_000, ..all.clone() };
                assert_eq!(pages(&store, all.clone(), 1_000).await, expected(&messages, &all), "{text}");
                assert_eq!(pages(&store, some.clone(), limit).await, expected(&messages, &some), "{text}");
            }
        });
    }
}

/// Blocks of several pages: the filters choose among them.
#[tokio::test]
async fn answers_from_many_pages_are_those_of_a_plain_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 5_000);
    let events: Vec<Event> = (0..11_000i64)
        .map(|n| Event {
            severity: if n % 997 == 0 { 17 } else { 9 },
            service: if n / 2_000 == 2 { "billing" } else { "shop" }.to_owned(),
            message: if n % 3_001 == 5 { "quorum lost".to_owned() } else { format!("request {} done", n % 50) },
            attributes: vec![
                ("user".to_owned(), Value::IntValue(n % 4_001)),
                ("id".to_owned(), events::text(&n.to_string())),
            ],
            ..Event::at(n * 7 % 11_003)
        })
        .collect();
    let messages: Vec<Message> =
        events.chunks(100).enumerate().map(|(offset, events)| message(offset as i64, events)).collect();
    store.write(&messages).await.unwrap();
    assert_eq!((store.stats().blocks, store.stats().events_open), (2, 1_000));
    for text in [
        "\"quorum\"",
        "\"quorum lost\"",
        "user=17",
        "user>4000",
        "id=4711",
        "level>=error",
        "service=billing level=error",
        "\"absent\"",
        "not \"request\"",
        "id=4711 or user=3",
    ] {
        let query = query(text);
        let expected = expected(&messages, &query);
        assert_eq!(pages(&store, query.clone(), 1_000).await, expected, "{text}");
        assert_eq!(pages(&store, query, 13).await, expected, "{text}");
    }
    let newest = store.search(&Query { limit: 100, ..query("") }).await.unwrap();
    assert_eq!(newest.hits[..], expected(&messages, &query(""))[..100]);
}
