//! `logsink-server query`: asks a server and prints events, newest first.
//!
//! What it prints came from strangers: control characters, which could steer the terminal, are shown and not sent.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::Args;
use serde_json::Value;

use super::{clean, client::ServerArgs, json_line};
use crate::{
    api::search::Found,
    error::Error,
    query::{Hit, LIMIT_DEFAULT, LIMIT_MAX},
};

/// The server answers a search within 30 s or says that it cannot.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// What to search for, and how to show it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QueryArgs {
    /// What must match; everything when left out
    #[arg(value_name = "EXPRESSION", default_value = "")]
    expression: String,
    /// From when on: -15m, 2026-03-01T12:30:00Z, 2026-03-01 (UTC) or Unix seconds
    #[arg(long, value_name = "TIME", default_value = "-15m", allow_hyphen_values = true)]
    from: String,
    /// Until when (exclusive), in the same forms
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    to: String,
    /// How many events at most
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = LIMIT_DEFAULT, value_parser = at_least_one)]
    limit: usize,
    /// All events that match, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = r#"Expressions:
  level>=warn                     trace, debug, info, warn, error, fatal
  service=checkout                also target, message, trace_id, span_id and every attribute
  "connection refused"            these words in the message, one after the other
  latency_ms>250 path~"^/api/"    numbers; regular expressions
  exists(user.id) not user.tier=free (a=1 or b=2)

Examples:
  logsink-server query                                          the last 15 minutes
  logsink-server query 'level>=error' --from -1d -n 20
  logsink-server query 'trace_id=5b8aa5a2d2c872e8321cf37308d69df2' --from -7d
  logsink-server query 'service=checkout' --from 2026-03-01 --to 2026-03-02 --all --json | jq .message"#;

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "write a whole number from 1 on, or use --all".into())
}

/// Searches and prints.
///
/// # Errors
/// When the server does not answer, refuses the search, or standard output fails.
pub async fn run(args: QueryArgs) -> Result<(), Error> {
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let client = args.server.client(REQUEST_TIMEOUT)?;
    let mut left = if args.all { usize::MAX } else { args.limit };
    let (mut from, mut to, mut cursor) = (args.from.clone(), args.to.clone(), None);
    let mut warned = Vec::new();
    loop {
        let found = ask(&client, &args, &from, &to, left.min(LIMIT_MAX), cursor.as_deref()).await?;
        left = left.saturating_sub(found.hits.len());
        match print(&found.hits, args.json, colour, &mut stdout.lock()) {
            Ok(()) => {}
            // `… | head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(source) => return Err(Error::File { action: "write to", path: "standard output".into(), source }),
        }
        warn(&found.warnings, &mut warned, &mut io::stderr().lock());
        // A page may have few hits, or none, and yet be followed by others: the index looks at so many events at a time.
        if found.cursor.is_none() || left == 0 {
            return Ok(());
        }
        if found.cursor == cursor {
            return Err(Error::Failed(format!("{} answers with the same page again and again", args.server.url)));
        }
        // Absolute times from here on: `-15m` would move between two pages.
        (from, to, cursor) = (found.from, found.to, found.cursor);
    }
}

async fn ask(
    client: &reqwest::Client,
    args: &QueryArgs,
    from: &str,
    to: &str,
    limit: usize,
    cursor: Option<&str>,
) -> Result<Found, Error> {
    let url = format!("{}/api/v1/search", args.server.url.trim_end_matches('/'));
    let limit = limit.to_string();
    let parameters = [("q", args.expression.as_str()), ("from", from), ("to", to), ("limit", &limit)];
    let request = client.get(&url).query(&parameters).query(&cursor.map(|cursor| [("cursor", cursor)]));
    let response = request.send().await.map_err(|error| args.server.unreachable(&error))?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| args.server.unreachable(&error))?;
    if status.is_success() {
        let wrong = |error| Error::Failed(format!("{url} did not answer like a logsink-server: {error}"));
        return serde_json::from_slice(&body).map_err(wrong);
    }
    let said = serde_json::from_slice::<Value>(&body).ok();
    let said = said.as_ref().and_then(|answer| answer.get("error")?.as_str());
    let message = said.map_or_else(|| format!("{url} answered {status}"), ToOwned::to_owned);
    let message = message.replacen("q: ", "the expression: ", usize::from(message.starts_with("q: ")));
    Err(if status.as_u16() == 400 { Error::Usage(message) } else { Error::Failed(message) })
}

/// Says once what the answer lacks, where it does not mix with the events.
fn warn(warnings: &[String], warned: &mut Vec<String>, out: &mut impl Write) {
    for warning in warnings {
        if !warned.contains(warning) {
            // The events are what was asked for: they are printed whether or not standard error can be written.
            let _ = writeln!(out, "warning: {}", clean(warning));
            warned.push(warning.clone());
        }
    }
}

fn print(hits: &[Hit], json: bool, colour: bool, out: &mut impl Write) -> io::Result<()> {
    for hit in hits {
        if json {
            out.write_all(json_line(hit)?.as_bytes())?;
        } else {
            out.write_all(line(hit, colour).as_bytes())?;
        }
    }
    out.flush()
}

/// `time LEVEL service target: message key=value …`
fn line(hit: &Hit, colour: bool) -> String {
    let (dim, bold, reset) = if colour { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let level_colour = match hit.level.as_str() {
        _ if !colour => "",
        "trace" | "debug" => "\x1b[34m",
        "info" => "\x1b[32m",
        "warn" => "\x1b[33m",
        "error" | "fatal" => "\x1b[1;31m",
        _ => "",
    };
    let level = if hit.level == "unspecified" { "-".into() } else { hit.level.to_ascii_uppercase() };
    let mut line = format!("{dim}{}{reset} {level_colour}{:<5}{reset}", clean(&hit.time), clean(&level));
    if !hit.service.is_empty() {
        let _ = write!(line, " {bold}{}{reset}", clean(&hit.service));
    }
    if !hit.target.is_empty() {
        let _ = write!(line, " {dim}{}:{reset}", clean(&hit.target));
    }
    // The first line says what it is about; a stack trace comes below everything else.
    let (first, rest) = hit.message.trim_end().split_once('\n').unwrap_or((hit.message.trim_end(), ""));
    let _ = write!(line, " {}", clean(first));
    for (key, value) in &hit.attributes {
        // Where in the code it was logged is in --json; here it would hide the rest.
        if key.starts_with("code.") || key.starts_with("thread.") {
            continue;
        }
        let value = match value {
            Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => clean(text),
            value => clean(&value.to_string()),
        };
        let _ = write!(line, " {dim}{}={reset}{value}", clean(key));
    }
    for below in rest.lines() {
        let _ = write!(line, "\n    {}", clean(below));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(message: &str) -> Hit {
        Hit {
            id: "0-1-2".into(),
            time_ns: 0,
            time: "1970-01-01T00:00:00.000000000Z".into(),
            severity: 13,
            level: "warn".into(),
            service: "shop".into(),
            message: message.into(),
            target: "cart".into(),
            trace_id: String::new(),
            span_id: String::new(),
            attributes: serde_json::from_str(r#"{"items": 3, "user": "a b", "code.line.number": 7}"#).unwrap(),
            resource: serde_json::Map::new(),
        }
    }

    #[test]
    fn a_line_has_everything_in_order() {
        let expected = "1970-01-01T00:00:00.000000000Z WARN  shop cart: full items=3 user=\"a b\"\n";
        assert_eq!(line(&hit("full"), false), expected);
    }

    #[test]
    fn a_warning_is_said_once_over_all_pages() {
        let (mut warned, mut out) = (Vec::new(), Vec::new());
        warn(&["a\x1b".into(), "b".into()], &mut warned, &mut out);
        warn(&["b".into(), "c".into()], &mut warned, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "warning: a\\u{1b}\nwarning: b\nwarning: c\n");
    }

    #[test]
    fn content_cannot_steer_the_terminal() {
        let line = line(&hit("\x1b]0;owned\x07\r\u{202e}gnp.exe\nsecond"), false);
        assert!(line.contains(r"\u{1b}]0;owned\u{7}\u{d}\u{202e}gnp.exe"), "{line}");
        assert!(line.contains(" items=3 user=\"a b\"\n    second\n"), "{line}");
        assert!(!line.contains('\x1b'));
    }

    #[test]
    fn json_cannot_steer_the_terminal_and_is_the_same_event() {
        let hit = hit("\x1b[2J\u{9b}31m\u{7f}\u{202e}é\u{1f600}\u{61c}");
        let line = json_line(&hit).unwrap();
        assert!(line.contains(r"\u001b[2J\u009b31m\u007f\u202eé😀\u061c"), "{line}");
        assert_eq!(serde_json::from_str::<Hit>(&line).unwrap(), hit);
    }
}
