//! The command line: one file a command below `cli/`.
//!
//! Exit codes: 0 done; 1 it failed; 2 the arguments or the configuration are wrong.

pub mod check;
pub mod client;
pub mod dead_letters;
pub mod query;
pub mod rules;
pub mod serve;
pub mod servers;

use std::{fmt::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::error::Error;

/// Takes in OTLP logs and answers searches.
///
/// Without arguments it runs alone: OTLP over gRPC on 127.0.0.1:4317, OTLP over HTTP and the search page on
/// http://127.0.0.1:4318, events in ~/.local/share/logsink. With a configuration file it runs on Kafka, Elasticsearch and
/// etcd.
#[derive(Debug, Parser)]
#[command(name = "logsink-server", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

const EXAMPLES: &str = r#"Examples:
  logsink-server                                    run alone, on this machine only
  logsink-server --config /etc/logsink/server.toml  run as the file says
  logsink-server check --config server.toml         is the file right?
  logsink-server query 'level>=warn service=checkout "connection refused"' --from -1h
  logsink-server dead-letters list                  what did no index take, and why?
  logsink-server rules put rules.toml               change the rules of every connected process

  curl http://127.0.0.1:4318/v1/logs -H 'content-type: application/json' -d '
    {"resourceLogs": [{"scopeLogs": [{"logRecords": [
      {"severityNumber": 9, "body": {"stringValue": "hello"}}]}]}]}'

Every setting of the file can be given as an environment variable: [listen] http is LOGSINK_SERVER_LISTEN_HTTP."#;

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server; what happens without a command, too
    Serve(serve::ServeArgs),
    /// Search events and print them, newest first
    Query(query::QueryArgs),
    /// Read, check and change the rules
    Rules(rules::RulesArgs),
    /// Look at the records that no index took, send them again, remove them
    DeadLetters(dead_letters::DeadLettersArgs),
    /// List the servers that take events in, as they stand in etcd
    Servers(servers::ServersArgs),
    /// Check the configuration and say what would run
    Check(check::CheckArgs),
}

/// Reads the process's arguments, does what they say and answers with the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Query(args) => block_on(query::run(args)),
        Command::Rules(args) => {
            block_on(async { rules::run(args).await.map_err(|error| Error::Failed(format!("{error:#}"))) })
        }
        Command::DeadLetters(args) => dead_letters::run(args),
        Command::Servers(args) => block_on(servers::run(args)),
        Command::Check(args) => check::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            error.exit_code()
        }
    }
}

/// Commands talk to one server and need no more than one thread.
fn block_on(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::Failed(format!("cannot start the runtime: {error}")))?.block_on(command)
}

/// Text from elsewhere as a terminal may have it: what [`steers`] is written as escapes.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// One JSON object and the end of its line. JSON lets pass what steers a terminal all the same; written as escapes it is the same to a
/// program.
fn json_line(object: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(object)?;
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // All of these are below U+10000, and stand in strings only. Writing to a string does not fail.
        if steers(c) { _ = write!(line, "\\u{:04x}", u32::from(c)) } else { line.push(c) }
    }
    line.push('\n');
    Ok(line)
}

/// Control characters but tabs, and what reorders text.
fn steers(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() && c != '\t' || reorders
}

/// The only place where an error leaves for the terminal. A server's words may be in it.
#[expect(clippy::print_stderr, reason = "what a command has to say goes to the terminal")]
fn complain(error: &Error) {
    let text = error.to_string();
    eprintln!("logsink-server: {}", text.split('\n').map(clean).collect::<Vec<_>>().join("\n"));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve() {
        let cli = Cli::try_parse_from(["logsink-server", "--listen-http", "127.0.0.1:0"]).unwrap();
        assert!(cli.command.is_none());
        assert!(Cli::try_parse_from(["logsink-server", "--insecure", "query", "x"]).is_err());
    }
}
