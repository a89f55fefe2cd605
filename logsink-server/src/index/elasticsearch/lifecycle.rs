//! Policies of the cluster's own: ILM of Elasticsearch, ISM of OpenSearch. Where there is one, it rolls over and removes by age;
//! removal by bytes is ours in any case (see [`super::retention`]), since no policy bounds the bytes of all indices together.

use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::{
    Elasticsearch, Failed, body,
    layout::{self, Layout},
    retention::{NAMES_PER_REQUEST, RetentionOptions},
    server::Flavor,
    setup::{self, MANAGED_BY, SetUp},
};
use crate::config::RetentionBy;

/// Who ends the lives of indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// No policy: we do, or nobody.
    None,
    Ilm,
    Ism,
}

/// Which policies the cluster has, where they are wanted.
pub(super) async fn found(elasticsearch: &Elasticsearch, flavor: Flavor) -> Result<Lifecycle, Failed> {
    if elasticsearch.options.retention.by != RetentionBy::Auto {
        return Ok(Lifecycle::None);
    }
    let (path, lifecycle) = match flavor {
        Flavor::Elasticsearch => ("/_ilm/status", Lifecycle::Ilm),
        Flavor::OpenSearch => ("/_plugins/_ism/policies", Lifecycle::Ism),
    };
    let answer = elasticsearch.call(Method::Get, path, &[], None).await?;
    match answer.status {
        200 => Ok(lifecycle),
        // Without the plugin nobody knows the path, or it is taken for an index's.
        400 | 404 | 405 => Ok(Lifecycle::None),
        401 | 403 => Err(Failed::Stop {
            message: format!(
                "{path} answers {}: the user may not see the cluster's policies; let it manage them, or set \
                 elasticsearch.retention.by to \"logsink\" or \"nobody\"",
                answer.status
            ),
        }),
        _ => answer.ok().map(|_| Lifecycle::None),
    }
}

/// What the template says about it.
pub(super) fn setting(elasticsearch: &Elasticsearch, set_up: SetUp) -> Option<(&'static str, String)> {
    // ISM finds the indices by itself, by the pattern in its policy.
    (set_up.lifecycle == Lifecycle::Ilm).then(|| ("index.lifecycle.name", ilm_name(elasticsearch)))
}

/// One ILM policy serves all streams.
fn ilm_name(elasticsearch: &Elasticsearch) -> String {
    let pattern = &elasticsearch.pattern;
    format!("logsink-{}", pattern.fixed().map_or_else(|| pattern.overflow(), str::to_owned))
}

/// Puts the policy for `stream` in place.
pub(super) async fn put(elasticsearch: &Elasticsearch, set_up: SetUp, stream: &str) -> Result<(), Failed> {
    let retention = &elasticsearch.options.retention;
    match set_up.lifecycle {
        Lifecycle::None => Ok(()),
        Lifecycle::Ilm => put_ilm(elasticsearch, stream, &ilm(retention, set_up.layout)).await,
        Lifecycle::Ism => put_ism(elasticsearch, set_up.layout, stream, &ism(retention, set_up.layout, stream)).await,
    }
}

async fn put_ilm(elasticsearch: &Elasticsearch, stream: &str, policy: &Value) -> Result<(), Failed> {
    let name = ilm_name(elasticsearch);
    let path = format!("/_ilm/policy/{name}");
    let answer = elasticsearch.call(Method::Get, &path, &[], None).await?;
    let is_first = answer.status == 404;
    if !is_first {
        let found = read(&answer.ok()?)?;
        let meta = &found[&name]["policy"]["_meta"];
        if meta["managed_by"] != MANAGED_BY {
            tracing::info!(policy = %name, "the ILM policy is not of our making: it is left as it is");
            return Ok(());
        }
        if meta["made_from"] == policy["policy"]["_meta"]["made_from"] {
            return Ok(());
        }
    }
    elasticsearch.call(Method::Put, &path, &[], Some(policy.to_string().into())).await?.ok()?;
    tracing::info!(policy = %name, "put the ILM policy");
    if is_first {
        // Indices from before; there are none as a rule.
        let settings = json!({"index.lifecycle.name": name}).to_string();
        let path = format!("/{stream}/_settings");
        let answer = elasticsearch.call(Method::Put, &path, &[], Some(settings.into())).await?;
        if answer.status != 404 {
            answer.ok()?;
        }
    }
    Ok(())
}

async fn put_ism(elasticsearch: &Elasticsearch, layout: Layout, stream: &str, policy: &Value) -> Result<(), Failed> {
    let path = format!("/_plugins/_ism/policies/logsink-{stream}");
    let answer = elasticsearch.call(Method::Get, &path, &[], None).await?;
    let is_first = answer.status == 404;
    let mut place = Vec::new();
    if !is_first {
        let found = read(&answer.ok()?)?;
        let description = found["policy"]["description"].as_str().unwrap_or_default();
        if !description.starts_with(ISM_MARK) {
            tracing::info!(policy = %path, "the ISM policy is not of our making: it is left as it is");
            return Ok(());
        }
        if description == policy["policy"]["description"] {
            return Ok(());
        }
        place =
            vec![("if_seq_no", found["_seq_no"].to_string()), ("if_primary_term", found["_primary_term"].to_string())];
    }
    let query: Vec<(&str, &str)> = place.iter().map(|(key, value)| (*key, value.as_str())).collect();
    elasticsearch.call(Method::Put, &path, &query, Some(policy.to_string().into())).await?.ok()?;
    tracing::info!(policy = %path, "put the ISM policy");
    // What is there already, by its names: a stream that only begins alike is not taken along. An index keeps the policy that it got
    // first, as it was then, until it is told of another.
    let action = if is_first { "add" } else { "change_policy" };
    let ours = setup::indices(elasticsearch, layout, stream).await?.into_iter().filter(|(_, is_ours)| *is_ours);
    let names: Vec<String> = ours.map(|(name, _)| name).collect();
    for names in names.chunks(NAMES_PER_REQUEST) {
        let body = json!({"policy_id": format!("logsink-{stream}")}).to_string();
        let path = format!("/_plugins/_ism/{action}/{}", names.join(","));
        let answer = elasticsearch.call(Method::Post, &path, &[], Some(body.into())).await?;
        if answer.status != 404 {
            answer.ok()?;
        }
    }
    Ok(())
}

fn read(answer: &[u8]) -> Result<Value, Failed> {
    serde_json::from_slice(answer).map_err(|_| Failed::retry("garbage", "the answer about a policy is not JSON".into()))
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs().max(1))
}

fn ilm(retention: &RetentionOptions, layout: Layout) -> Value {
    let mut phases = json!({"hot": {"min_age": "0ms", "actions": {}}});
    if layout == Layout::DataStream {
        phases["hot"]["actions"]["rollover"] =
            json!({"max_age": seconds(retention.rollover_age), "max_size": format!("{}b", retention.rollover_bytes())});
    }
    if let Some(age) = retention.age {
        phases["delete"] = json!({"min_age": seconds(age), "actions": {"delete": {}}});
    }
    let made_from = format!("{:016x}", body::origin(&phases.to_string()));
    json!({"policy": {"_meta": {"managed_by": MANAGED_BY, "made_from": made_from}, "phases": phases}})
}

/// ISM keeps no `_meta`; its description does as well.
const ISM_MARK: &str = "made by logsink, ";

fn ism(retention: &RetentionOptions, layout: Layout, stream: &str) -> Value {
    let mut hot = json!({"name": "hot", "actions": [], "transitions": []});
    let mut condition = "min_index_age";
    if layout == Layout::DataStream {
        condition = "min_rollover_age";
        let size = format!("{}b", retention.rollover_bytes());
        hot["actions"] = json!([{"rollover": {"min_index_age": seconds(retention.rollover_age), "min_size": size}}]);
    }
    let mut states = vec![];
    if let Some(age) = retention.age {
        hot["transitions"] = json!([{"state_name": "delete", "conditions": {condition: seconds(age)}}]);
        states.push(json!({"name": "delete", "actions": [{"delete": {}}], "transitions": []}));
    }
    states.insert(0, hot);
    let patterns = match layout {
        Layout::DataStream => json!([stream]),
        Layout::Daily => json!(layout::patterns(stream)),
    };
    let policy = json!({
        "default_state": "hot",
        "states": states,
        "ism_template": [{"index_patterns": patterns, "priority": 500}],
    });
    let description = format!("{ISM_MARK}{:016x}", body::origin(&policy.to_string()));
    let mut policy = policy;
    policy["description"] = json!(description);
    json!({"policy": policy})
}
