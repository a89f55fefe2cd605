//! `GET /api/v1/search?q=&from=&to=&limit=&cursor=`: a page of events, newest first.
//!
//! The next page is asked for with the answer's `cursor` *and* its `from` and `to`, which are absolute: `-15m` means
//! something else a minute later. Overloaded, it lets searches wait for their turn and answers 503 when that takes too long.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{self, State},
    http::Uri,
    response::{IntoResponse, Response},
};
use logsink::filter::expr::Expr;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, time::timeout};

use super::time;
use crate::{
    error::ApiError,
    index::IndexReader,
    metrics::Metrics,
    query::{Hit, LIMIT_DEFAULT, LIMIT_MAX, Query},
};

/// Where a search begins when the request does not say.
pub const FROM_DEFAULT: &str = "-15m";
/// Searches under way at a time: each may read all blocks, and more of them than this only slow each other down.
const CONCURRENT_MAX: usize = 8;
/// Waiting and searching together. Longer than a person waits, shorter than proxies do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What answers searches.
#[derive(Clone)]
pub struct Search {
    reader: Arc<dyn IndexReader>,
    metrics: Arc<Metrics>,
    turns: Arc<Semaphore>,
}

/// The parameters; every one may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    q: String,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    /// Where the search began (inclusive), RFC 3339.
    pub from: String,
    /// Where it ended (exclusive), RFC 3339.
    pub to: String,
    /// Newest first.
    pub hits: Vec<Hit>,
    /// Where the next page begins; none when there is nothing more.
    pub cursor: Option<String>,
    /// Why events that match may be missing, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How long the search took, milliseconds.
    pub took_ms: u64,
}

impl Search {
    /// Searches in `reader`.
    pub fn new(reader: Arc<dyn IndexReader>, metrics: Arc<Metrics>) -> Self {
        Self { reader, metrics, turns: Arc::new(Semaphore::new(CONCURRENT_MAX)) }
    }

    async fn find(&self, parameters: Parameters) -> Result<Found, ApiError> {
        let started = Instant::now();
        let query = read(parameters, time::now()).map_err(ApiError::bad_request)?;
        let page = timeout(ANSWER_TIMEOUT, async {
            // The semaphore is never closed.
            let _turn = self.turns.acquire().await;
            self.reader.search(&query).await
        });
        let late = || {
            let seconds = ANSWER_TIMEOUT.as_secs();
            ApiError::unavailable(format!("no answer within {seconds} s: search a shorter time, or try again later"))
        };
        let page = page.await.map_err(|_| late())??;
        Ok(Found {
            from: time::show(query.from_ns),
            to: time::show(query.to_ns),
            hits: page.hits,
            cursor: page.cursor,
            warnings: page.warnings,
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

pub(super) async fn answer(State(search): State<Arc<Search>>, uri: Uri) -> Response {
    let metrics = &search.metrics;
    metrics.query_requests.inc();
    let started = Instant::now();
    let parameters = parameters(&uri).map_err(ApiError::bad_request);
    let found = match parameters {
        Ok(parameters) => search.find(parameters).await,
        Err(error) => Err(error),
    };
    metrics.query_seconds.observe(started.elapsed().as_secs_f64());
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => {
            let refused = error.status().is_client_error();
            if refused {
                metrics.query_refused.inc()
            } else {
                metrics.query_failed.inc()
            };
            error.into_response()
        }
    }
}

fn parameters(uri: &Uri) -> Result<Parameters, String> {
    extract::Query::try_from_uri(uri).map(|query| query.0).map_err(|error| error.body_text())
}

/// The parameters as a [`Query`]; the error names the parameter.
fn read(parameters: Parameters, now_ns: i64) -> Result<Query, String> {
    let Parameters { q, from, to, limit, cursor } = parameters;
    let expr = Expr::parse(&q).map_err(|error| format!("q: {error}"))?;
    let at = |name: &str, text: Option<String>, default: &str| {
        let text = text.filter(|text| !text.is_empty());
        time::parse(text.as_deref().unwrap_or(default), now_ns).map_err(|error| format!("{name}: {error}"))
    };
    let from_ns = at("from", from, FROM_DEFAULT)?;
    let to_ns = at("to", to, "now")?;
    if from_ns > to_ns {
        return Err(format!("from: {} is after to: {}", time::show(from_ns), time::show(to_ns)));
    }
    let limit = match limit.filter(|limit| !limit.is_empty()) {
        None => LIMIT_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| format!("limit: `{text}` is not between 1 and {LIMIT_MAX}: read on with the cursor"))?,
    };
    Ok(Query { from_ns, to_ns, expr, limit, cursor: cursor.filter(|cursor| !cursor.is_empty()) })
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{index::IndexError, query::Page, queue::BoxFuture};

    /// Remembers what it was asked and answers with what it was given.
    #[derive(Default)]
    struct Fake {
        asked: Mutex<Vec<Query>>,
        away: bool,
        warnings: Vec<String>,
    }

    impl IndexReader for Fake {
        fn search<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, IndexError>> {
            self.asked.lock().unwrap().push(query.clone());
            let (away, page) = (self.away, Page { warnings: self.warnings.clone(), ..Page::default() });
            Box::pin(
                async move { if away { Err(IndexError::Unavailable("no node answers".into())) } else { Ok(page) } },
            )
        }

        fn ready(&self) -> BoxFuture<'_, Result<(), IndexError>> {
            Box::pin(async { Ok(()) })
        }
    }

    async fn ask(fake: Fake, query: &str) -> (u16, serde_json::Value, Option<Query>, Arc<Metrics>) {
        let (fake, metrics) = (Arc::new(fake), Metrics::new());
        let search = Arc::new(Search::new(fake.clone(), metrics.clone()));
        let uri = format!("/api/v1/search?{query}").parse().unwrap();
        let response = answer(State(search), uri).await;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let asked = fake.asked.lock().unwrap().pop();
        (status, serde_json::from_slice(&body).unwrap(), asked, metrics)
    }

    #[tokio::test]
    async fn what_is_not_said_has_defaults() {
        let (status, body, asked, _) = ask(Fake::default(), "").await;
        let asked = asked.unwrap();
        assert_eq!((status, asked.limit, &asked.cursor), (200, LIMIT_DEFAULT, &None));
        assert_eq!(asked.to_ns - asked.from_ns, 900_000_000_000);
        assert_eq!(body["from"], time::show(asked.from_ns));
        assert_eq!(body["hits"], serde_json::json!([]));
        assert!(body.get("warnings").is_none());
    }

    #[tokio::test]
    async fn an_incomplete_answer_says_so() {
        let fake = Fake { warnings: vec!["a block is damaged".into()], ..Fake::default() };
        let (status, body, ..) = ask(fake, "").await;
        assert_eq!((status, &body["warnings"]), (200, &serde_json::json!(["a block is damaged"])));
    }

    #[tokio::test]
    async fn everything_said_reaches_the_index() {
        let query = "q=level%3E%3Dwarn&from=2026-03-01&to=2026-03-02T00%3A00%3A00+01%3A00&limit=7&cursor=abc";
        let (status, body, asked, _) = ask(Fake::default(), query).await;
        let asked = asked.unwrap();
        assert_eq!((status, asked.limit, asked.cursor.as_deref()), (200, 7, Some("abc")));
        assert_eq!(asked.expr, Expr::parse("level>=warn").unwrap());
        assert_eq!(body["from"], "2026-03-01T00:00:00.000000000Z");
        assert_eq!(body["to"], "2026-03-01T23:00:00.000000000Z");
    }

    #[tokio::test]
    async fn wrong_parameters_are_named() {
        for (query, begins) in [
            ("q=level%3E%3D", "q: "),
            ("from=yesterday", "from: `yesterday` is not a time"),
            ("from=now&to=-1h", "from: "),
            ("limit=0", "limit: `0` is not between 1 and 1000"),
            ("limit=1001", "limit: `1001`"),
            ("qeury=x", "Failed to deserialize query string: qeury: unknown field `qeury`"),
        ] {
            let (status, body, asked, metrics) = ask(Fake::default(), query).await;
            let error = body["error"].as_str().unwrap();
            assert!(status == 400 && asked.is_none() && error.starts_with(begins), "{query}: {status} {error}");
            assert_eq!(metrics.query_refused.get(), 1);
        }
    }

    #[tokio::test]
    async fn an_index_that_is_away_is_said() {
        let (status, body, _, metrics) = ask(Fake { away: true, ..Fake::default() }, "").await;
        assert_eq!((status, &body["error"]), (503, &"no node answers".into()));
        assert_eq!(metrics.query_failed.get(), 1);
    }
}
