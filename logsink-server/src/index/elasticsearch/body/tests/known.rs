//! Well-known attributes and their fields.

use super::*;

#[test]
fn well_known_attributes_have_fields_when_their_values_fit() {
    let int = |value| wire(Any::IntValue(value));
    let long = text(&"x".repeat(TERM_CHARS_MAX + 1));
    let attributes = vec![
        pair("http.response.status_code", int(200)),
        pair("code.line.number", int(EXACT_MAX + 1)),
        pair("thread.id", text("main")),
        pair("exception.type", text("Broken")),
        pair("exception.message", long.clone()),
        pair("url.path", int(5)),
        pair("user.id", map(vec![pair("a", text("b"))])),
        // A resource's, usually.
        pair("host.name", text("mine")),
    ];
    let record = LogRecord { attributes, ..LogRecord::default() };
    let resource = vec![pair("host.name", text("web-1")), pair("k8s.pod.name", text("p")), pair("user.id", text("u"))];
    let messages = [message(&request(resource, vec![record]))];
    for (names, exception, pod) in
        [(FieldNames::Otel, "exception.type", "k8s.pod.name"), (FieldNames::Ecs, "error.type", "kubernetes.pod.name")]
    {
        let body = Body::write(&messages, 0, Shape::new(Flavor::Elasticsearch, names));
        let document = documents(&body).remove(0).1;
        assert_eq!((&document["http.response.status_code"], &document[exception]), (&json!(200), &json!("Broken")));
        assert_eq!((&document["host.name"], &document[pod]), (&json!("web-1"), &json!("p")));
        assert_eq!(document["resource"], json!({"user.id": "u"}));
        assert_eq!(
            document["attributes"],
            json!({
                "code.line.number": EXACT_MAX + 1, "thread.id": "main", "exception.message": "x".repeat(TERM_CHARS_MAX + 1),
                "url.path": 5, "user.id": {"a": "b"}, "host.name": "mine",
            })
        );
        assert_eq!(document["opaque"], json!(["exception.message", "user.id"]));
    }
}

#[test]
fn a_key_that_passes_for_a_shorter_one_in_a_flat_object_is_said() {
    let record = |key| LogRecord { attributes: vec![pair(key, text("v"))], ..LogRecord::default() };
    let nested = LogRecord { attributes: vec![pair("m", map(vec![pair("a=b", text("v"))]))], ..LogRecord::default() };
    let of = |resource: &str, record: LogRecord, flavor| {
        let messages = [message(&request(vec![pair(resource, text("r"))], vec![record]))];
        documents(&Body::write(&messages, 0, flavor)).remove(0).1["opaque"].clone()
    };
    for (resource, record, elasticsearch, opensearch) in [
        ("r", record("a"), json!(null), json!(null)),
        ("r", record("a=b"), json!(null), json!([ANY])),
        ("r=", record("a"), json!(null), json!([ANY])),
        ("r", nested, json!(["m"]), json!(["m", ANY])),
    ] {
        assert_eq!(of(resource, record.clone(), Flavor::Elasticsearch), elasticsearch);
        assert_eq!(of(resource, record, Flavor::OpenSearch), opensearch);
    }
}

#[test]
fn a_record_may_have_all_well_known_attributes() {
    let value = |kind| match kind {
        Kind::Keyword => text("t"),
        Kind::Long => wire(Any::IntValue(5)),
    };
    let of = |owner| KNOWN.iter().filter(move |known| known.owner == owner);
    let pairs = |owner| of(owner).map(|known| pair(known.name, value(known.kind))).collect::<Vec<_>>();
    let record = LogRecord { attributes: pairs(Owner::Record), ..LogRecord::default() };
    let messages = [message(&request(pairs(Owner::Resource), vec![record]))];
    for names in [FieldNames::Otel, FieldNames::Ecs] {
        let document = documents(&Body::write(&messages, 0, Shape::new(Flavor::Elasticsearch, names))).remove(0).1;
        for known in KNOWN {
            let name = if names == FieldNames::Ecs { known.ecs } else { known.name };
            assert_eq!(document[name], if known.kind == Kind::Long { json!(5) } else { json!("t") }, "{name}");
        }
        assert_eq!((&document["attributes"], &document["resource"]), (&json!({}), &json!({})));
    }
}
