//! What an answer to `_bulk` means for each document. Pure.
//!
//! The request's status speaks for all of its documents, or each of them has its own: then they are judged one by one. In
//! doubt a document is sent again, which its id makes harmless; nothing counts as stored that was not said to be.

use serde::Deserialize;

/// What becomes of a request's documents.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Each has its own answer.
    Judged(Judged),
    /// All of them again, after a while.
    Retry {
        /// A short name for the counter.
        reason: &'static str,
        /// For the log.
        message: String,
    },
    /// Fewer of them at a time: the request is too large, or one of them spoils it for all.
    Halve {
        /// A short name for the counter, should it come down to one document.
        reason: &'static str,
        /// What the server said.
        message: String,
    },
    /// All of them again, but a person has to act first.
    Stop {
        /// What the server said.
        message: String,
    },
}

/// Documents by outcome, as their indexes in the request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judged {
    /// Stored, those that were there already included.
    pub(super) stored: usize,
    /// There already.
    pub(super) duplicates: usize,
    /// To be sent again, after a while.
    pub(super) retry: Vec<usize>,
    /// Why, for the counter.
    pub(super) retry_reason: Option<&'static str>,
    /// Never storable, and why.
    pub(super) dead: Vec<(usize, String)>,
    /// To be sent again when a person has acted.
    pub(super) stopped: Vec<usize>,
    /// What the server said about the first of them.
    pub(super) stop: Option<String>,
}

/// What of the answer is asked for (`filter_path`): a twelfth of it.
pub(super) const FILTER_PATH: &str = "errors,items.*.status,items.*.error.type,items.*.error.reason,\
                                      items.*.error.caused_by.reason";

/// The longest text of an answer that goes into a log line or a dead letter's reason.
const MESSAGE_CHARS_MAX: usize = 300;

/// Judges the answer to a request of `documents` documents.
pub(super) fn judge(status: u16, body: &[u8], documents: usize) -> Answer {
    match status {
        200 => judge_items(body, documents),
        413 => Answer::Halve { reason: "too_large", message: format!("413: {}", excerpt(body)) },
        // The parser did not get through the request: one document may be to blame. An answer that is not Elasticsearch's own
        // comes from something in between, and says nothing about the documents.
        400 => match serde_json::from_slice::<Failure>(body) {
            Ok(failure) if !needs_a_person(&failure.error.kind) => {
                Answer::Halve { reason: "malformed", message: failure.error.to_string() }
            }
            _ => Answer::Stop { message: format!("400: {}", excerpt(body)) },
        },
        408 | 429 | 500..=599 => {
            Answer::Retry { reason: http_reason(status), message: format!("{status}: {}", excerpt(body)) }
        }
        _ => Answer::Stop { message: format!("{status}: {}", excerpt(body)) },
    }
}

/// Whether the answer says, byte for byte, that each of `documents` documents was created. That is what nearly all answers
/// are; any other, or the same said in other words, is for [`judge_items`] to read.
fn all_created(body: &[u8], documents: usize) -> bool {
    const ITEM: &[u8] = br#"{"create":{"status":201}}"#;

    let items = body.strip_prefix(br#"{"errors":false,"items":["#).and_then(|rest| rest.strip_suffix(b"]}"));
    let Some((first, rest)) = items.and_then(|items| items.split_at_checked(ITEM.len())) else { return false };
    // The commas that stand between items are one each less than the items.
    let (more, tail) = rest.as_chunks::<{ ITEM.len() + 1 }>();
    first == ITEM
        && tail.is_empty()
        && more.len() + 1 == documents
        && more.iter().all(|item| item[0] == b',' && item[1..] == *ITEM)
}

fn judge_items(body: &[u8], documents: usize) -> Answer {
    #[derive(Deserialize)]
    struct Full {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        create: Outcome,
    }
    #[derive(Deserialize)]
    struct Outcome {
        status: u16,
        error: Option<Reason>,
    }

    let garbage =
        |what: &str| Answer::Retry { reason: "garbage", message: format!("the answer {what}: {}", excerpt(body)) };
    if all_created(body, documents) {
        return Answer::Judged(Judged { stored: documents, ..Judged::default() });
    }
    let full: Full = match serde_json::from_slice(body) {
        Ok(full) => full,
        Err(error) if error.is_data() => return garbage("is not that of _bulk with create"),
        Err(_) => return garbage("is not JSON, or cut off"),
    };
    if full.items.len() != documents {
        return garbage("does not have an item for each document");
    }
    // The items are what counts: `errors` beside them says nothing more.
    let mut judged = Judged::default();
    for (index, Item { create: Outcome { status, error } }) in full.items.into_iter().enumerate() {
        let kind = error.as_ref().map_or("", |error| &error.kind);
        match status {
            200 | 201 => judged.stored += 1,
            409 => {
                judged.stored += 1;
                judged.duplicates += 1;
            }
            408 | 429 | 500..=599 => {
                judged.retry.push(index);
                judged.retry_reason.get_or_insert(http_reason(status));
            }
            400 | 413 if !needs_a_person(kind) => {
                judged.dead.push((index, error.map_or_else(|| format!("status {status}"), |error| error.to_string())));
            }
            _ => {
                judged.stopped.push(index);
                judged.stop.get_or_insert_with(|| {
                    format!("{status}: {}", error.map_or_else(String::new, |error| error.to_string()))
                });
            }
        }
    }
    Answer::Judged(judged)
}

/// Errors that come with status 400 and are not the document's fault: the index is closed, or the cluster has as many shards
/// as it may have and cannot make the next index.
fn needs_a_person(kind: &str) -> bool {
    matches!(
        kind,
        "index_closed_exception"
            | "validation_exception"
            | "cluster_block_exception"
            | "invalid_index_name_exception"
            | "invalid_alias_name_exception"
            | "security_exception"
    )
}

fn http_reason(status: u16) -> &'static str {
    match status {
        408 => "http_408",
        429 => "http_429",
        502 => "http_502",
        503 => "http_503",
        504 => "http_504",
        _ => "http_5xx",
    }
}

#[derive(Deserialize)]
struct Failure {
    error: Reason,
}

/// An error as Elasticsearch describes it.
#[derive(Deserialize)]
struct Reason {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: Option<String>,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = self.reason.as_deref().unwrap_or_default();
        // The preview quotes the log's content, which belongs neither into a log line nor into a header.
        let reason = reason.split(" Preview of field's value").next().unwrap_or_default();
        write!(f, "{}: {}", self.kind, cut(reason))?;
        match self.caused_by.as_ref().and_then(|cause| cause.reason.as_deref()) {
            Some(cause) => write!(f, ": {}", cut(cause)),
            None => Ok(()),
        }
    }
}

/// The beginning of an answer: its error when it is Elasticsearch's own, else its text in one line.
pub(super) fn excerpt(body: &[u8]) -> String {
    if let Ok(failure) = serde_json::from_slice::<Failure>(body) {
        return failure.error.to_string();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * MESSAGE_CHARS_MAX)]);
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(items: &str) -> Answer {
        let body = format!(r#"{{"errors":true,"items":[{items}]}}"#);
        judge(200, body.as_bytes(), items.matches("\"create\"").count())
    }

    fn judged(answer: Answer) -> Judged {
        match answer {
            Answer::Judged(judged) => judged,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_clean_answer_stores_all() {
        let body = br#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#;
        assert_eq!(judge(200, body, 2), Answer::Judged(Judged { stored: 2, ..Judged::default() }));
    }

    #[test]
    fn a_clean_answer_in_other_words_stores_all_too() {
        for body in [
            r#"{ "errors": false, "items": [ {"create":{"status":201}}, {"create":{"status":201}} ] }"#,
            r#"{"items":[{"create":{"status":201}},{"create":{"status":200}}],"errors":false}"#,
            r#"{"took":3,"errors":false,"items":[{"create":{"_id":"x","status":201}},{"create":{"status":201}}]}"#,
        ] {
            assert!(!all_created(body.as_bytes(), 2), "{body}");
            assert_eq!(judged(judge(200, body.as_bytes(), 2)).stored, 2, "{body}");
        }
    }

    #[test]
    fn no_changed_byte_is_taken_for_stored() {
        let clean = format!(r#"{{"errors":false,"items":[{}]}}"#, [r#"{"create":{"status":201}}"#; 3].join(","));
        assert!(all_created(clean.as_bytes(), 3) && !all_created(clean.as_bytes(), 2));
        for at in 0..clean.len() {
            let mut changed = clean.clone().into_bytes();
            changed[at] ^= 1;
            assert!(!all_created(&changed, 3), "{}", String::from_utf8_lossy(&changed));
            assert!(!all_created(&clean.as_bytes()[..at], 3), "cut at {at}");
        }
    }

    #[test]
    fn items_count_even_where_the_flag_says_that_there_are_no_errors() {
        let body = br#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":429}}]}"#;
        let answer = judged(judge(200, body, 2));
        assert_eq!((answer.stored, answer.retry), (1, vec![1]));
    }

    #[test]
    fn items_are_judged_one_by_one() {
        let answer = judged(items(
            r#"{"create":{"status":201}},
               {"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}},
               {"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
               {"create":{"status":503,"error":{"type":"unavailable_shards_exception","reason":"away"}}},
               {"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:2] no. Preview of field's value: 'secret'","caused_by":{"reason":"why"}}}},
               {"create":{"status":400,"error":{"type":"validation_exception","reason":"1000 shards"}}},
               {"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"read-only"}}}"#,
        ));
        assert_eq!((answer.stored, answer.duplicates), (2, 1));
        assert_eq!((answer.retry, answer.retry_reason), (vec![2, 3], Some("http_429")));
        assert_eq!(answer.dead, [(4, "document_parsing_exception: [1:2] no.: why".to_owned())]);
        assert_eq!(answer.stopped, [5, 6]);
        assert_eq!(answer.stop.as_deref(), Some("400: validation_exception: 1000 shards"));
    }

    #[test]
    fn an_answer_that_cannot_be_trusted_is_asked_for_again() {
        let whole = br#"{"errors":false,"items":[{"create":{"status":201}}]}"#;
        for (body, documents) in [
            (&whole[..whole.len() - 1], 1),
            (&whole[..20], 1),
            (&whole[..], 2),
            (&whole[..], 0),
            (br#"{"errors":false,"items":[]}"#, 1),
            (br#"{"errors":false,"items":[{"create":{"status":201}},]}"#, 1),
            (br#"{"errors":false,"items":[{"create":{"status":201}};{"create":{"status":201}}]}"#, 2),
            (br#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}"#, 2),
            (br#"{"errors":false}"#, 1),
            (b"", 1),
            (b"<html><h1>Welcome</h1></html>", 1),
            (b"{}", 1),
            (b"[]", 1),
            (br#"{"errors":true,"items":[{"index":{"status":201}}]}"#, 1),
            (br#"{"errors":true,"items":[{"create":{"error":{}}}]}"#, 1),
        ] {
            let answer = judge(200, body, documents);
            assert!(matches!(answer, Answer::Retry { reason: "garbage", .. }), "{answer:?}");
        }
    }

    #[test]
    fn a_status_speaks_for_all() {
        let own = br#"{"error":{"type":"x_content_parse_exception","reason":"bad line"},"status":400}"#;
        let html = b"<html>\n <title>Bad\trequest</title></html>";
        assert!(matches!(judge(400, own, 3), Answer::Halve { reason: "malformed", .. }));
        assert_eq!(
            judge(400, html, 3),
            Answer::Stop { message: "400: <html> <title>Bad request</title></html>".into() }
        );
        assert!(matches!(judge(413, html, 3), Answer::Halve { reason: "too_large", .. }));
        assert!(matches!(judge(429, b"", 3), Answer::Retry { reason: "http_429", .. }));
        for status in [408, 500, 502, 503, 504] {
            assert!(matches!(judge(status, html, 3), Answer::Retry { .. }), "{status}");
        }
        for status in [201, 301, 401, 403, 404, 405, 406] {
            assert!(matches!(judge(status, html, 3), Answer::Stop { .. }), "{status}");
        }
    }
}
