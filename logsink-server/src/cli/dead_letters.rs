//! `logsink-server dead-letters`: looks at what no index took, sends it again, removes it.

mod show;

use std::{
    collections::VecDeque,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use clap::{Args, Subcommand};
use logsink::transport::header;

use self::show::{count, lines, page, table};
use super::{client::ServerArgs, serve::Settings};
use crate::{
    api::time,
    app,
    config::{Config, Mode},
    error::Error,
    queue::{
        TRACEPARENT,
        dead::{DeadArchive, DeadLetter, Wanted},
        disk::DiskDeadArchive,
        kafka::KafkaDeadArchive,
    },
};

/// How long a server may take to take a letter back.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a letter that are shown in hexadecimal unless more are asked for.
const HEX_BYTES: usize = 512;

/// Look at the records that no index took, send them again, remove them
///
/// A record that the index refuses for good (it is not OTLP, a field does not fit the mapping, it is too large) is put aside with
/// the reason, so that it neither stops the others nor is lost: in a cluster in the Kafka topic `<topic>.dead`, otherwise in
/// `dead/` below the data directory. The settings are those of the server, so give the same --config.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

const EXAMPLES: &str = r#"What to do when logsink_index_dead_total rises:
  1. logsink-server dead-letters list --config server.toml
       ID    TIME                  FROM               REASON
       0/41  2026-03-01T12:30:00Z  otlp_logs/3/97211  document_parsing_exception: ...
  2. logsink-server dead-letters show 0/41 --config server.toml
       the reason in full, the record as JSON, and its bytes
  3. mend what the reason says: a mapping, a sender, a limit
  4. logsink-server dead-letters replay --reason document_parsing --config server.toml
       sends them again under the ids that they would have had: what is stored already is not doubled
  5. logsink-server dead-letters purge --config server.toml
       asks before it removes all of them"#;

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// One line each, the newest last
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many, the newest of those that match
        #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50)]
        limit: usize,
        /// One JSON object a line, with everything that `show` shows
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// One of them: its reason, where it was read, the record as JSON, its bytes
    Show {
        /// Its ID, as `list` prints it
        id: String,
        /// Bytes shown in hexadecimal; 0 for none
        #[arg(long, value_name = "BYTES", default_value_t = HEX_BYTES)]
        hex: usize,
        #[command(flatten)]
        settings: Settings,
    },
    /// Send them again, under the ids that they would have had; they stay among the dead letters
    Replay {
        #[command(flatten)]
        filter: Filter,
        /// All of them; without it say which, by ID or by a filter
        #[arg(long)]
        all: bool,
        /// Say what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// Where a server without Kafka takes them
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove all of them, for good
    Purge {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// These only, by their IDs
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Those whose reason contains this, in any case of letters
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Those that come from there: otlp_logs/3, or otlp_logs/3/97211
    #[arg(long = "source", value_name = "TOPIC/PARTITION/OFFSET")]
    source: Option<String>,
    /// Put there from then on: -15m, 2026-03-01T12:30:00Z, 2026-03-01 (UTC) or Unix seconds
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Put there before, in the same forms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
}

impl Filter {
    fn wanted(&self) -> Result<Wanted, Error> {
        let ms = |option: &str, text: &Option<String>| match text {
            Some(text) => time::parse(text, time::now())
                .map(|ns| Some(ns / 1_000_000))
                .map_err(|error| Error::Usage(format!("{option}: {error}"))),
            None => Ok(None),
        };
        Ok(Wanted {
            ids: self.ids.clone(),
            reason: self.reason.clone(),
            source: self.source.clone(),
            from_ms: ms("--from", &self.from)?,
            to_ms: ms("--to", &self.to)?,
        })
    }
}

/// Does what the arguments say.
///
/// # Errors
/// When the letters cannot be read, or not all of what was asked for could be done.
pub fn run(args: DeadLettersArgs) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Error::Failed(format!("cannot start the runtime: {error}")))?;
    // Calls of an archive block; this thread waits for nothing else.
    let _within = runtime.enter();
    match args.command {
        DeadCommand::List { filter, limit, json, settings } => {
            let letters = select(&*archive(&settings.load()?.config)?, &filter.wanted()?, limit)?;
            print(&if json { lines(&letters) } else { table(&letters) })
        }
        DeadCommand::Show { id, hex, settings } => {
            let wanted = Wanted { ids: vec![id.clone()], ..Wanted::default() };
            let letters = select(&*archive(&settings.load()?.config)?, &wanted, 1)?;
            let letter = letters.first();
            let letter = letter.ok_or_else(|| Error::Failed(format!("there is no dead letter {id}: see `list`")))?;
            print(&page(letter, hex))
        }
        DeadCommand::Replay { filter, all, dry_run, server, settings } => {
            let wanted = filter.wanted()?;
            let is_any = wanted.ids.is_empty()
                && wanted.reason.is_none()
                && wanted.source.is_none()
                && wanted.from_ms.is_none()
                && wanted.to_ms.is_none();
            if is_any && !all {
                return Err(Error::Usage("say which: IDs, a filter such as --reason, or --all".into()));
            }
            let config = settings.load()?.config;
            let letters = select(&*archive(&config)?, &wanted, usize::MAX)?;
            let (letters, cut): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| letter.cut_from.is_none());
            for letter in &cut {
                print(&format!("{}: only a part of it was kept, which cannot be sent\n", letter.id))?;
            }
            if dry_run {
                return print(&format!("{}would send {}\n", table(&letters), count(letters.len() as u64)));
            }
            let sent = match config.mode() {
                Mode::Cluster => {
                    let archive = KafkaDeadArchive::connect(&app::kafka_options(&config)?)?;
                    runtime.block_on(archive.replay(letters))?
                }
                Mode::Standalone => runtime.block_on(send(&server, &letters))?,
            };
            print(&format!("sent {} again\n", count(sent)))?;
            match cut.len() {
                0 => Ok(()),
                left => Err(Error::Failed(format!("{} could not be sent", count(left as u64)))),
            }
        }
        DeadCommand::Purge { yes, settings } => {
            let archive = archive(&settings.load()?.config)?;
            if !yes && !is_sure()? {
                return Err(Error::Failed("nothing was removed".into()));
            }
            let removed = archive.purge()?;
            print(&format!("removed {}\n", count(removed)))
        }
    }
}

fn archive(config: &Config) -> Result<Box<dyn DeadArchive>, Error> {
    Ok(match config.mode() {
        Mode::Cluster => Box::new(KafkaDeadArchive::connect(&app::kafka_options(config)?)?),
        Mode::Standalone => Box::new(DiskDeadArchive::new(&config.data_dir()?.join("dead"))),
    })
}

/// The last `limit` of those that are wanted.
fn select(archive: &dyn DeadArchive, wanted: &Wanted, limit: usize) -> Result<Vec<DeadLetter>, Error> {
    let mut letters = VecDeque::new();
    archive.each(&mut |letter| {
        if wanted.has(&letter) {
            letters.push_back(letter);
            if letters.len() > limit {
                letters.pop_front();
            }
        }
        true
    })?;
    Ok(letters.into())
}

/// To a server without Kafka: through its door, where they are checked like any request.
async fn send(server: &ServerArgs, letters: &[DeadLetter]) -> Result<u64, Error> {
    let client = server.client(REQUEST_TIMEOUT)?;
    let url = format!("{}/v1/logs", server.url.trim_end_matches('/'));
    let mut sent = 0;
    for letter in letters {
        let headers = letter.replay_headers();
        let mut request = client.post(&url).header("content-type", "application/x-protobuf").body(letter.bytes.clone());
        let trace = headers.traceparent().map(str::to_owned);
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let all = [
            (header::INSTANCE, headers.instance),
            (header::SEQUENCE, number(headers.sequence)),
            (header::FIRST, number((headers.first > 0).then_some(headers.first.into()))),
            (header::RULES, headers.rules),
            (TRACEPARENT, trace),
        ];
        for (name, value) in all {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.map_err(|error| server.unreachable(&error))?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(Error::Failed(format!(
                "{} was refused ({status}), {} sent before it: show it to see why",
                letter.id,
                count(sent)
            )));
        }
        sent += 1;
    }
    Ok(sent)
}

fn is_sure() -> Result<bool, Error> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage("nobody can be asked here: say --yes".into()));
    }
    print("This removes all dead letters, for good. Write yes to go on: ")?;
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|source| Error::File { action: "read", path: "standard input".into(), source })?;
    Ok(answer.trim() == "yes")
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `… | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|source| Error::File { action: "write to", path: "standard output".into(), source }),
    }
}
