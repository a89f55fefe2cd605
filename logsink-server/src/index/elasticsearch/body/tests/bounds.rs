//! Messages and attributes beyond all measure.

use super::*;

#[test]
fn a_message_that_would_grow_without_bound_is_bad() {
    let records = |n| vec![LogRecord::default(); n];
    let resource = vec![pair("big", text(&"x".repeat(100_000)))];
    let good = message(&request(vec![], records(3)));
    let messages =
        [good.clone(), message(&request(resource.clone(), records(100))), message(&request(resource, records(9)))];
    let body = Body::write(&messages, 0, Flavor::Elasticsearch);
    assert_eq!((body.bad.len(), body.bad[0].0), (1, 1));
    let why = body.bad[0].1.to_string();
    assert!(why.ends_with("more than 4194304 bytes of resources that its records repeat"), "{why}");
    assert_eq!(body.items.iter().map(|item| item.message).collect::<Vec<_>>(), [[0; 3].as_slice(), &[2; 9]].concat());
    assert!(body.bytes.len() < 2 << 20);

    // In parts, too.
    let routes = Routes::fixed("logs-logsink-default");
    let (mut part, mut bad, mut of) = (Some(Part::first(500_000)), 0, [0; 3]);
    while let Some(wanted) = part {
        let shape = Shape::new(Flavor::Elasticsearch, FieldNames::Otel);
        let body = Body::write_into(Buffers::default(), &messages, 0, shape, &routes, wanted);
        bad += body.bad.iter().filter(|(message, _)| *message == 1).count();
        body.items.iter().for_each(|item| of[item.message] += 1);
        part = body.rest(500_000);
    }
    assert_eq!((bad, of), (1, [3, 0, 9]));
}

#[test]
fn a_crowd_of_attributes_is_written_once_each() {
    let attributes: Vec<_> = (0..10_000).map(|n| pair(&format!("k{}", n % 9_000), wire(Any::IntValue(n)))).collect();
    let document = with(attributes);
    assert_eq!(document["attributes"].as_object().unwrap().len(), 9_000);
    assert_eq!((&document["attributes"]["k5"], &document["attributes"]["k8999"]), (&json!(9_005), &json!(8_999)));
    assert_eq!(document["opaque"], json!([ANY]));
}

#[test]
fn paths_too_long_for_a_term_are_kept_and_not_indexed() {
    let key = "k".repeat(TERM_CHARS_MAX + 1);
    let half = &key[..5_000];
    for (attributes, kept) in [
        (vec![pair(&key, text("v")), pair("n", wire(Any::IntValue(1)))], true),
        (vec![pair(&key, wire(Any::IntValue(1)))], true),
        (vec![pair(half, map(vec![pair(half, wire(Any::IntValue(1)))]))], true),
        (vec![pair(half, list(vec![map(vec![pair(half, text("v"))])]))], true),
        (vec![pair(half, list(vec![list(vec![map(vec![pair("k", text("v"))])])]))], false),
        (vec![pair(half, text("v"))], false),
    ] {
        let document = with(attributes.clone());
        let (with_it, without) =
            if kept { ("attributes_kept", "attributes") } else { ("attributes", "attributes_kept") };
        assert_eq!((&document[with_it], &document[without]), (&oracle(&attributes), &Json::Null));
        assert!(document["numbers"].as_object().is_none_or(|numbers| numbers.keys().all(|path| path == "n")));
        assert_eq!(
            document["opaque"].as_array().is_some_and(|paths| paths.contains(&json!(ANY))),
            kept || document["opaque"][0] == ANY
        );
    }
}
