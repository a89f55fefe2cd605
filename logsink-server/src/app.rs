//! The composition: puts the steps together, starts them last to first and stops them first to last.
//!
//! ingest → queue → drain → index → query, and beside them the control plane. [`standalone`] and [`cluster`] make the same
//! [`Steps`] out of different parts; everything from there on is the same for both.
//!
//! Stopping: the doors close first, so that no request is half taken; then the drain finishes what is under way and the
//! index publishes what is open. What does not finish in time is durable in the queue and read again at the next start.

mod calls;
mod cluster;
mod connections;
mod data;
mod limits;
mod listen;
mod register;
mod rules;
mod standalone;
mod task;
mod tls;
mod watched;

use std::{path::Path, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::{sync::watch, time::Instant};

pub use self::listen::Addresses;
use self::{
    calls::Calls,
    connections::Door,
    listen::{Listeners, Speaks, connections_max, serve},
    register::Entrant,
    task::Task,
    tls::Certificates,
    watched::WatchedQueue,
};
use crate::{
    api::{self, health::Health, search::Search},
    config::{Config, Mode, Role, units::Bytes},
    control::{self, Control},
    drain::{Drain, DrainOptions},
    error::Error,
    index::{IndexReader, IndexWriter, elasticsearch::Retention},
    ingest::{self, Ingest},
    metrics::Metrics,
    queue::{DeadLetters, QueueReader, QueueWriter, kafka::KafkaOptions},
    sift::Sift,
    ui,
};

/// How long requests under way may take once the server stops: an export is done within milliseconds, and what holds a
/// connection for longer is a subscription, which its client renews elsewhere.
const DOORS_TIMEOUT: Duration = Duration::from_secs(3);

/// What a mode is made of. A process of a cluster has only what its roles need.
struct Steps {
    /// ingest → queue
    queue_writer: Option<Arc<dyn QueueWriter>>,
    /// queue → drain → index
    drain: Option<DrainParts>,
    /// index → query; without the role query it is only asked how it is
    index: Option<Arc<dyn IndexReader>>,
    /// What the drain puts aside, beside the queue: by it readiness knows how the queue is where nothing is written to it.
    dead: Option<Arc<dyn DeadLetters>>,
    /// What removes old events from an index that does not do so by itself.
    retention: Option<Retention>,
}

/// What the steps of a mode depend on, as people call it.
struct Names {
    queue: &'static str,
    index: &'static str,
}

impl Names {
    fn of(mode: Mode) -> Self {
        match mode {
            Mode::Standalone => Self { queue: "disk log", index: "embedded store" },
            Mode::Cluster => Self { queue: "Kafka", index: "Elasticsearch" },
        }
    }
}

/// What the drain joins.
struct DrainParts {
    reader: Box<dyn QueueReader>,
    writer: Arc<dyn IndexWriter>,
}

/// A server whose steps are ready and whose listeners are open.
pub struct App {
    listeners: Listeners,
    http_door: Door,
    grpc_door: Door,
    http: Router,
    grpc: Calls,
    drain: Option<Drain>,
    retention: Option<Retention>,
    entrant: Option<Entrant>,
    control: Arc<Control>,
    health: Arc<Health>,
    stop_timeout: Duration,
}

/// The queue's Kafka, for commands that go to it as the server would.
///
/// # Errors
/// When no Kafka is configured.
pub fn kafka_options(config: &Config) -> Result<KafkaOptions, Error> {
    let kafka = config.kafka.as_ref();
    let kafka = kafka
        .ok_or_else(|| Error::Usage("this configuration has no [kafka]: name the server's with --config".into()))?;
    Ok(cluster::kafka_options(kafka, config))
}

/// Reads the TLS files as a start would, and opens nothing.
///
/// # Errors
/// When one cannot be used, by its setting.
pub fn check_tls(config: &Config) -> Result<(), Error> {
    install_crypto();
    config.tls.as_ref().map_or(Ok(()), |tls| Certificates::read(tls).map(drop))
}

/// One provider of cryptography for every listener and client; a second call changes nothing.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

// === impl App ===

impl App {
    /// Opens the listeners, then readies the steps. Connections are taken from [`App::run`] on.
    ///
    /// # Errors
    /// When a listener, a file or a server cannot be used; nothing keeps running then.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        install_crypto();
        let listeners = Listeners::open(config).await?;
        let metrics = Metrics::new();
        let steps = match config.mode() {
            Mode::Standalone => standalone::compose(config, &metrics)?,
            Mode::Cluster => cluster::compose(config, &metrics)?,
        };
        let control = Control::new(rules::store(config)?, metrics.clone());
        Self::join(config, listeners, steps, control, metrics)
    }

    /// Joins the steps, last to first.
    fn join(
        config: &Config,
        listeners: Listeners,
        steps: Steps,
        control: Arc<Control>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let mut health = Health::default();
        let names = Names::of(config.mode());
        // rules: what is in force stays while etcd is away, so that it is a warning; before they have been read, who does nothing
        // without them is not ready
        if let Some(etcd) = &config.etcd {
            let (endpoints, rules) = (Arc::new(etcd.endpoints.clone()), control.watch());
            let only_drains = !config.has(Role::Ingest) && !config.has(Role::Query);
            let needs_them = only_drains || config.has(Role::Ingest) && config.ingest.apply_rules;
            health.add("rules", "etcd", move || {
                let (endpoints, are_read) = (endpoints.clone(), rules.borrow().is_some());
                async move {
                    let trouble = control::etcd::answers(&endpoints).await.err();
                    let trouble = match (trouble, are_read) {
                        (None, true) => return Ok(Vec::new()),
                        (Some(trouble), true) => format!("{trouble}; what it said last stays in force"),
                        (None, false) => {
                            "the rules have not been read yet, and nothing is indexed without them".to_owned()
                        }
                        (Some(trouble), false) => {
                            format!("{trouble}; nothing is indexed before the rules have been read")
                        }
                    };
                    if needs_them && !are_read { Err(trouble) } else { Ok(vec![trouble]) }
                }
            });
        }
        // query
        if let Some(index) = steps.index.clone() {
            health.add("index", names.index, move || {
                let index = index.clone();
                async move {
                    index.ready().await.map_err(|error| error.to_string())?;
                    Ok(index.warnings())
                }
            });
        }
        let index = steps.index.filter(|_| config.has(Role::Query));
        let search = index.map(|index| Search::new(index, metrics.clone()));
        // queue → drain → index
        let drain = steps.drain.map(|DrainParts { reader, writer }| {
            let sift = Sift::new(control.watch(), metrics.clone());
            Drain::new(
                reader,
                Arc::new(move |message| sift.sift(message)),
                writer,
                metrics.clone(),
                drain_options(config),
            )
        });
        if let Some(dead) = steps.dead.filter(|_| steps.queue_writer.is_none()) {
            health.add("queue", names.queue, move || {
                let dead = dead.clone();
                async move { dead.ready().await.map(|()| Vec::new()).map_err(|error| error.to_string()) }
            });
        }
        // ingest → queue
        let ingest = steps.queue_writer.map(|writer| {
            let writer = Arc::new(WatchedQueue::new(writer));
            let watched = writer.clone();
            health.add("queue", names.queue, move || {
                let queue = watched.clone();
                async move { queue.ready().await.map(|()| Vec::new()).map_err(|error| error.to_string()) }
            });
            let rules = config.ingest.apply_rules.then(|| Sift::new(control.watch(), metrics.clone()));
            Ingest::new(writer, rules, ingest_options(config), metrics.clone())
        });
        // Doors.
        let health = Arc::new(health);
        let connections_max = connections_max(config);
        let [http_door, grpc_door] = ["http", "grpc"].map(|name| Door::new(name, connections_max, &metrics));
        let mut http = api::router(search, health.clone(), metrics)
            .merge(control::http::router(control.clone()))
            .merge(ui::router());
        let grpc = Calls { ingest: ingest.clone(), rules: control::push::service(control.clone()) };
        let mut entrant = None;
        if let Some(ingest) = ingest {
            let asked = ingest.clone();
            entrant = Entrant::new(config, listeners.addresses, Arc::new(move || asked.load_percent()));
            http = http.merge(ingest::http::router(ingest));
        }
        let (retention, stop_timeout) = (steps.retention, config.stop_timeout());
        Ok(Self {
            listeners,
            http_door,
            grpc_door,
            http,
            grpc,
            drain,
            retention,
            entrant,
            control,
            health,
            stop_timeout,
        })
    }

    /// Where the server listens, with the real ports.
    pub fn addresses(&self) -> Addresses {
        self.listeners.addresses
    }

    /// Writes `grpc=ADDRESS` and `http=ADDRESS` lines for programs that started the server with port 0.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_ports(&self, path: &Path) -> Result<(), Error> {
        self.listeners.addresses.write(path)
    }

    /// Serves until `stop` becomes true or a step ends by itself, then stops the steps, first to last.
    ///
    /// # Errors
    /// When a step gave up or could not stop in time. Acknowledged events are durable in any case.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
        let (close_doors, doors_closing) = watch::channel(false);
        let (stop_drain, drain_stopping) = watch::channel(false);

        // Last to first.
        let (stop_retention, retention_stopping) = watch::channel(false);
        let retention = self.retention.map(|retention| {
            Task::spawn("retention", async {
                retention.run(retention_stopping).await;
                Ok(())
            })
        });
        let mut drain = self.drain.map(|drain| {
            let rules = self.control.watch();
            Task::spawn("drain", async {
                let stopping = rules_read(rules, drain_stopping).await;
                drain.run(stopping).await.map_err(|error| Error::step("drain", error))
            })
        });
        let Listeners { grpc, http, certificates, .. } = self.listeners;
        let (http_tls, grpc_tls) = certificates.map(|both| (both.http, both.grpc)).unzip();
        // Made ready once, rather than for every connection.
        let router = TowerToHyperService::new(self.http.with_state(()));
        let http = serve(http, Speaks::Http, http_tls, self.http_door, router, doors_closing.clone());
        let mut http = Task::spawn("http", http);
        let (calls, door) = (self.grpc, self.grpc_door);
        let grpc = grpc.map(|listener| serve(listener, Speaks::Grpc, grpc_tls, door, calls, doors_closing));
        let mut grpc = grpc.map(|served| Task::spawn("grpc", served));
        let registration = self.entrant.map(Entrant::enter);

        let ended = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            error = early_end(&mut drain) => Err(error),
            error = http.early_end() => Err(error),
            error = early_end(&mut grpc) => Err(error),
        };

        // First to last.
        let deadline = Instant::now() + self.stop_timeout;
        self.health.stop();
        if let Some(registration) = registration {
            registration.end().await;
        }
        self.control.close();
        close_doors.send_replace(true);
        for door in grpc.into_iter().chain([http]) {
            // A client that holds on to its connection is no failure of the server.
            if let Err(error) = door.end_by(deadline.min(Instant::now() + DOORS_TIMEOUT)).await {
                tracing::info!(%error, "closed connections that were still open");
            }
        }
        stop_drain.send_replace(true);
        let drained = match drain {
            Some(drain) => drain.end_by(deadline).await,
            None => Ok(()),
        };
        stop_retention.send_replace(true);
        if let Some(retention) = retention {
            // What it does not finish, another process does, or the next start.
            let _ = retention.end_by(deadline).await;
        }
        ended.and(drained)
    }
}

/// Waits until the rules have been read, or the server stops: what they drop or redact must not be indexed because etcd was away
/// when the server started. The queue keeps the events meanwhile.
async fn rules_read<T>(
    mut rules: watch::Receiver<Option<T>>,
    mut stopping: watch::Receiver<bool>,
) -> watch::Receiver<bool> {
    if rules.borrow().is_none() {
        tracing::info!("the drain waits until the rules have been read");
        // An end of either is the end of the server.
        tokio::select! {
            _ = rules.wait_for(Option::is_some) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }
    stopping
}

async fn early_end(task: &mut Option<Task>) -> Error {
    match task {
        Some(task) => task.early_end().await,
        None => std::future::pending().await,
    }
}

fn ingest_options(config: &Config) -> ingest::Options {
    ingest::Options {
        request_bytes_max: config.ingest.request_bytes_max.as_usize(),
        pending_bytes_max: config.ingest.pending_bytes_max.as_usize(),
        allowances: limits::allowances(&config.ingest.limits),
        ..ingest::Options::default()
    }
}

fn drain_options(config: &Config) -> DrainOptions {
    let defaults = DrainOptions::default();
    DrainOptions {
        pending_bytes_max: match config.mode() {
            Mode::Cluster => Bytes(config.drain.read_bytes_max()).as_usize(),
            Mode::Standalone => config.drain.pending_bytes_max.as_usize(),
        },
        writes_max: config.drain.concurrency,
        // The other half is for the doors before, and for the last commit and the index's open block after.
        grace: defaults.grace.min(config.stop_timeout() / 2),
        ..defaults
    }
}

#[cfg(test)]
mod tests;
