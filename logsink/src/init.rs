//! `init()` and [`Builder`]: wires the steps, from the settings to the running pipeline, and hands out its [`Guard`].

mod guard;
mod lanes;
mod outside;
mod pipeline;
mod resource;
mod settings;
mod upkeep;

use std::{
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
use outside::Outside;
pub(crate) use pipeline::Pipeline;

#[cfg(feature = "log")]
use crate::log_bridge;
use crate::{
    Config, InitError, LogsinkLayer,
    batch::Envelope,
    config::{Console, Overflow, RulesFrom, Sink, Threshold},
    exit,
    layer::Capture,
    metrics::Metrics,
    panic, queue,
    recorder::Recorder,
    reload::Reload,
    transport::Transport,
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
        let config = settings::read(self.alone, self.changes)?;
        let of_process = at_drop == AtDrop::Flush;
        let service = config.service.clone().unwrap_or_else(resource::service_default);
        let capture = config.capture(self.capture)?;
        let instance = resource::instance_id();

        let console = if of_process { config.console.endpoint(&config) } else { None };
        let console_filter = if console.is_some() { config.console_filter()? } else { None };
        let recording = config.recorder.recording()?;
        let reload = Reload::beside(settings::rules_at_start(&config, &service)?, console_filter, recording);
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
            own: upkeep::repeats(reload.clone()),
            revision: upkeep::revision(reload.clone()),
            release: recorder.clone().map(|recorder| Release::new(recorder, reload.clone(), metrics.clone())),
            tick: upkeep::tick(reload.clone(), of_process),
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

#[cfg(unix)]
fn take_signals() -> Result<(), InitError> {
    crate::signals::take().map_err(InitError::Thread)
}

#[cfg(not(unix))]
fn take_signals() -> Result<(), InitError> {
    let message = "there are no signals on this system: leave it out".to_owned();
    Err(crate::ConfigError { field: "flush_on_signals".to_owned(), message }.into())
}

/// Has the records of the `log` crate come too.
#[cfg(feature = "log")]
fn take_log_records() {
    if log_bridge::install_log_bridge().is_err() {
        crate::voice::say("another logger is set for the `log` crate: its records do not come through logsink");
    }
}
