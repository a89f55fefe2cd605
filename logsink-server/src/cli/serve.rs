//! `logsink-server [serve]`: settings → running server, until a signal.

use std::{
    env,
    io::{self, IsTerminal},
    path::PathBuf,
    thread,
};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use crate::{
    app::{Addresses, App},
    config::{
        Config, Mode,
        load::{Loaded, load},
        units::Address,
    },
    error::Error,
};

/// The settings that are worth a flag; they win over the environment and the file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    settings: Settings,
    /// Write the addresses that the server listens on to this file once it is ready, as `grpc=…` and `http=…` lines
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

/// What `serve` and `check` have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// The configuration file [default: logsink-server.toml or /etc/logsink/server.toml, where there is one]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the server keeps its files [default: $XDG_DATA_HOME/logsink or ~/.local/share/logsink]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where OTLP over gRPC is taken; port 0 lets the system choose [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDRESS")]
    listen_grpc: Option<Address>,
    /// Where OTLP over HTTP, searches, the page, metrics and health are [default: 127.0.0.1:4318]
    #[arg(long, value_name = "ADDRESS")]
    listen_http: Option<Address>,
    /// Allow listening beyond this machine without TLS
    #[arg(long)]
    insecure: bool,
    /// What the server logs about itself, in the syntax of RUST_LOG [default: $RUST_LOG, else info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Settings {
    /// File, environment and flags put together and checked.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn load(&self) -> Result<Loaded, Error> {
        let Loaded { mut config, file } = load(self.config.as_deref(), env::vars_os())?;
        if let Some(dir) = &self.data_dir {
            config.data_dir = Some(dir.clone());
        }
        config.listen.grpc = self.listen_grpc.or(config.listen.grpc);
        config.listen.http = self.listen_http.or(config.listen.http);
        config.insecure |= self.insecure;
        config.log = self.log.clone().or(config.log);
        config.validate()?;
        self_log(&config)?;
        Ok(Loaded { config, file })
    }
}

/// Runs the server until SIGTERM or SIGINT and stops it in order; a second signal ends the process at once.
///
/// # Errors
/// When a setting cannot be used, a listener or directory cannot be opened, or a step gives up.
pub fn run(args: ServeArgs) -> Result<(), Error> {
    let Loaded { config, file } = args.settings.load()?;
    let filter = self_log(&config)?;
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi).init();
    match &file {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::info!("no configuration file: running with defaults"),
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(workers()).enable_all().thread_name("logsink-server").build();
    let runtime = runtime.map_err(|error| Error::Failed(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(async {
        let (stop, mut stopped) = watch::channel(false);
        on_signals(stop)?;
        let app = tokio::select! {
            app = App::start(&config) => app?,
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
        };
        announce(&config, &app);
        if let Some(path) = &args.ports_file {
            app.write_ports(path)?;
        }
        app.run(stopped).await
    });
    // Searches may still compute on blocking threads; nothing durable hangs on them.
    runtime.shutdown_background();
    result
}

/// One line for people and programs alike, whatever the log's filter is: what listens where, and where the data is.
#[expect(clippy::print_stderr, reason = "it must not depend on the log's filter")]
fn announce(config: &Config, app: &App) {
    let Addresses { grpc, http } = app.addresses();
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let grpc = grpc.map(|grpc| format!("grpc={grpc} ")).unwrap_or_default();
    let data = match (config.mode(), config.data_dir()) {
        (Mode::Standalone, Ok(dir)) => format!(" data={}", dir.display()),
        _ => String::new(),
    };
    eprintln!("logsink-server: listening {grpc}http={http} page={scheme}://{http}/{data}");
}

/// Threads for the server's tasks. One processor is left to librdkafka's threads, which do a quarter of the work, and to what
/// computes ([`crate::compute`] has threads beside these). As many threads as processors take each other's tasks and wake each
/// other for them: with two of each, that is a tenth of ingest's processor time.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1).max(1))
}

/// The filter of the server's own log.
fn self_log(config: &Config) -> Result<EnvFilter, Error> {
    let (field, text) = match &config.log {
        Some(text) => ("log", text.clone()),
        None => {
            ("RUST_LOG", env::var("RUST_LOG").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "info".into()))
        }
    };
    EnvFilter::try_new(&text).map_err(|error| {
        let message =
            format!("`{text}` is not a filter ({error}): write it like `info` or `info,logsink_server=debug`");
        logsink::ConfigError { field: field.into(), message }.into()
    })
}

/// The first signal asks for a graceful stop, the second ends the process.
fn on_signals(stop: watch::Sender<bool>) -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(|error| Error::Failed(format!("cannot listen for signals: {error}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let mut stopping = false;
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            if std::mem::replace(&mut stopping, true) {
                tracing::warn!("{name} again: ending at once; what was acknowledged is durable");
                std::process::exit(1);
            }
            tracing::info!("{name}: stopping; a second signal ends at once");
            // Fails only when the server has stopped already.
            let _ = stop.send(true);
        }
    });
    Ok(())
}
