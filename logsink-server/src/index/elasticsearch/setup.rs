//! What has to be there before the first event is: the index template, the policy of its indices' lives where the cluster has
//! policies, and the data stream.
//!
//! A template names one stream exactly: a pattern such as `logs-*-*` would take the streams of others along. Each says who made
//! it and from what, in `_meta`. A name under which others' events lie already gets none. An older server does not take a newer server's template away, one that a person has put in its
//! place is left as it is, and one that was made from other settings is replaced, after which the data stream rolls over.

use std::collections::BTreeMap;

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::{
    Elasticsearch, Failed, body,
    layout::{self, Layout},
    lifecycle::{self, Lifecycle},
    mapping, server,
    server::Flavor,
};
use crate::config::LayoutChoice;

/// Rises with every change of [`template`].
const TEMPLATE_VERSION: u64 = 3;
/// Above the templates that the servers bring for `logs-*-*` (100), as Elastic's documentation asks of one's own.
const TEMPLATE_PRIORITY: u64 = 500;
/// In `_meta` of all that we make.
pub(super) const MANAGED_BY: &str = "logsink";

/// What was found and put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetUp {
    pub(super) flavor: Flavor,
    pub(super) layout: Layout,
    pub(super) lifecycle: Lifecycle,
}

/// Asks the cluster what it has, and puts in place what the first write needs.
pub(super) async fn set_up(elasticsearch: &Elasticsearch) -> Result<SetUp, Failed> {
    let options = &elasticsearch.options;
    let flavor = server::flavor(elasticsearch).await?;
    let wanted = if options.layout == LayoutChoice::Daily { Layout::Daily } else { Layout::DataStream };
    let mut set_up = SetUp { flavor, layout: wanted, lifecycle: Lifecycle::None };
    if !options.setup {
        return Ok(set_up);
    }
    set_up.lifecycle = lifecycle::found(elasticsearch, flavor).await?;
    let stream = elasticsearch.pattern.fixed().map_or_else(|| elasticsearch.pattern.overflow(), str::to_owned);
    // Where the one stream is taken, events go there all the same: a person has named it.
    match put(elasticsearch, set_up, &stream).await {
        Err(Failed::BadRequest { message }) if options.layout == LayoutChoice::Auto && lacks_streams(&message) => {
            tracing::info!(reason = %message, "this cluster has no data streams: events go to an index for each day");
            set_up.layout = Layout::Daily;
            put(elasticsearch, set_up, &stream).await?;
        }
        other => _ = other?,
    }
    Ok(set_up)
}

/// Whether the server refused a template because it does not know data streams: Elasticsearch 7 without its module of them says
/// `unknown field [data_stream]`.
fn lacks_streams(message: &str) -> bool {
    message.contains("data_stream") || message.contains("data stream")
}

/// The template's name.
fn template_name(stream: &str, layout: Layout) -> String {
    match layout {
        Layout::DataStream => format!("logsink-{stream}"),
        // A cluster can have both: a data stream keeps the template that it was made from.
        Layout::Daily => format!("logsink-{stream}-daily"),
    }
}

/// Puts in place what one stream needs. False, and nothing is done, when the name is taken: others' events lie there, and with a template
/// of ours they would become ours to remove.
pub(super) async fn put(elasticsearch: &Elasticsearch, set_up: SetUp, stream: &str) -> Result<bool, Failed> {
    let path = format!("/_index_template/{}", template_name(stream, set_up.layout));
    let found = found(elasticsearch, &path).await?;
    // An index for each day beside those of others is what someone means who names one stream for them.
    let may_be_beside = set_up.layout == Layout::Daily && elasticsearch.pattern.fixed().is_some();
    if found.is_none() && !may_be_beside && is_taken(elasticsearch, set_up.layout, stream).await? {
        tracing::warn!(stream, "there are events of others under this name: it gets no index template of ours");
        return Ok(false);
    }
    lifecycle::put(elasticsearch, set_up, stream).await?;
    let template = template(elasticsearch, set_up, stream);
    let Some(found) = found else {
        put_template(elasticsearch, &path, &template).await?;
        if set_up.layout == Layout::DataStream {
            let path = format!("/_data_stream/{stream}");
            let answer = elasticsearch.call(Method::Put, &path, &[], None).await?;
            // It is there already, or this build has no such endpoint or this user no right to it: then the first `_bulk` makes the
            // data stream from the template, or is told why not.
            if !matches!(answer.status, 200 | 400 | 403 | 404 | 405) {
                answer.ok()?;
            }
        }
        return Ok(true);
    };
    if found["_meta"]["managed_by"] != MANAGED_BY {
        tracing::info!(template = %path, "the index template is not of our making: it is left as it is");
        return Ok(true);
    }
    let version = found["version"].as_u64().unwrap_or(0);
    let is_same = version == TEMPLATE_VERSION && found["_meta"]["made_from"] == template["_meta"]["made_from"];
    if version > TEMPLATE_VERSION || is_same {
        return Ok(true);
    }
    if set_up.layout == Layout::DataStream {
        // Until the data stream has rolled over the template does not say from what it was made: whoever comes next, after a failure
        // or a crash, does both again.
        let mut unfinished = template.clone();
        unfinished["_meta"]["made_from"] = Value::Null;
        put_template(elasticsearch, &path, &unfinished).await?;
        if !rolled_over(elasticsearch, stream).await? {
            return Ok(true);
        }
    }
    put_template(elasticsearch, &path, &template).await?;
    Ok(true)
}

async fn put_template(elasticsearch: &Elasticsearch, path: &str, template: &Value) -> Result<(), Failed> {
    elasticsearch.call(Method::Put, path, &[], Some(template.to_string().into())).await?.ok()?;
    tracing::info!(template = %path, version = TEMPLATE_VERSION, "put the index template");
    Ok(())
}

/// Begins a new index, which the new template is for. False when the cluster will not, which a person has to see to.
async fn rolled_over(elasticsearch: &Elasticsearch, stream: &str) -> Result<bool, Failed> {
    let answer = elasticsearch.call(Method::Post, &format!("/{stream}/_rollover"), &[], None).await?;
    match answer.status {
        // There is no such data stream yet.
        404 => Ok(true),
        400 if String::from_utf8_lossy(&answer.body).contains("does not exist") => Ok(true),
        400 | 403 | 405 => {
            let reason = super::bulk::excerpt(&answer.body);
            tracing::warn!(data_stream = %stream, %reason, "cannot roll over: the new settings are not in force for what is written");
            Ok(false)
        }
        _ => answer.ok().map(|_| true),
    }
}

/// Whether there is anything under this name that is not made from a template of ours.
async fn is_taken(elasticsearch: &Elasticsearch, layout: Layout, stream: &str) -> Result<bool, Failed> {
    Ok(indices(elasticsearch, layout, stream).await?.iter().any(|(_, is_ours)| !is_ours))
}

/// The indices of a stream, and whether each is made from a template of ours. None when the user may not see them: who may not see what
/// is there may write there all the same.
pub(super) async fn indices(
    elasticsearch: &Elasticsearch,
    layout: Layout,
    stream: &str,
) -> Result<Vec<(String, bool)>, Failed> {
    let target = match layout {
        Layout::DataStream => format!("/{stream}"),
        Layout::Daily => format!("/{stream}-*"),
    };
    let query = [
        ("ignore_unavailable", "true"),
        ("allow_no_indices", "true"),
        ("filter_path", "*.settings.index.uuid,*.mappings._meta"),
    ];
    let answer = elasticsearch.call(Method::Get, &target, &query, None).await?;
    if matches!(answer.status, 401 | 403 | 404) {
        return Ok(Vec::new());
    }
    let Ok(found) = serde_json::from_slice::<BTreeMap<String, Value>>(&answer.ok()?) else {
        return Err(Failed::retry("garbage", "the answer about a stream's indices is not JSON".into()));
    };
    let of_stream = found.into_iter().filter(|(name, _)| layout == Layout::DataStream || layout::is_of(name, stream));
    Ok(of_stream.map(|(name, about)| (name, about["mappings"]["_meta"]["managed_by"] == MANAGED_BY)).collect())
}

/// The template that is there; none when there is none.
async fn found(elasticsearch: &Elasticsearch, path: &str) -> Result<Option<Value>, Failed> {
    let answer = elasticsearch.call(Method::Get, path, &[], None).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let Ok(mut found) = serde_json::from_slice::<Value>(&answer.ok()?) else {
        return Err(Failed::retry("garbage", "the answer about the index template is not JSON".into()));
    };
    Ok(found.pointer_mut("/index_templates/0/index_template").map(Value::take))
}

/// All streams of this pattern and layout that there are, the overflow among them.
pub(super) async fn streams(elasticsearch: &Elasticsearch, layout: Layout) -> Result<Vec<String>, Failed> {
    let query = [("filter_path", "index_templates.index_template._meta")];
    let answer = elasticsearch.call(Method::Get, "/_index_template/logsink-*", &query, None).await?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let Ok(found) = serde_json::from_slice::<Value>(&answer.ok()?) else {
        return Err(Failed::retry("garbage", "the answer about the index templates is not JSON".into()));
    };
    let templates = found["index_templates"].as_array().cloned().unwrap_or_default();
    let ours = templates.iter().filter_map(|template| {
        let meta = &template["index_template"]["_meta"];
        let is_ours = meta["managed_by"] == MANAGED_BY
            && meta["pattern"] == elasticsearch.options.data_stream.as_str()
            && meta["layout"] == layout_name(layout);
        is_ours.then(|| meta["stream"].as_str().map(str::to_owned)).flatten()
    });
    Ok(ours.collect())
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::DataStream => "data_stream",
        Layout::Daily => "daily",
    }
}

fn template(elasticsearch: &Elasticsearch, set_up: SetUp, stream: &str) -> Value {
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
    if let Some((key, policy)) = lifecycle::setting(elasticsearch, set_up) {
        settings[key] = json!(policy);
    }
    let mut mappings = mapping::mappings(set_up.flavor, options.field_names);
    // What retention goes by, see there.
    mappings["_meta"] = json!({"managed_by": MANAGED_BY, "stream": stream});
    let mut template = json!({
        "index_patterns": [stream],
        "priority": TEMPLATE_PRIORITY,
        "version": TEMPLATE_VERSION,
        "_meta": {
            "managed_by": MANAGED_BY,
            "stream": stream,
            "pattern": options.data_stream,
            "layout": layout_name(set_up.layout),
        },
        "template": {"settings": settings, "mappings": mappings},
    });
    match set_up.layout {
        Layout::DataStream => template["data_stream"] = json!({}),
        Layout::Daily => template["index_patterns"] = json!(layout::patterns(stream)),
    }
    let made_from = format!("{:016x}", body::origin(&template.to_string()));
    template["_meta"]["made_from"] = json!(made_from);
    template
}
