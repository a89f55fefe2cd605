//! `init()` and [`Builder`]: wires the steps, from the settings to the running pipeline, and hands out its [`Guard`].

mod guard;
mod lanes;
mod pipeline;
mod resource;

#[cfg(any(feature = "etcd", feature = "grpc"))]
use std::path::PathBuf;
use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tracing_core::{LevelFilter, Subscriber};
use tracing_subscriber::{Layer, layer::SubscriberExt, registry::LookupSpan};

use guard::AtDrop;
pub use guard::Guard;
pub(crate) use pipeline::Pipeline;

#[cfg(feature = "log")]
use crate::log_bridge;
use crate::{
    Config, ConfigError, InitError, LogsinkLayer,
    batch::Envelope,
    clock,
    config::{Console, Overflow, Rules, RulesFrom, Sink, Threshold},
    encode::repeated::push_repeated,
    exit,
    filter::rules::{Document, RuleSet},
    layer::Capture,
    metrics::Metrics,
    panic, queue,
    recorder::Recorder,
    reload::{self, Reload},
    source::{self, RuleSource},
    transport::{self, Transport},
    voice::diagnostics,
    worker::{self, Release, Worker},
};

/// Starts the library with the settings of `logsink.toml` and the environment, and makes it the process's `tracing`
/// subscriber (and `log` logger, with the feature `log`).
///
/// Keep the guard: dropping it sends what is left, waiting five seconds at most. Events are taken until the process ends,
/// where the last of them are sent: when `main` returns and at `std::process::exit` alike (see [`exit`](crate::exit())).
///
/// ```no_run
/// let _logsink = logsink::init()?;
/// tracing::info!(user_id = 42, "request finished");
/// # Ok::<(), logsink::InitError>(())
/// ```
///
/// # Errors
/// When a setting cannot be used, another subscriber is already set, or a thread cannot be started. A sink that cannot be
/// reached is no error: events wait for it.
pub fn init() -> Result<Guard, InitError> {
    builder().init()
}

/// A layer to add to a subscriber of your own, with the settings of `logsink.toml` and the environment.
///
/// ```no_run
/// use tracing_subscriber::{Layer, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};
///
/// let (layer, _logsink) = logsink::layer()?;
/// let terminal = fmt::layer().with_filter(LevelFilter::WARN);
/// tracing_subscriber::registry().with(terminal).with(layer).init();
/// # Ok::<(), logsink::InitError>(())
/// ```
///
/// The rules decide what this layer gets, and the other layers' own filters what they get: neither takes anything from the
/// other. A filter added to the subscriber as a layer (`registry().with(EnvFilter::…)`) is for all of them: what it does not
/// want, no rule can bring back.
///
/// Records of the `log` crate come where something brings them to `tracing`, as `tracing_subscriber`'s `init()` does with its
/// feature `tracing-log`; that sets their level once, so a rule that later wants more of them needs a
/// `log::set_max_level`. [`init`] sees to both.
///
/// # Errors
/// As [`init`], except that it sets no subscriber.
pub fn layer<S>() -> Result<(impl Layer<S> + Send + Sync + 'static, Guard), InitError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    builder().layer()
}

/// Settings in code, over those of the file and the environment.
pub fn builder() -> Builder {
    Builder::default()
}

/// Settings in code, over those of the file and the environment.
///
/// ```no_run
/// let _logsink = logsink::builder().service("checkout").endpoint("http://logs.internal:4317").init()?;
/// # Ok::<(), logsink::InitError>(())
/// ```
#[derive(Default)]
#[must_use = "nothing starts before `init` or `layer`"]
pub struct Builder {
    alone: bool,
    changes: Vec<Change>,
    transport: Option<Arc<dyn Transport>>,
    /// In place of the settings.
    capture: Option<Capture>,
}

/// A call of the builder, applied after the file and the environment.
type Change = Box<dyn FnOnce(&mut Config)>;

/// The directory of the cache below the user's.
#[cfg(any(feature = "etcd", feature = "grpc"))]
const CACHE_DIR: &str = "logsink";

impl Builder {
    /// `service.name`.
    pub fn service(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.configure(|config| config.service = Some(name))
    }

    /// Where events go: `http://host:4317`, `kafka://b1:9092,b2:9092/topic`, `stderr:` and what else [`Endpoint`] lists.
    ///
    /// [`Endpoint`]: crate::config::Endpoint
    pub fn endpoint(self, url: impl Into<String>) -> Self {
        let url = url.into();
        self.configure(|config| config.endpoint = Some(url))
    }

    /// The base filter, in `EnvFilter` directive syntax without spans: `info,hyper=warn`.
    pub fn filter(self, directives: impl Into<String>) -> Self {
        let directives = directives.into();
        self.configure(|config| config.filter = Some(directives))
    }

    /// Switches the flight recorder on: events that the rules do not let pass and this filter does are kept in memory, and sent
    /// when an error happens in the same span tree. In `EnvFilter` directive syntax without spans: `debug,hyper=info`.
    pub fn recorder(self, directives: impl Into<String>) -> Self {
        let directives = directives.into();
        self.configure(|config| config.recorder.filter = Some(directives))
    }

    /// Where rules come from: `file:/path`, `etcd://host:2379`, `push` or `none`.
    pub fn rules(self, source: impl Into<String>) -> Self {
        let source = RulesFrom::Text(source.into());
        self.configure(|config| config.rules = Some(source))
    }

    /// What happens to events when the memory for those that wait is spent.
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.configure(move |config| config.queue.overflow = overflow)
    }

    /// What `init` writes to stderr for people.
    pub fn console(self, console: Console) -> Self {
        self.configure(move |config| config.console = console)
    }

    /// A further sink, beside the endpoint.
    pub fn sink(self, sink: Sink) -> Self {
        self.configure(|config| config.sink.push(sink))
    }

    /// A further resource attribute.
    pub fn resource(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.configure(|config| drop(config.resource.insert(key, value)))
    }

    /// gRPC metadata sent with every batch.
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), crate::config::Secret(value.into()));
        self.configure(|config| drop(config.headers.insert(name, value)))
    }

    /// How long the guard waits for the last events when it is dropped.
    pub fn flush_timeout(self, timeout: Duration) -> Self {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.configure(move |config| config.send.flush_timeout_ms = millis)
    }

    /// Has SIGTERM and SIGINT flush before they end the process, which then still counts as killed by that signal. A second
    /// one ends it at once. Unix.
    ///
    /// Only where the application does not handle or ignore the signal at this time. A handler that it sets later takes the place
    /// of this one; where it passes the signal on (tokio's does), events are flushed and the application ends the process itself.
    pub fn flush_on_signals(self) -> Self {
        self.configure(|config| config.flush_on_signals = true)
    }

    /// Has panics become events, see [`Config::crash_report`](Config#structfield.crash_report).
    pub fn crash_report(self) -> Self {
        self.configure(|config| config.crash_report = true)
    }

    /// Any other setting.
    pub fn configure(mut self, change: impl FnOnce(&mut Config) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// What is sent beside an event's own fields, in place of what the settings below `capture` say.
    pub fn capture(mut self, capture: Capture) -> Self {
        self.capture = Some(capture);
        self
    }

    /// Fields whose values are never sent, beside those that the file and the environment name: `["password", "*secret*"]`.
    pub fn redact(self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let fields: Vec<String> = fields.into_iter().map(Into::into).collect();
        self.configure(|config| config.redact.extend(fields))
    }

    /// Sends through this transport; `endpoint` then only gives it a name, and no rules are pushed over it.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Reads neither a file nor the environment, and has no console unless [`Builder::console`] asks for one.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts the library and makes it the process's subscriber. See [`init`].
    ///
    /// # Errors
    /// See [`init`].
    pub fn init(self) -> Result<Guard, InitError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(InitError::AlreadyInitialized);
        }
        // A failed attempt leaves nothing behind: another one, with better settings, may follow.
        let started = (|| {
            let (layer, guard, panics) = self.start(AtDrop::Flush)?;
            let subscriber = tracing_subscriber::registry().with(layer.sole());
            if tracing::subscriber::set_global_default(subscriber).is_err() {
                guard.abandon();
                return Err(InitError::AlreadyInitialized);
            }
            exit::keep(guard.pipeline());
            panics.hook(guard.pipeline());
            #[cfg(feature = "log")]
            take_log_records();
            Ok(guard)
        })();
        if started.is_err() {
            STARTED.store(false, Ordering::SeqCst);
        }
        started
    }

    /// Starts the library and gives its layer. See [`layer`].
    ///
    /// # Errors
    /// See [`layer`].
    pub fn layer<S>(self) -> Result<(impl Layer<S> + Send + Sync + 'static, Guard), InitError>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
    {
        let (layer, guard, panics) = self.start(AtDrop::End)?;
        panics.hook(guard.pipeline());
        Ok((layer.filtered(), guard))
    }

    fn start(self, at_drop: AtDrop) -> Result<(LogsinkLayer, Guard, Panics), InitError> {
        let config = config(self.alone, self.changes)?;
        let of_process = at_drop == AtDrop::Flush;
        let service = config.service.clone().unwrap_or_else(resource::service_default);
        let capture = config.capture(self.capture)?;
        let instance = resource::instance_id();

        let console = if of_process { config.console.endpoint(&config) } else { None };
        let console_filter = if console.is_some() { config.console_filter()? } else { None };
        let recording = config.recorder.recording()?;
        let reload = Reload::beside(rules_at_start(&config, &service)?, console_filter, recording);
        let metrics = Arc::new(Metrics::new());
        let (producer, consumer) = queue::channel(config.queue.channel());
        let recorder = reload.recording().map(|_| {
            let crate::config::Recorder { ring_bytes, bytes_max, .. } = config.recorder;
            Recorder::new(ring_bytes, bytes_max, consumer.waker())
        });

        // From the end of the flow to its beginning.
        let envelope = Arc::new(Envelope::new(&resource::attributes(&config, &service, &instance)));
        let planned = lanes::plan(&config, console, &service, &envelope, &instance, &metrics)?;
        let (sinks, lanes) = planned.into_iter().map(|sink| ((sink.config, sink.metrics), sink.settings)).unzip();
        let settings = worker::Settings {
            lanes,
            has_local: console.is_some() && config.console_filter.is_some(),
            own: repeats(reload.clone()),
            revision: revision(reload.clone()),
            release: recorder.clone().map(|recorder| Release::new(recorder, reload.clone(), metrics.clone())),
            tick: tick(reload.clone(), of_process),
        };
        let flush_timeout = Duration::from_millis(config.send.flush_timeout_ms);
        let panics = Panics {
            are_hooked: config.panic_hook.unwrap_or(of_process) || config.crash_report,
            are_reported: config.crash_report,
        };
        let flush_on_signals = config.flush_on_signals;
        // Before there are threads that it is about.
        diagnostics::set(config.diagnostics.map_or(LevelFilter::OFF, Threshold::filter));
        let outside = Outside {
            sinks,
            config,
            service,
            instance: instance.clone(),
            transport: self.transport,
            reload: reload.clone(),
        };
        let worker = Worker::start(consumer, settings, move || outside.build())?;
        let mut layer = LogsinkLayer::new(producer.clone(), reload.clone(), metrics.clone(), capture);
        if let Some(recorder) = recorder {
            layer = layer.recording(recorder);
        }
        let pipeline = Arc::new(Pipeline::new(worker, producer, metrics, reload, instance, flush_timeout));
        exit::register(&pipeline);
        if flush_on_signals {
            take_signals()?;
        }
        Ok((layer, Guard::new(pipeline, at_drop), panics))
    }
}

/// What the settings say about panics.
struct Panics {
    are_hooked: bool,
    are_reported: bool,
}

impl Panics {
    /// To be done when nothing can fail any more: a hook stays.
    fn hook(&self, pipeline: &Pipeline) {
        if self.are_hooked {
            panic::install(pipeline, self.are_reported);
        }
    }
}

/// Defaults, then the file, the environment and the builder's calls.
fn config(alone: bool, changes: Vec<Change>) -> Result<Config, ConfigError> {
    let variable = |name: &str| env::var(name).ok();
    let mut config = Config::default();
    if alone {
        config.console = Console::Off;
    } else {
        // Named by somebody, the file must be there; the one in the working directory may.
        let named = variable("LOGSINK_CONFIG").filter(|path| !path.is_empty());
        let path = named.as_deref().unwrap_or("logsink.toml");
        match fs::read_to_string(path) {
            Ok(text) => config = Config::from_toml(&text, path)?,
            Err(_) if named.is_none() && !Path::new(path).exists() => {}
            Err(error) => {
                let field = if named.is_some() { "LOGSINK_CONFIG" } else { "logsink.toml" };
                return Err(ConfigError { field: field.to_owned(), message: format!("cannot read {path}: {error}") });
            }
        }
        config.apply_env(&variable)?;
    }
    changes.into_iter().for_each(|change| change(&mut config));
    config.validate()?;
    Ok(config)
}

/// The base filter alone; a source brings the rest.
fn rules_at_start(config: &Config, service: &str) -> Result<RuleSet, ConfigError> {
    let documents = match &config.filter {
        Some(filter) => vec![document_of(filter)?],
        None => Vec::new(),
    };
    RuleSet::compile(&documents, service).map_err(filter_error)
}

fn document_of(filter: &str) -> Result<Document, ConfigError> {
    Document::parse(&format!("filter = {}", toml::Value::from(filter))).map_err(filter_error)
}

fn filter_error(error: crate::filter::rules::RuleError) -> ConfigError {
    // Line and column are of the document around the filter: nothing that the user has written.
    let hint = error.hint.map(|hint| format!(": {hint}")).unwrap_or_default();
    ConfigError { field: "filter".to_owned(), message: format!("{}{hint}", error.message) }
}

/// The worker comes by far more often than windows end, and asking looks at every key of every rule.
const REPEATS_EVERY_NS: u64 = 100_000_000;

/// What `dedup` rules have dropped and no event tells of, as records.
fn repeats(reload: Arc<Reload>) -> worker::Own {
    let mut asked_ns = 0;
    Box::new(move |last, records| {
        let now_ns = reload::unix_now_ns();
        // Also when the clock was set back.
        if last || now_ns.abs_diff(asked_ns) >= REPEATS_EVERY_NS {
            asked_ns = now_ns;
            let active = reload.active();
            let due = active.rules.due(if last { u64::MAX } else { now_ns });
            due.for_each(|repeated| push_repeated(records, now_ns, &repeated));
        }
    })
}

/// The revision in force, when it is from a source.
fn revision(reload: Arc<Reload>) -> Box<dyn Fn() -> Option<String> + Send> {
    Box::new(move || Some(reload.active().revision.clone()).filter(|revision| !revision.is_empty()))
}

/// What must happen now and then: the clock is kept right, rules expire, and the level of `log` follows the rules.
fn tick(reload: Arc<Reload>, sole: bool) -> Box<dyn FnMut() + Send> {
    Box::new(move || {
        clock::keep();
        reload.expire(reload::unix_now_ns());
        #[cfg(feature = "log")]
        if sole {
            log_bridge::follow_level();
        }
        #[cfg(not(feature = "log"))]
        let _ = sole;
    })
}

#[cfg(unix)]
fn take_signals() -> Result<(), InitError> {
    crate::signals::take().map_err(InitError::Thread)
}

#[cfg(not(unix))]
fn take_signals() -> Result<(), InitError> {
    let message = "there are no signals on this system: leave it out".to_owned();
    Err(ConfigError { field: "flush_on_signals".to_owned(), message }.into())
}

/// Has the records of the `log` crate come too.
#[cfg(feature = "log")]
fn take_log_records() {
    if log_bridge::install_log_bridge().is_err() {
        crate::voice::say("another logger is set for the `log` crate: its records do not come through logsink");
    }
}

/// What talks to the outside, made within the worker's runtime.
#[allow(dead_code, reason = "which clients need what depends on the cargo features")]
struct Outside {
    /// The main sink's first.
    sinks: Vec<(Config, Arc<Metrics>)>,
    config: Config,
    service: String,
    instance: String,
    /// In the main sink's stead.
    transport: Option<Arc<dyn Transport>>,
    reload: Arc<Reload>,
}

impl Outside {
    fn build(self) -> Result<worker::Outside, InitError> {
        let rules = self.config.rule_source()?;
        let mut given = self.transport.clone();
        let mut transports = Vec::new();
        #[cfg(feature = "grpc")]
        let mut channel = None;
        for (index, (config, metrics)) in self.sinks.iter().enumerate() {
            #[cfg(not(feature = "grpc"))]
            let _ = index;
            transports.push(match given.take() {
                Some(transport) => transport,
                None => {
                    let connected = transport::connect(&config.endpoint()?, config, metrics)?;
                    #[cfg(feature = "grpc")]
                    if index == 0 {
                        channel = connected.channel;
                    }
                    connected.transport
                }
            });
        }
        let source: Option<Box<dyn RuleSource>> = match rules {
            Rules::None => None,
            Rules::File(path) => Some(Box::new(source::file::FileSource::new(path))),
            #[cfg(feature = "etcd")]
            Rules::Etcd(urls) => {
                let cache_dir = self.cache_dir();
                Some(Box::new(source::etcd::EtcdSource::new(urls, self.service.clone(), cache_dir)))
            }
            #[cfg(not(feature = "etcd"))]
            Rules::Etcd(_) => unreachable!("`rule_source` has refused it"),
            #[cfg(feature = "grpc")]
            Rules::Push => channel.map(|channel| {
                let cache_dir = self.cache_dir();
                let (service, instance) = (self.service.clone(), self.instance.clone());
                Box::new(source::push::PushSource::new(channel, service, instance, cache_dir)) as Box<dyn RuleSource>
            }),
            #[cfg(not(feature = "grpc"))]
            Rules::Push => None,
        };
        Ok(worker::Outside { transports, rules: source.map(|source| (source, self.reload)) })
    }

    /// Where the last good rules are kept; `None` when the process has no home.
    #[cfg(any(feature = "etcd", feature = "grpc"))]
    fn cache_dir(&self) -> Option<PathBuf> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.config.cache_dir.clone().or_else(|| {
            variable("XDG_CACHE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".cache")))
                .map(|dir| dir.join(CACHE_DIR))
        })
    }
}
