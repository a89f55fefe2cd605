//! `logsink-server servers`: which servers take events in, as etcd has it.

use std::io::{self, Write};

use clap::Args;

use super::{clean, serve::Settings};
use crate::{control::registry, error::Error};

/// Which etcd.
#[derive(Debug, Args)]
pub struct ServersArgs {
    #[command(flatten)]
    settings: Settings,
}

/// Prints one line a server.
///
/// # Errors
/// When no etcd is configured, or it does not answer.
pub async fn run(args: ServersArgs) -> Result<(), Error> {
    let config = args.settings.load()?.config;
    let etcd = config
        .etcd
        .ok_or_else(|| Error::Usage("this configuration has no [etcd]: name the servers' with --config".into()))?;
    let servers = registry::list(&etcd.endpoints, etcd.fleet.as_deref().unwrap_or_default()).await?;
    let mut out = io::stdout().lock();
    let mut line = |text: String| writeln!(out, "{}", clean(&text));
    let written = line(format!("{:<18} {:<28} {:<28} {:>4} {:<8} SINCE", "ID", "GRPC", "HTTP", "LOAD", "VERSION"))
        .and_then(|()| {
            servers.into_iter().try_for_each(|(id, server)| match server {
                Ok(server) => line(format!(
                    "{id:<18} {:<28} {:<28} {:>3}% {:<8} {}",
                    server.grpc, server.http, server.load_percent, server.version, server.since
                )),
                Err(error) => line(format!("{id:<18} cannot be used: {error}")),
            })
        });
    match written {
        // Whoever reads has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Failed(format!("cannot write: {error}"))),
        _ => Ok(()),
    }
}
