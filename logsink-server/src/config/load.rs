//! Puts the settings together: file, under `LOGSINK_SERVER_*`, under flags.
//!
//! Each error names its place: a line of the file with the key that was probably meant, or the environment variable.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use logsink::ConfigError;
use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// Where the file is looked for when no `--config` names one, in this order.
pub const FILES: [&str; 2] = ["logsink-server.toml", "/etc/logsink/server.toml"];
/// What the environment variables begin with.
pub const ENV_PREFIX: &str = "LOGSINK_SERVER_";
/// `LOGSINK_SERVER_CONFIG` names the file, as `--config` does.
const ENV_CONFIG: &str = "LOGSINK_SERVER_CONFIG";
/// Which server the commands ask; no setting of a server.
const ENV_URL: &str = "LOGSINK_SERVER_URL";

/// How the text of an environment variable becomes a value.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Int,
    /// Separated by commas.
    List,
}

/// Every setting that the environment can give. The variable's name is the path in capitals with `_` for the dots:
/// `listen.grpc` is `LOGSINK_SERVER_LISTEN_GRPC`.
const SETTINGS: &[(&str, Kind)] = &[
    ("mode", Kind::Text),
    ("roles", Kind::List),
    ("data_dir", Kind::Text),
    ("insecure", Kind::Bool),
    ("log", Kind::Text),
    ("stop_timeout", Kind::Text),
    ("listen.grpc", Kind::Text),
    ("listen.http", Kind::Text),
    ("listen.advertise", Kind::Text),
    ("listen.connections_max", Kind::Int),
    ("tls.cert", Kind::Text),
    ("tls.key", Kind::Text),
    ("tls.client_ca", Kind::Text),
    ("ingest.request_bytes_max", Kind::Text),
    ("ingest.pending_bytes_max", Kind::Text),
    ("ingest.limits.records_per_second", Kind::Int),
    ("ingest.limits.bytes_per_second", Kind::Text),
    ("ingest.limits.burst", Kind::Text),
    ("queue.disk_bytes_max", Kind::Text),
    ("drain.pending_bytes_max", Kind::Text),
    ("drain.concurrency", Kind::Int),
    ("retention.age", Kind::Text),
    ("retention.bytes", Kind::Text),
    ("rules.dir", Kind::Text),
    ("kafka.brokers", Kind::List),
    ("kafka.topic", Kind::Text),
    ("kafka.group", Kind::Text),
    ("kafka.partitions", Kind::Int),
    ("kafka.replication", Kind::Int),
    ("kafka.instance", Kind::Text),
    ("kafka.assignment", Kind::Text),
    ("kafka.oversize", Kind::Text),
    ("kafka.compression", Kind::Text),
    ("kafka.format", Kind::Text),
    ("kafka.header_attributes", Kind::List),
    ("elasticsearch.urls", Kind::List),
    ("elasticsearch.cloud_id", Kind::Text),
    ("elasticsearch.data_stream", Kind::Text),
    ("elasticsearch.streams_max", Kind::Int),
    ("elasticsearch.layout", Kind::Text),
    ("elasticsearch.refresh_interval", Kind::Text),
    ("elasticsearch.retention.by", Kind::Text),
    ("elasticsearch.retention.age", Kind::Text),
    ("elasticsearch.retention.bytes", Kind::Text),
    ("elasticsearch.retention.rollover_age", Kind::Text),
    ("elasticsearch.retention.rollover_bytes", Kind::Text),
    ("elasticsearch.retention.every", Kind::Text),
    ("elasticsearch.field_names", Kind::Text),
    ("elasticsearch.api_key", Kind::Text),
    ("elasticsearch.username", Kind::Text),
    ("elasticsearch.password", Kind::Text),
    ("elasticsearch.bearer_token", Kind::Text),
    ("elasticsearch.ca", Kind::Text),
    ("elasticsearch.compression", Kind::Text),
    ("elasticsearch.request_bytes_max", Kind::Text),
    ("elasticsearch.requests_max", Kind::Int),
    ("elasticsearch.timeout", Kind::Text),
    ("elasticsearch.setup", Kind::Bool),
    ("elasticsearch.shards", Kind::Int),
    ("elasticsearch.replicas", Kind::Int),
    ("etcd.endpoints", Kind::List),
    ("etcd.fleet", Kind::Text),
    ("config", Kind::Text),
];

/// Settings and the file that they came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// File and environment put together, not yet validated: flags come on top.
    pub config: Config,
    /// The file; none was there, or none was needed.
    pub file: Option<PathBuf>,
}

/// Reads the file (`path`, else `$LOGSINK_SERVER_CONFIG`, else the first of [`FILES`] that exists) and lays the variables
/// of `environment` over it.
///
/// # Errors
/// When a file that was asked for cannot be read, is not TOML or has an unknown key or a wrong value, and when a variable
/// that begins with [`ENV_PREFIX`] is unknown or wrong.
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let variables = variables(environment)?;
    let named = path.map(Path::to_path_buf).or_else(|| {
        let (.., text) = variables.iter().find(|(name, ..)| name == ENV_CONFIG)?;
        Some(PathBuf::from(text))
    });
    let (file, text) = match named {
        Some(path) => {
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            (Some(path), text)
        }
        None => first_of(&FILES)?,
    };
    let mut table = match &file {
        Some(path) => parse(path, &text)?,
        None => Table::new(),
    };
    for (name, setting, kind, text) in &variables {
        if name != ENV_CONFIG {
            overlay(&mut table, setting, *kind, text)
                .map_err(|message| ConfigError { field: name.clone(), message })?;
        }
    }
    let config = read(&table).map_err(|message| ConfigError { field: "settings".into(), message })?;
    Ok(Loaded { config, file })
}

/// The variables that are ours, checked for their names.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, &'static str, Kind, String)>, ConfigError> {
    let mut found = Vec::new();
    for (name, text) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX) && *name != ENV_URL) else {
            continue;
        };
        let wrong = |message: String| ConfigError { field: name.to_owned(), message };
        let setting = SETTINGS.iter().find(|(setting, _)| variable(setting) == name);
        let (setting, kind) = setting.ok_or_else(|| {
            let known = SETTINGS.iter().map(|(setting, _)| variable(setting)).collect::<Vec<_>>();
            wrong(format!("no such setting{}", suggest(name, known.iter().map(String::as_str))))
        })?;
        let text = text.into_string().map_err(|_| wrong("is not UTF-8".into()))?;
        found.push((name.to_owned(), *setting, *kind, text));
    }
    Ok(found)
}

fn variable(setting: &str) -> String {
    format!("{ENV_PREFIX}{}", setting.replace('.', "_").to_ascii_uppercase())
}

fn first_of(files: &[&str]) -> Result<(Option<PathBuf>, String), ConfigError> {
    for path in files.iter().map(Path::new) {
        match fs::read_to_string(path) {
            Ok(text) => return Ok((Some(path.to_path_buf()), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok((None, String::new()))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError { field: path.display().to_string(), message: format!("cannot be read: {error}") }
}

/// The file's text as a table, after it was read once as [`Config`] for errors with a line.
fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let wrong = |error: toml::de::Error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        ConfigError { field: format!("{}{line}", path.display()), message: explain(error.message()) }
    };
    toml::from_str::<Config>(text).map_err(wrong)?;
    toml::from_str::<Table>(text).map_err(wrong)
}

/// Sets one key and sees whether the whole still reads.
fn overlay(table: &mut Table, setting: &str, kind: Kind, text: &str) -> Result<(), String> {
    let value = match kind {
        Kind::Text => Value::String(text.to_owned()),
        Kind::Bool => Value::Boolean(match text {
            "true" | "1" | "yes" => true,
            "false" | "0" | "no" | "" => false,
            _ => return Err(format!("`{text}` is not true or false")),
        }),
        Kind::Int => Value::Integer(text.trim().parse().map_err(|_| format!("`{text}` is not a whole number"))?),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
    };
    let (mut section, mut key) = (&mut *table, setting);
    while let Some((name, rest)) = key.split_once('.') {
        let inner = section.entry(name).or_insert_with(|| Value::Table(Table::new()));
        // The file was read as Config before, so a section is a table.
        let Value::Table(inner) = inner else { return Err("its section is not a table".into()) };
        (section, key) = (inner, rest);
    }
    section.insert(key.to_owned(), value);
    read(table).map(drop)
}

fn read(table: &Table) -> Result<Config, String> {
    Config::deserialize(Value::Table(table.clone())).map_err(|error| explain(error.message()))
}

/// Serde's words, with the key that was probably meant instead of a list of all.
fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let Some((key, expected)) = rest.split_once('`') else { return message.to_owned() };
    // "…, expected one of `a`, `b`": every second piece between backticks is a name.
    let known = expected.split('`').skip(1).step_by(2);
    format!("unknown key `{key}`{}", suggest(key, known))
}

/// `: did you mean …?`, or the list of what there is when nothing is near.
fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().map(|name| (distance(word, name), name)).min();
    match nearest {
        // Up to a third of the letters may differ: `brokres`, `data-dir`, `grcp`.
        Some((distance, name)) if distance <= word.len().max(name.len()).div_ceil(3) => {
            format!(": did you mean `{name}`?")
        }
        Some(_) => format!(": there is {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        None => String::new(),
    }
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables.iter().map(|(name, text)| (name.into(), text.into())).collect()
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = file("data_dir = '/a'\n[listen]\ngrpc = '127.0.0.1:1'\nhttp = '127.0.0.1:2'\n");
        let variables = env(&[
            ("LOGSINK_SERVER_LISTEN_HTTP", "127.0.0.1:3"),
            ("LOGSINK_SERVER_KAFKA_BROKERS", "a:1, b:2"),
            ("LOGSINK_SERVER_INSECURE", "true"),
            ("LOGSINK_SERVER_INGEST_LIMITS_RECORDS_PER_SECOND", "7"),
            ("LOGSINK_ENDPOINT", "belongs to the library"),
            ("LOGSINK_SERVER_URL", "belongs to the commands"),
        ]);
        let config = load(Some(file.path()), variables).unwrap().config;
        assert_eq!(config.data_dir.as_deref(), Some(Path::new("/a")));
        assert_eq!(config.listen_grpc().port(), 1);
        assert_eq!(config.listen_http().port(), 3);
        assert_eq!(config.kafka.unwrap().brokers, ["a:1", "b:2"]);
        assert!(config.insecure);
        assert_eq!(config.ingest.limits.records_per_second, Some(7));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        let file = file("insecure = true\n\n[kafka]\nbrokres = ['a:1']\n");
        let message = load(Some(file.path()), []).unwrap_err().to_string();
        let expected = format!("{}, line 4: unknown key `brokres`: did you mean `brokers`?", file.path().display());
        assert_eq!(message, expected);
    }

    #[test]
    fn wrong_values_are_named_with_their_place() {
        let file = file("[retention]\nage = 'for ever'\n");
        let message = load(Some(file.path()), []).unwrap_err().to_string();
        assert!(message.contains(", line 2: `for ever` is not a length of time"), "{message}");
        for (name, text, wanted) in [
            (
                "LOGSINK_SERVER_DRAIN_CONCURRENCY",
                "four",
                "LOGSINK_SERVER_DRAIN_CONCURRENCY: `four` is not a whole number",
            ),
            ("LOGSINK_SERVER_MODE", "alone", "LOGSINK_SERVER_MODE: unknown variant `alone`"),
            (
                "LOGSINK_SERVER_DATADIR",
                "/a",
                "LOGSINK_SERVER_DATADIR: no such setting: did you mean `LOGSINK_SERVER_DATA_DIR`?",
            ),
        ] {
            let message = load(Some(Path::new("/dev/null")), env(&[(name, text)])).unwrap_err().to_string();
            assert!(message.starts_with(wanted), "{message}");
        }
    }

    #[test]
    fn every_setting_of_the_environment_is_a_key() {
        for (setting, kind) in SETTINGS.iter().filter(|(setting, _)| *setting != "config") {
            let text = match (setting, kind) {
                (&"mode", _) => "cluster",
                (&"kafka.format", _) => "json",
                (&"kafka.compression", _) => "lz4",
                (&"kafka.assignment", _) => "range",
                (&"kafka.oversize", _) => "truncate",
                (&"elasticsearch.field_names", _) => "ecs",
                (&"roles", _) => "ingest,query",
                (_, Kind::Bool) => "true",
                (_, Kind::Int) => "3",
                (setting, _) if setting.ends_with("bytes_max") || *setting == "retention.bytes" => "64MiB",
                (
                    &"stop_timeout"
                    | &"retention.age"
                    | &"ingest.limits.burst"
                    | &"elasticsearch.refresh_interval"
                    | &"elasticsearch.timeout",
                    _,
                ) => "1h",
                (&"ingest.limits.bytes_per_second", _) => "64MiB",
                (&"elasticsearch.layout" | &"elasticsearch.retention.by", _) => "auto",
                (setting, _) if setting.starts_with("elasticsearch.retention.") => {
                    if setting.ends_with("bytes") {
                        "64MiB"
                    } else {
                        "1h"
                    }
                }
                (&"elasticsearch.compression", _) => "zstd",
                (setting, _) if setting.starts_with("listen") => "127.0.0.1:9",
                _ => "text",
            };
            let loaded = load(Some(Path::new("/dev/null")), env(&[(&variable(setting), text)]));
            assert!(loaded.is_ok(), "{setting}: {}", loaded.unwrap_err());
        }
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_asked_for() {
        let message = load(Some(Path::new("/nowhere/x.toml")), []).unwrap_err().to_string();
        assert!(message.starts_with("/nowhere/x.toml: cannot be read"), "{message}");
        assert_eq!(first_of(&["/nowhere/x.toml"]).unwrap().0, None);
    }
}
