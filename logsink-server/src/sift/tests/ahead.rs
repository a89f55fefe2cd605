//! Before the queue.

use super::*;
use crate::queue::Batch;

fn batch(request: &ExportLogsServiceRequest, headers: Headers) -> Batch {
    Batch { payload: request.encode_to_vec().into(), headers }
}

impl Sift {
    /// The batch as it goes into the queue.
    fn ahead(&self, batch: Batch) -> Option<Batch> {
        match self.rules_ahead(&batch).expect("the rules are read") {
            Some(snapshot) => self.cut(&snapshot, batch).expect("it is OTLP"),
            None => Some(batch),
        }
    }
}

#[test]
fn what_is_dropped_is_cut_out_with_what_it_leaves_empty() {
    let drop = |when: &str| format!("[[rule]]\nname = \"d\"\nwhen = '{when}'\nthen = \"drop\"");
    let redact = "\n[[rule]]\nname = \"secrets\"\nthen = { redact = [\"password\"] }";
    for (rules, kept) in [
        (drop("\"zero\""), vec!["one", "two", "three", "four"]),
        (drop("service=cart"), vec!["two", "three", "four"]),
        (drop("\"two\" or \"four\""), vec!["zero", "one", "three"]),
        (drop("\"one\"") + redact, vec!["zero", "two", "three", "four"]),
        (drop("level>=warn or \"three\" or \"four\""), vec!["zero", "two"]),
    ] {
        let mut expected = request();
        for resource in &mut expected.resource_logs {
            for scope in &mut resource.scope_logs {
                scope.log_records.retain(|record| kept.iter().any(|kept| record.body == Some(text(kept))));
                let pairs = scope.log_records.iter_mut().flat_map(|record| &mut record.attributes);
                for pair in pairs.filter(|pair| rules.contains("redact") && pair.key.starts_with("password")) {
                    pair.value = Some(text("[redacted]"));
                }
            }
            resource.scope_logs.retain(|scope| !scope.log_records.is_empty());
        }
        expected.resource_logs.retain(|resource| !resource.scope_logs.is_empty());
        let cut = sift(&[(None, &rules)]).ahead(batch(&request(), Headers::default())).expect("some are left");
        assert_eq!(ExportLogsServiceRequest::decode(cut.payload.clone()).unwrap(), expected, "{rules}");
        assert_eq!(cut.headers.rules.as_deref(), Some("g1-s0"));
        // The drain leaves it alone.
        let message = Message { payload: cut.payload, headers: cut.headers, ..message(&request()) };
        assert_eq!(sift(&[(None, "filter = \"off\"")]).sift(message).dropped.len(), 0);
    }
}

#[test]
fn bytes_stay_what_they_are_where_no_rule_matches() {
    let unmatched = "[[rule]]\nname = \"d\"\nwhen = '\"five\"'\nthen = \"drop\"\n\
                     [[rule]]\nname = \"s\"\nwhen = 'x=1'\nthen = { redact = [\"password\"] }";
    for (documents, revision) in [
        (vec![(None, unmatched)], Some("g1-s0")),
        (vec![(Some("other"), "filter = \"off\"")], None),
        (vec![(Some("checkout"), unmatched)], Some("g0-s1")),
        (vec![], None),
    ] {
        let batch = batch(&request(), Headers::default());
        let cut = sift(&documents).ahead(batch.clone()).expect("all are left");
        assert_eq!((cut.payload.as_ptr(), cut.headers.rules.as_deref()), (batch.payload.as_ptr(), revision));
    }
}

#[test]
fn nothing_is_left_where_all_is_dropped() {
    let off = sift(&[(None, "filter = \"off\"")]);
    assert!(off.ahead(batch(&request(), Headers::default())).is_none());
    // Without records there is nothing to drop.
    let empty = batch(&ExportLogsServiceRequest::default(), Headers::default());
    assert!(off.ahead(empty).is_some());
    // Its ids are places in the batch, or rules were applied to it.
    for headers in [
        Headers { instance: Some("i".to_owned()), sequence: Some(1), ..Headers::default() },
        Headers { rules: Some("g1-s1".to_owned()), ..Headers::default() },
    ] {
        let batch = batch(&request(), headers.clone());
        let cut = off.ahead(batch.clone()).expect("it is left to others");
        assert_eq!((cut.payload.as_ptr(), cut.headers), (batch.payload.as_ptr(), headers));
    }
}

#[test]
fn what_rules_would_remember_is_left_to_the_drain() {
    let redact = "\n[[rule]]\nname = \"secrets\"\nthen = { redact = [\"password\"] }";
    for then in [
        "{ rate_limit = { per_second = 1 } }",
        "{ rate_limit = { per_second = 1, by = \"x\" } }",
        "{ dedup = { window_ms = 9 } }",
    ] {
        let sift = sift(&[(Some("checkout"), &format!("[[rule]]\nname = \"r\"\nthen = {then}{redact}"))]);
        let batch = batch(&request(), Headers::default());
        let left = sift.ahead(batch.clone()).expect("all of it");
        assert_eq!((left.payload.as_ptr(), left.headers.rules), (batch.payload.as_ptr(), None), "{then}");
    }
    // A rule that has ended remembers nothing.
    let ended = "[[rule]]\nname = \"r\"\nuntil = \"2020-01-01T00:00:00Z\"\nthen = { dedup = { window_ms = 9 } }";
    let cut = sift(&[(None, &format!("{ended}{redact}"))]).ahead(batch(&request(), Headers::default()));
    assert_eq!(cut.and_then(|cut| cut.headers.rules).as_deref(), Some("g1-s0"));
}

#[test]
fn nothing_goes_on_before_the_rules_are_read() {
    let (change, rules) = watch::channel(None);
    let sift = Sift::new(rules, Metrics::new());
    let foreign = batch(&request(), Headers::default());
    assert_eq!(sift.rules_ahead(&foreign).err(), Some(Unread));
    let own = batch(&request(), Headers { instance: Some("i".to_owned()), ..Headers::default() });
    assert!(sift.rules_ahead(&own).unwrap().is_none(), "the drain's");
    change.send_replace(Some(Arc::default()));
    assert!(sift.rules_ahead(&foreign).unwrap().is_none());
}
