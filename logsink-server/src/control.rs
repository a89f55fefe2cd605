//! The control plane: rules in, status out.
//!
//! A [`RuleStore`] keeps one document for all services and one for each: below the data directory ([`mod@file`], standalone) or
//! in etcd ([`etcd`], cluster). It refuses a document that does not compile, with line and column, and shows whoever watches
//! the last good state: what gets into a file or into etcd by another way and is broken changes nothing. [`push`] hands the
//! documents to subscribed processes, [`http`] lets people read and write them, and [`Control`] knows who runs what.

pub mod etcd;
pub mod file;
pub mod http;
pub mod instances;
#[allow(missing_docs, unreachable_pub, clippy::all)] // Generated.
#[rustfmt::skip]
mod proto;
pub mod push;
pub mod registry;

use std::{collections::BTreeMap, fmt, sync::Arc};

use logsink::{
    filter::rules::{Document, RuleError, RuleSet},
    source::Documents,
};
use tokio::sync::watch;

use self::instances::Instances;
use crate::{metrics::Metrics, queue::BoxFuture};

/// The longest service name, in bytes: it becomes part of a key, a path and a file's name.
pub const SERVICE_BYTES_MAX: usize = 200;

/// Which services a document is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of them.
    Global,
    /// This one.
    Service(String),
}

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// As written.
    pub text: String,
    /// The store's name for this version of it.
    pub revision: String,
}

/// All documents at one moment, each one good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By scope.
    pub documents: BTreeMap<Scope, Stored>,
}

/// Why a document was not taken or not given.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The document is broken.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The request is wrong otherwise.
    #[error("{0}")]
    BadRequest(String),
    /// The store is away: worth trying again.
    #[error("{0}")]
    Unavailable(String),
    /// Someone has to act.
    #[error("{0}")]
    Failed(String),
}

/// Keeps the documents.
pub trait RuleStore: Send + Sync + 'static {
    /// Writes a document that was checked before; `None` removes it. Resolves with its revision, once `watch` shows it.
    fn write<'a>(&'a self, scope: &'a Scope, text: Option<String>) -> BoxFuture<'a, Result<String, ControlError>>;
    /// The good documents, now and after every change. `None` until the store has been read.
    fn watch(&self) -> watch::Receiver<Option<Arc<Snapshot>>>;
}

/// The store, and who subscribes to it.
pub struct Control {
    store: Arc<dyn RuleStore>,
    instances: Instances,
    metrics: Arc<Metrics>,
    closing: watch::Sender<bool>,
}

impl Control {
    /// A control plane over this store.
    pub fn new(store: Arc<dyn RuleStore>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { store, instances: Instances::default(), metrics, closing: watch::Sender::new(false) })
    }

    /// The document of a scope.
    ///
    /// # Errors
    /// When the store has not been read yet.
    pub fn get(&self, scope: &Scope) -> Result<Option<Stored>, ControlError> {
        match &*self.store.watch().borrow() {
            Some(snapshot) => Ok(snapshot.documents.get(scope).cloned()),
            None => Err(ControlError::Unavailable("the rules have not been read yet: their store is away".to_owned())),
        }
    }

    /// Checks and writes a document; `None` removes it. Answers with its revision, empty after a removal.
    ///
    /// # Errors
    /// When it is broken, with line and column, or the store does not take it.
    pub async fn put(&self, scope: &Scope, text: Option<String>) -> Result<String, ControlError> {
        let checked = match &text {
            Some(text) => self.check(scope, text),
            None => scope.check(),
        };
        let written = match checked {
            Ok(()) => self.store.write(scope, text).await,
            Err(error) => Err(error),
        };
        match &written {
            Ok(revision) => {
                self.metrics.rules_stored.inc();
                tracing::info!(%scope, revision, "rules written");
            }
            Err(error) => {
                self.metrics.rules_refused.inc();
                tracing::warn!(%scope, %error, "rules refused");
            }
        }
        written
    }

    /// The document alone, and together with those that it will stand beside.
    fn check(&self, scope: &Scope, text: &str) -> Result<(), ControlError> {
        scope.check()?;
        let mut next = self.store.watch().borrow().as_deref().cloned().unwrap_or_default();
        let document = Document::parse(text)?;
        next.documents.insert(scope.clone(), Stored { text: text.to_owned(), revision: String::new() });
        match scope {
            // What holds for a service without a document of its own holds most of all.
            Scope::Global => drop(RuleSet::compile(&[document], "")?),
            Scope::Service(service) => drop(next.compile(service)?),
        }
        Ok(())
    }

    /// The documents, now and after every change.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.store.watch()
    }

    /// The processes that are subscribed.
    pub fn instances(&self) -> &Instances {
        &self.instances
    }

    /// Ends all subscriptions, which would otherwise keep the server from stopping. The processes come back by themselves.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl Scope {
    /// The scope of a service, none for all.
    pub fn of(service: Option<&str>) -> Self {
        service.map_or(Self::Global, |name| Self::Service(name.to_owned()))
    }

    fn check(&self) -> Result<(), ControlError> {
        let Self::Service(name) = self else { return Ok(()) };
        if name.is_empty() || name.len() > SERVICE_BYTES_MAX || name.chars().any(char::is_control) {
            let message = format!("a service's name has 1 to {SERVICE_BYTES_MAX} bytes and no control characters");
            return Err(ControlError::BadRequest(message));
        }
        Ok(())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Service(name) => write!(f, "service/{name}"),
        }
    }
}

impl Snapshot {
    /// What a process of this service has to apply.
    pub fn for_service(&self, service: &str) -> Documents {
        let text = |scope: Scope| self.documents.get(&scope).map(|stored| stored.text.clone());
        Documents {
            revision: self.revision(service),
            global: text(Scope::Global),
            service: text(Scope::Service(service.to_owned())),
        }
    }

    /// The name of both documents' versions that concern this service, in the same way as the library's etcd source has it.
    pub fn revision(&self, service: &str) -> String {
        let revision = |scope: Scope| self.documents.get(&scope).map_or("0", |stored| stored.revision.as_str());
        format!("g{}-s{}", revision(Scope::Global), revision(Scope::Service(service.to_owned())))
    }

    /// Whether a document concerns this service.
    pub fn concerns(&self, service: &str) -> bool {
        self.documents.contains_key(&Scope::Global) || self.documents.contains_key(&Scope::Service(service.to_owned()))
    }

    fn parse(&self, service: &str) -> Result<Vec<Document>, RuleError> {
        [Scope::Global, Scope::Service(service.to_owned())]
            .iter()
            .filter_map(|scope| self.documents.get(scope))
            .map(|stored| Document::parse(&stored.text))
            .collect()
    }

    fn compile(&self, service: &str) -> Result<RuleSet, RuleError> {
        RuleSet::compile(&self.parse(service)?, service)
    }

    /// The document for all services, read.
    pub(crate) fn global(&self) -> Option<Document> {
        self.documents.get(&Scope::Global).and_then(|stored| Document::parse(&stored.text).ok())
    }

    /// The rules for a service as the server applies them, with the [global](Self::global) document: everything is let through where
    /// no document has a filter.
    pub(crate) fn compile_open(&self, global: Option<&Document>, service: &str) -> Result<RuleSet, RuleError> {
        let open = logsink::filter::rules::BaseFilter::at(logsink::Severity::TRACE);
        let own = self.documents.get(&Scope::Service(service.to_owned()));
        let own = own.map(|stored| Document::parse(&stored.text)).transpose()?;
        let documents: Vec<_> = global.cloned().into_iter().chain(own).collect();
        RuleSet::compile_over(&open, &documents, service)
    }

    /// The next state of a store that someone else may have written to: where a document is broken, the last good one stays.
    /// Warns about each broken version once.
    fn advance(&self, found: BTreeMap<Scope, Stored>, warned: &mut BTreeMap<Scope, String>) -> Self {
        let mut documents = BTreeMap::new();
        for (scope, stored) in found {
            let before = self.documents.get(&scope);
            let same = before.is_some_and(|before| before.text == stored.text);
            match if same { Ok(Document::default()) } else { Document::parse(&stored.text) } {
                Ok(_) => {
                    warned.remove(&scope);
                    documents.insert(scope, stored);
                }
                Err(error) => {
                    if warned.get(&scope) != Some(&stored.revision) {
                        tracing::warn!(%scope, revision = stored.revision, %error, "broken rules ignored, the old ones stay");
                        warned.insert(scope.clone(), stored.revision);
                    }
                    if let Some(before) = before {
                        documents.insert(scope, before.clone());
                    }
                }
            }
        }
        Self { documents }
    }
}

/// A task that ends when its owner goes.
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
