//! `logsink-server dead-letters`: looks at what no index took, sends it again, removes it.

mod replay;
mod show;

use std::{
    collections::VecDeque,
    io::{self, BufRead, IsTerminal, Write},
};

use clap::{Args, Subcommand};

use self::{
    replay::Replay,
    show::{count, lines, page, table},
};
use super::{client::ServerArgs, serve::Settings};
use crate::{
    api::time,
    app,
    config::{Config, Mode},
    error::Error,
    queue::{
        dead::{DeadArchive, DeadLetter, Wanted},
        disk::DiskDeadArchive,
        kafka::KafkaDeadArchive,
    },
};

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
    ///
    /// One that cannot be sent does not keep the others: it is named, with the reason, and the exit code is 1.
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
            let letters = select(&*archive(&settings.load()?.config)?, &filter.wanted()?, limit)?.letters;
            print(&if json { lines(&letters) } else { table(&letters) })
        }
        DeadCommand::Show { id, hex, settings } => {
            let wanted = Wanted { ids: vec![id.clone()], ..Wanted::default() };
            let letters = select(&*archive(&settings.load()?.config)?, &wanted, 1)?.letters;
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
            let Selected { letters, missing } = select(&*archive(&config)?, &wanted, usize::MAX)?;
            let replay = Replay::new(letters, missing);
            let (text, end) =
                if dry_run { replay.rehearse() } else { runtime.block_on(replay.send(&config, &server))? };
            print(&text)?;
            end
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

struct Selected {
    /// The last of those that are wanted.
    letters: Vec<DeadLetter>,
    /// The ids among those wanted that no letter has, whatever else it should be.
    missing: Vec<String>,
}

/// The last `limit` of those that are wanted.
fn select(archive: &dyn DeadArchive, wanted: &Wanted, limit: usize) -> Result<Selected, Error> {
    let (mut letters, mut missing) = (VecDeque::new(), wanted.ids.clone());
    archive.each(&mut |letter| {
        missing.retain(|id| *id != letter.id);
        if wanted.has(&letter) {
            letters.push_back(letter);
            if letters.len() > limit {
                letters.pop_front();
            }
        }
        true
    })?;
    Ok(Selected { letters: letters.into(), missing })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{DeadLetters, Headers, Message, Position, disk::DiskDeadLetters};

    #[tokio::test]
    async fn ids_that_no_letter_has_are_missing_and_those_that_a_filter_leaves_out_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DiskDeadLetters::open(dir.path(), Default::default()).unwrap();
        for offset in 0..3 {
            let position = Position { partition: 0, offset };
            let (payload, headers) = (b"x".as_slice().into(), Headers::default());
            let message = Message { position, epoch: 0, payload, headers, dropped: Vec::new() };
            letters.put(&message, None, "not_otlp", &message.payload).await.unwrap();
        }
        let wanted = |reason: &str| Wanted {
            ids: ["1", "9999", "2"].map(str::to_owned).into(),
            reason: Some(reason.to_owned()),
            ..Wanted::default()
        };
        for (reason, limit, found) in
            [("not_otlp", 9, vec!["1", "2"]), ("not_otlp", 1, vec!["2"]), ("mapping", 9, vec![])]
        {
            let selected = select(&DiskDeadArchive::new(dir.path()), &wanted(reason), limit).unwrap();
            let ids: Vec<_> = selected.letters.iter().map(|letter| &*letter.id).collect();
            assert_eq!((ids, selected.missing), (found, vec!["9999".to_owned()]), "{reason}, {limit}");
        }
    }
}
