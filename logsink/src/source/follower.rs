//! What a remote source does with what it receives: puts in force what is good, scope by scope, and keeps it on disk.
//!
//! The document for all services and the one for this service are written by different people. So a refused one changes
//! nothing in its own scope, where the last good one stays, and does not hold back the other. What is in force is then named
//! by the revisions of its two halves, and the status goes on showing the newest revision as refused.

use std::sync::Arc;

use super::{Cache, Documents};
use crate::{
    filter::rules::Document,
    reload::{Refused, Reload},
};

/// What a source has read: for each scope its document, none, or why it is not even text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    /// The source's name for both.
    pub(super) revision: String,
    /// Global, then of the service.
    pub(super) texts: [Result<Option<String>, String>; 2],
}

/// What the scopes are called in errors, in the order of [`Received::texts`].
const SCOPES: [&str; 2] = ["global", "service"];

impl From<Documents> for Received {
    fn from(documents: Documents) -> Self {
        Self { revision: documents.revision, texts: [Ok(documents.global), Ok(documents.service)] }
    }
}

/// The last good document of one scope.
#[derive(Clone, Default)]
struct Good {
    /// Its half of the revision it came with.
    revision: String,
    text: Option<String>,
    document: Option<Document>,
}

/// Feeds what one source receives to one process.
pub(super) struct Follower {
    pub(super) reload: Arc<Reload>,
    cache: Option<Cache>,
    good: [Good; 2],
    /// What came last, so that it is not judged twice.
    last: Option<Received>,
}

impl Follower {
    /// Begins with the last good rules on disk, so that a process starts with its rules while their source is away.
    pub(super) async fn start(reload: Arc<Reload>, cache: Option<Cache>) -> Self {
        let mut follower = Self { reload, cache, good: Default::default(), last: None };
        let cached = match &follower.cache {
            Some(cache) => cache.load().await,
            None => None,
        };
        if let Some(cached) = cached.map(Received::from) {
            // They were good when they were written; what another version wrote may be refused, which the status says.
            let _ = follower.put_in_force(&cached);
            follower.last = Some(cached);
        }
        follower
    }

    /// Judges what is new.
    pub(super) async fn receive(&mut self, received: impl Into<Received>) {
        let received = received.into();
        if self.last.as_ref() == Some(&received) {
            return;
        }
        if let (Some(good), Some(cache)) = (self.put_in_force(&received), &self.cache) {
            cache.store(&good).await;
        }
        self.last = Some(received);
    }

    /// Puts in force what is good of it, and answers with all that then is; `None` when nothing of it is new and good.
    fn put_in_force(&mut self, received: &Received) -> Option<Documents> {
        let new = [0, 1].map(|scope| judge(received, scope));
        let mut errors: Vec<String> = new.iter().filter_map(|half| half.as_ref().err().cloned()).collect();
        // Both may be good and together over a limit: then rather one of them than none.
        for taken in [[true, true], [true, false], [false, true]] {
            let whole = taken == [true, true];
            if (0..2).any(|scope| taken[scope] && new[scope].is_err()) {
                continue;
            }
            let candidate = [0, 1].map(|scope| match &new[scope] {
                Ok(new) if taken[scope] => new,
                _ => &self.good[scope],
            });
            if !whole && (0..2).all(|scope| candidate[scope].revision == self.good[scope].revision) {
                continue;
            }
            let documents: Vec<Document> = candidate.iter().filter_map(|good| good.document.clone()).collect();
            let revision = if whole { received.revision.clone() } else { name(candidate.map(|good| &*good.revision)) };
            let refused = (!whole).then(|| Refused { revision: received.revision.clone(), error: errors.join("; ") });
            match self.reload.put(&documents, &revision, refused) {
                Ok(()) => {
                    self.good = candidate.map(Good::clone);
                    let [global, service] = self.good.each_ref().map(|good| good.text.clone());
                    return Some(Documents { revision, global, service });
                }
                Err(error) if errors.is_empty() => errors.push(error.to_string()),
                // That the rest is over a limit too adds nothing to why the whole is refused.
                Err(_) => {}
            }
        }
        self.reload.refuse(&received.revision, &errors.join("; "));
        None
    }
}

fn judge(received: &Received, scope: usize) -> Result<Good, String> {
    let text = received.texts[scope].clone().map_err(|error| format!("{} rules: {error}", SCOPES[scope]))?;
    let document = match &text {
        Some(text) => Some(Document::parse(text).map_err(|error| format!("{} {error}", SCOPES[scope]))?),
        None => None,
    };
    Ok(Good { revision: half(&received.revision, scope), text, document })
}

/// The half of a revision that names one scope's document; all of it when it has no halves.
fn half(revision: &str, scope: usize) -> String {
    let halves = revision.strip_prefix('g').and_then(|halves| halves.split_once("-s"));
    let half = halves.map(|(global, service)| [global, service][scope]);
    half.unwrap_or(revision).to_owned()
}

/// The name of two documents, in the way of etcd's and the server's revisions.
pub(super) fn name(revisions: [&str; 2]) -> String {
    let [global, service] = revisions.map(|revision| if revision.is_empty() { "0" } else { revision });
    format!("g{global}-s{service}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{filter::rules::RuleSet, reload::Status};

    fn rules(filter: &str) -> Option<String> {
        Some(format!("filter = \"{filter}\""))
    }

    fn drops(name: &str) -> Option<String> {
        Some(format!("[[rule]]\nname = \"{name}\"\nwhen = 'a=1'\nthen = \"drop\"\n"))
    }

    fn broken() -> Option<String> {
        Some("filter = \"info\"\nnonsense".to_owned())
    }

    fn redacting(rules: usize) -> Option<String> {
        let rule = |number| format!("[[rule]]\nname = \"r{number}\"\nthen = {{ redact = [\"a\"] }}\n");
        Some((0..rules).map(rule).collect())
    }

    struct Bench {
        follower: Follower,
        dir: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let follower = Self::follower(&dir).await;
            Self { follower, dir }
        }

        async fn follower(dir: &tempfile::TempDir) -> Follower {
            let reload = Reload::new(RuleSet::compile(&[], "app").unwrap());
            Follower::start(reload, Some(Cache::new(dir.path(), "app"))).await
        }

        async fn receive(&mut self, revision: &str, global: Option<String>, service: Option<String>) {
            self.follower.receive(Documents { revision: revision.to_owned(), global, service }).await;
        }

        /// Of the rules in force: the base filter, and the rules' names.
        fn in_force(&self) -> (String, String) {
            shown(&self.follower.reload)
        }

        fn status(&self) -> (String, Option<(String, String)>) {
            let Status { revision, refused } = self.follower.reload.status();
            (revision, refused.map(|refused| (refused.revision, refused.error)))
        }
    }

    fn shown(reload: &Reload) -> (String, String) {
        let active = reload.active();
        let names: Vec<_> = active.rules.rules().iter().map(|rule| rule.name().to_owned()).collect();
        (active.rules.base().to_string(), names.join(","))
    }

    fn pair(base: &str, names: &str) -> (String, String) {
        (base.to_owned(), names.to_owned())
    }

    #[tokio::test]
    async fn a_refused_document_does_not_hold_back_the_other_scope() {
        let mut bench = Bench::new().await;
        bench.receive("g1-s1", rules("warn"), drops("own")).await;
        assert_eq!((bench.in_force(), bench.status()), (pair("warn", "own"), ("g1-s1".into(), None)));

        bench.receive("g1-s2", rules("warn"), broken()).await;
        assert_eq!(bench.in_force(), pair("warn", "own"));
        let (revision, refused) = bench.status();
        let (name, error) = refused.unwrap();
        assert_eq!((&*revision, &*name), ("g1-s1", "g1-s2"));
        assert!(error.starts_with("service rules line 2, column"), "{error}");

        bench.receive("g3-s2", rules("debug"), broken()).await;
        assert_eq!(bench.in_force(), pair("debug", "own"));
        let (revision, refused) = bench.status();
        assert_eq!((&*revision, &*refused.unwrap().0), ("g3-s1", "g3-s2"));

        // The other way round.
        bench.receive("g4-s5", broken(), drops("newer")).await;
        assert_eq!(bench.in_force(), pair("debug", "newer"));
        let (revision, refused) = bench.status();
        let (name, error) = refused.unwrap();
        assert_eq!((&*revision, &*name), ("g3-s5", "g4-s5"));
        assert!(error.starts_with("global rules line 2, column"), "{error}");

        bench.receive("g6-s6", broken(), broken()).await;
        assert_eq!(bench.in_force(), pair("debug", "newer"));
        let (revision, refused) = bench.status();
        assert_eq!((&*revision, &*refused.unwrap().0), ("g3-s5", "g6-s6"));

        // A document that is removed is gone, whatever stands in the other scope.
        bench.receive("g6-s0", broken(), None).await;
        assert_eq!((bench.in_force(), &*bench.status().0), (pair("debug", ""), "g3-s0"));
        bench.receive("g7-s0", rules("error"), None).await;
        assert_eq!((bench.in_force(), bench.status()), (pair("error", ""), ("g7-s0".into(), None)));
    }

    #[tokio::test]
    async fn the_cache_has_the_last_good_of_each_scope() {
        let mut bench = Bench::new().await;
        bench.receive("g1-s1", rules("warn"), drops("own")).await;
        bench.receive("g3-s2", rules("debug"), broken()).await;
        let restarted = Bench::follower(&bench.dir).await;
        assert_eq!(shown(&restarted.reload), pair("debug", "own"));
        assert_eq!(restarted.reload.status(), Status { revision: "g3-s1".into(), refused: None });
        // The source still has the broken one: that is told, and changes nothing.
        let mut bench = Bench { follower: restarted, dir: bench.dir };
        bench.receive("g3-s2", rules("debug"), broken()).await;
        assert_eq!(bench.in_force(), pair("debug", "own"));
        assert_eq!(bench.status().1.unwrap().0, "g3-s2");
    }

    #[tokio::test]
    async fn a_process_that_starts_with_one_broken_document_has_the_other() {
        let mut bench = Bench::new().await;
        let received = Received { revision: "g1-s2".into(), texts: [Ok(rules("warn")), Err("it is not UTF-8".into())] };
        bench.follower.receive(received).await;
        assert_eq!(bench.in_force(), pair("warn", ""));
        let refused = ("g1-s2".to_owned(), "service rules: it is not UTF-8".to_owned());
        assert_eq!(bench.status(), ("g1-s0".into(), Some(refused)));
    }

    #[tokio::test]
    async fn documents_that_are_over_a_limit_together_are_not_both_refused() {
        let mut bench = Bench::new().await;
        bench.receive("g1-s1", redacting(40), rules("warn")).await;
        bench.receive("g1-s2", redacting(40), redacting(30)).await;
        assert_eq!(bench.in_force().0, "warn");
        assert!(bench.status().1.unwrap().1.contains("more than 64 redact rules"), "{:?}", bench.status());
        bench.receive("g3-s2", redacting(30), redacting(30)).await;
        assert_eq!(bench.status(), ("g3-s2".into(), None));
        assert_eq!(bench.follower.reload.active().rules.rules().len(), 60);
    }
}
