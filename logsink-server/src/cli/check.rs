//! `logsink-server check`: reads the configuration as `serve` would and says what would run. Reads the certificates, opens no port and asks no server.

use std::io::{self, Write};

use clap::Args;

use super::serve::Settings;
use crate::{
    app,
    config::{Config, Mode, Role, load::Loaded},
    error::Error,
};

/// The same flags as `serve`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    settings: Settings,
}

/// Prints what would run.
///
/// # Errors
/// The first setting that cannot be used.
pub fn run(args: &CheckArgs) -> Result<(), Error> {
    let Loaded { config, file } = args.settings.load()?;
    app::check_tls(&config)?;
    let mut out = io::stdout().lock();
    let file = file.map_or("defaults (no file)".into(), |file| file.display().to_string());
    let shown = writeln!(out, "configuration is good: {file}").and_then(|()| describe(&config, &mut out));
    // Whoever closed the pipe has read enough.
    shown
        .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
        .map_err(|source| Error::File { action: "write to", path: "standard output".into(), source })
}

fn describe(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let roles = [(Role::Ingest, "ingest"), (Role::Drain, "drain"), (Role::Query, "query")];
    let roles = roles.iter().filter(|(role, _)| config.has(*role)).map(|(_, name)| *name).collect::<Vec<_>>();
    match config.mode() {
        Mode::Standalone => writeln!(out, "mode:          standalone")?,
        Mode::Cluster => writeln!(out, "mode:          cluster, as {}", roles.join(", "))?,
    }
    if config.has(Role::Ingest) {
        writeln!(out, "OTLP/gRPC:     {scheme}://{}", config.listen_grpc())?;
    }
    writeln!(out, "OTLP/HTTP, UI: {scheme}://{}", config.listen_http())?;
    match config.data_dir() {
        Ok(dir) => writeln!(out, "data:          {}", dir.display())?,
        Err(error) => writeln!(out, "data:          {error}")?,
    }
    if let Some(kafka) = &config.kafka {
        writeln!(out, "queue:         Kafka {}, topic {}", kafka.brokers.join(","), kafka.topic)?;
    }
    match &config.elasticsearch {
        Some(elastic) => {
            writeln!(out, "index:         {}, data stream {}", elastic.urls.join(","), elastic.data_stream)?
        }
        None if config.mode() == Mode::Standalone => {
            writeln!(out, "retention:     {} or {}", config.retention.age, config.retention.bytes)?;
        }
        None => {}
    }
    if let Some(etcd) = &config.etcd {
        writeln!(out, "rules:         etcd {}", etcd.endpoints.join(","))?;
    }
    Ok(())
}
