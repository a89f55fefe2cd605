//! How the fields of a document are indexed.

use serde_json::{Map, Value, json};

use super::{
    body::{Shape, TERM_CHARS_MAX},
    fields::{FieldNames, KNOWN, Kind},
    server::Flavor,
};
use crate::otlp::wire::DEPTH_MAX;

impl Shape {
    /// What is said of documents for such a server.
    pub(super) fn new(flavor: Flavor, names: FieldNames) -> Self {
        Self { is_flat_object: flavor == Flavor::OpenSearch, names }
    }
}

impl From<Flavor> for Shape {
    fn from(flavor: Flavor) -> Self {
        Self::new(flavor, FieldNames::default())
    }
}

/// Our own name of a field and that of the Elastic Common Schema.
const OWN: [(&str, &str); 5] = [
    ("level", "log.level"),
    ("target", "log.logger"),
    ("trace_id", "trace.id"),
    ("span_id", "span.id"),
    ("event_name", "event.action"),
];

/// The template's `mappings`. Whatever the fields are called, the other name is an alias: searches ask for the same names.
pub(super) fn mappings(flavor: Flavor, names: FieldNames) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": TERM_CHARS_MAX});
    // Our own documents never have another value there; another program's are kept all the same.
    let long = json!({"type": "long", "ignore_malformed": true, "coerce": false});
    let flat = match flavor {
        Flavor::Elasticsearch => {
            // One level for each map, and lists between them.
            json!({"type": "flattened", "ignore_above": TERM_CHARS_MAX, "depth_limit": DEPTH_MAX * 2})
        }
        Flavor::OpenSearch => json!({"type": "flat_object"}),
    };
    let mut fields = vec![
        ("@timestamp", json!({"type": "date_nanos"})),
        ("tie", json!({"type": "keyword"})),
        ("severity_number", json!({"type": "byte"})),
        ("event.severity", alias("severity_number")),
        ("severity_text", keyword.clone()),
        ("service.name", keyword.clone()),
        ("message", json!({"type": "text", "analyzer": "standard"})),
        ("attributes", flat.clone()),
        ("resource", flat.clone()),
        ("numbers", flat),
        ("opaque", json!({"type": "keyword"})),
    ];
    let mut either = |otel, ecs, field: &Value| {
        let (name, other) = if names == FieldNames::Ecs { (ecs, otel) } else { (otel, ecs) };
        fields.push((name, field.clone()));
        if other != name {
            fields.push((other, alias(name)));
        }
    };
    for (otel, ecs) in OWN {
        either(otel, ecs, &keyword);
    }
    for known in KNOWN {
        either(known.name, known.ecs, if known.kind == Kind::Long { &long } else { &keyword });
    }
    let mut properties = Map::new();
    for (name, field) in fields {
        insert(&mut properties, name, field);
    }
    json!({
        // What is not named here is kept and not indexed: no sender can make the mapping grow.
        "dynamic": false,
        "date_detection": false,
        "properties": properties,
    })
}

fn alias(name: &str) -> Value {
    json!({"type": "alias", "path": name})
}

/// Puts a field below the objects that its dotted name says.
fn insert(properties: &mut Map<String, Value>, name: &str, field: Value) {
    match name.split_once('.') {
        None => _ = properties.insert(name.to_owned(), field),
        Some((object, rest)) => {
            let inner = properties.entry(object).or_insert_with(|| json!({"properties": {}}));
            if let Some(inner) = inner["properties"].as_object_mut() {
                insert(inner, rest, field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a mapping by their whole names.
    fn flatten(properties: &Value, parent: &str, into: &mut Vec<(String, Value)>) {
        for (name, field) in properties.as_object().unwrap() {
            let name = format!("{parent}{name}");
            match field.get("properties") {
                Some(inner) => {
                    assert!(field.get("type").is_none(), "{name} is a field and an object");
                    flatten(inner, &format!("{name}."), into);
                }
                None => into.push((name, field.clone())),
            }
        }
    }

    #[test]
    fn both_namings_have_the_same_fields_and_aliases_that_lead_somewhere() {
        let fields = |names| {
            let mut fields = Vec::new();
            flatten(&mappings(Flavor::Elasticsearch, names)["properties"], "", &mut fields);
            fields
        };
        let (otel, ecs) = (fields(FieldNames::Otel), fields(FieldNames::Ecs));
        let names = |fields: &[(String, Value)]| fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&otel), names(&ecs));
        for fields in [&otel, &ecs] {
            for (name, field) in fields.iter().filter(|(_, field)| field["type"] == "alias") {
                let target = fields.iter().find(|(other, _)| field["path"] == other.as_str());
                assert!(target.is_some_and(|(_, field)| field["type"] != "alias"), "{name}");
            }
        }
        let field = |fields: &[(String, Value)], wanted: &str| {
            fields.iter().find(|(name, _)| name == wanted).map(|(_, field)| field["type"].clone())
        };
        assert_eq!(field(&otel, "log.level"), Some(json!("alias")));
        assert_eq!(field(&ecs, "log.level"), Some(json!("keyword")));
        assert_eq!(field(&ecs, "exception.type"), Some(json!("alias")));
        assert_eq!(field(&otel, "http.response.status_code"), Some(json!("long")));
    }
}
