//! What has to be there before the first event is: the index template, and the data stream made from it.
//!
//! An older server does not take a newer server's template away: the template has a version and only a higher one is put
//! in its place.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::{Elasticsearch, Failed, mapping};

/// Rises with every change of [`template`].
const TEMPLATE_VERSION: u64 = 1;
/// Above the templates that the servers bring for `logs-*-*` (100), as Elastic's documentation asks of one's own.
const TEMPLATE_PRIORITY: u64 = 500;

/// Which server it is: they index attributes by different field types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    /// `flattened`
    Elasticsearch,
    /// `flat_object`
    OpenSearch,
}

/// Asks the server what it is.
pub(super) async fn flavor(elasticsearch: &Elasticsearch) -> Result<Flavor, Failed> {
    let answer = elasticsearch.call(Method::Get, "/", &[], None).await?.ok()?;
    let Ok(about) = serde_json::from_slice::<Value>(&answer) else {
        return Err(Failed::retry("garbage", "the answer to GET / is not JSON".into()));
    };
    let is_opensearch = about["version"]["distribution"] == "opensearch";
    Ok(if is_opensearch { Flavor::OpenSearch } else { Flavor::Elasticsearch })
}

/// Puts the template and the data stream in place.
pub(super) async fn set_up(elasticsearch: &Elasticsearch, flavor: Flavor) -> Result<(), Failed> {
    let data_stream = &elasticsearch.options.data_stream;
    let path = format!("/_index_template/logsink-{data_stream}");
    if version(elasticsearch, &path).await?.is_none_or(|version| version < TEMPLATE_VERSION) {
        let template = template(elasticsearch, flavor).to_string();
        elasticsearch.call(Method::Put, &path, &[], Some(template.into())).await?.ok()?;
        tracing::info!(template = %path, version = TEMPLATE_VERSION, "put the index template");
    }
    let answer = elasticsearch.call(Method::Put, &format!("/_data_stream/{data_stream}"), &[], None).await?;
    match answer.status {
        // It is there already, or this build has no such endpoint or this user no right to it: then the first `_bulk` makes
        // the data stream from the template, or is told why not.
        200 | 400 | 403 | 404 | 405 => Ok(()),
        _ => answer.ok().map(drop),
    }
}

/// The version of the template that is there; none when there is none.
async fn version(elasticsearch: &Elasticsearch, path: &str) -> Result<Option<u64>, Failed> {
    let answer = elasticsearch.call(Method::Get, path, &[], None).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let Ok(found) = serde_json::from_slice::<Value>(&answer.ok()?) else {
        return Err(Failed::retry("garbage", "the answer about the index template is not JSON".into()));
    };
    Ok(Some(found["index_templates"][0]["index_template"]["version"].as_u64().unwrap_or(0)))
}

fn template(elasticsearch: &Elasticsearch, flavor: Flavor) -> Value {
    let options = &elasticsearch.options;
    let mut settings = json!({
        "index.refresh_interval": options.refresh_interval,
        "index.codec": "best_compression",
    });
    if let Some(shards) = options.shards {
        settings["index.number_of_shards"] = json!(shards);
    }
    if let Some(replicas) = options.replicas {
        settings["index.number_of_replicas"] = json!(replicas);
    }
    json!({
        "index_patterns": [options.data_stream],
        "data_stream": {},
        "priority": TEMPLATE_PRIORITY,
        "version": TEMPLATE_VERSION,
        "_meta": {"managed_by": "logsink"},
        "template": {
            "settings": settings,
            "mappings": mapping::mappings(flavor),
        },
    })
}
