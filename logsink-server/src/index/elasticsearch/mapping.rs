//! How the fields of a document are indexed.

use serde_json::{Value, json};

use super::{body::TERM_CHARS_MAX, server::Flavor};
use crate::otlp::wire::DEPTH_MAX;

/// The template's `mappings`.
pub(super) fn mappings(flavor: Flavor) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": TERM_CHARS_MAX});
    let flat = match flavor {
        Flavor::Elasticsearch => {
            // One level for each map, and lists between them.
            json!({"type": "flattened", "ignore_above": TERM_CHARS_MAX, "depth_limit": DEPTH_MAX * 2})
        }
        Flavor::OpenSearch => json!({"type": "flat_object"}),
    };
    json!({
        // What is not named here is kept and not indexed: no sender can make the mapping grow.
        "dynamic": false,
        "date_detection": false,
        "properties": {
            "@timestamp": {"type": "date_nanos"},
            "tie": {"type": "keyword"},
            "severity_number": {"type": "byte"},
            "severity_text": keyword,
            "level": keyword,
            "service": keyword,
            "target": keyword,
            "event_name": keyword,
            "message": {"type": "text", "analyzer": "standard"},
            "trace_id": keyword,
            "span_id": keyword,
            "attributes": flat,
            "resource": flat,
            "numbers": flat,
            "opaque": {"type": "keyword"},
        },
    })
}
