//! Sending letters again, and saying what became of each that was not sent.

use std::{fmt::Write as _, time::Duration};

use logsink::transport::header;
use reqwest::StatusCode;

use super::show::{count, table};
use crate::{
    app,
    cli::{clean, client::ServerArgs},
    config::{Config, Mode},
    error::Error,
    queue::{
        TRACEPARENT,
        dead::{DeadLetter, Replayed},
        kafka::KafkaDeadArchive,
    },
};

/// How long a server may take to take a letter back.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be sent again.
pub(super) struct Replay {
    letters: Vec<DeadLetter>,
    /// The ids of those that were asked for and cannot be sent, and why.
    unfit: Vec<(String, String)>,
}

impl Replay {
    /// These letters; `missing` are ids that none has.
    pub(super) fn new(letters: Vec<DeadLetter>, missing: Vec<String>) -> Self {
        let missing = missing.into_iter().map(|id| (id, "there is no such dead letter: see `list`".to_owned()));
        let mut unfit: Vec<_> = missing.collect();
        let (letters, cut): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| letter.cut_from.is_none());
        unfit.extend(
            cut.into_iter().map(|letter| (letter.id, "only a part of it was kept, which cannot be sent".into())),
        );
        Self { letters, unfit }
    }

    /// What would be sent.
    pub(super) fn rehearse(self) -> (String, Result<(), Error>) {
        let all = format!("{}would send {}\n", table(&self.letters), count(self.letters.len() as u64));
        report(&all, &self.unfit, Replayed::default())
    }

    /// Sends what can be sent.
    pub(super) async fn send(self, config: &Config, server: &ServerArgs) -> Result<(String, Result<(), Error>), Error> {
        let replayed = match config.mode() {
            // It is not a reason to reach for Kafka.
            _ if self.letters.is_empty() => Replayed::default(),
            Mode::Cluster => KafkaDeadArchive::connect(&app::kafka_options(config)?)?.replay(self.letters).await?,
            Mode::Standalone => to_server(server, self.letters).await?,
        };
        let all = format!("sent {} again\n", count(replayed.sent));
        Ok(report(&all, &self.unfit, replayed))
    }
}

/// What is printed, with a line for each letter that was refused, and how the command ends.
fn report(all: &str, unfit: &[(String, String)], replayed: Replayed) -> (String, Result<(), Error>) {
    let Replayed { sent, refused, stopped, left } = replayed;
    let mut text = String::new();
    for (id, why) in unfit.iter().chain(&refused) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {}", clean(id), clean(why));
    }
    text.push_str(all);
    // When none was sent, they are those that were asked for. On one line they can be given to the next `replay`.
    if sent > 0 && !left.is_empty() {
        let _ = writeln!(text, "not sent: {}", clean(&left.join(" ")));
    }
    let failed = unfit.len() + refused.len();
    let end = match stopped {
        None if failed == 0 => Ok(()),
        None => Err(format!("{} could not be sent", count(failed as u64))),
        Some(error) => {
            let others = if failed > 0 { format!("; {failed} other could not be sent") } else { String::new() };
            Err(format!("{error}: {} sent, {} left{others}", count(sent), left.len()))
        }
    };
    (text, end.map_err(Error::Failed))
}

/// To a server without Kafka: through its door, where they are checked like any request.
async fn to_server(server: &ServerArgs, letters: Vec<DeadLetter>) -> Result<Replayed, Error> {
    let client = server.client(REQUEST_TIMEOUT)?;
    let url = format!("{}/v1/logs", server.url.trim_end_matches('/'));
    let mut done = Replayed::default();
    let mut letters = letters.into_iter();
    while let Some(letter) = letters.next() {
        let headers = letter.replay_headers();
        let mut request = client.post(&url).header("content-type", "application/x-protobuf").body(letter.bytes);
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
        let error = match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                done.sent += 1;
                continue;
            }
            Ok(answer) if is_of_the_letter(answer.status()) => {
                let why = format!("the server refused it ({}): show it to see why", answer.status());
                done.refused.push((letter.id, why));
                continue;
            }
            Ok(answer) => Error::Failed(format!("{} answered {}", server.url, answer.status())),
            Err(error) => server.unreachable(&error),
        };
        done.stopped = Some(error);
        done.left = std::iter::once(letter.id).chain(letters.by_ref().map(|letter| letter.id)).collect();
    }
    Ok(done)
}

/// Whether a refusal is about the letter. Every other one, as for too much at once, would meet the next letter too.
fn is_of_the_letter(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Bytes, routing::post};
    use clap::Parser;

    use super::*;
    use crate::queue::Headers;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn letter(id: &str, bytes: &'static str, cut_from: Option<u64>) -> DeadLetter {
        DeadLetter {
            id: id.into(),
            time_ms: 0,
            reason: String::new(),
            source: String::new(),
            record: None,
            headers: Headers::default(),
            bytes: bytes.into(),
            cut_from,
        }
    }

    fn end(end: Result<(), Error>) -> Option<String> {
        end.err().map(|error| error.to_string())
    }

    #[test]
    fn ids_that_are_not_there_and_letters_that_were_cut_are_named() {
        let letters = || vec![letter("0/1", "", None), letter("0/2", "", Some(9))];
        let (text, ended) = Replay::new(letters(), vec!["0/9999".into()]).rehearse();
        assert!(text.contains("0/9999: there is no such dead letter") && text.contains("0/2: only a part"), "{text}");
        assert!(text.ends_with("would send 1 dead letter\n"), "{text}");
        assert_eq!(end(ended).as_deref(), Some("2 dead letters could not be sent"));
        let (_, ended) = Replay::new(vec![letter("0/1", "", None)], vec![]).rehearse();
        assert_eq!(end(ended), None);
    }

    #[test]
    fn what_was_left_is_named_when_some_were_sent() {
        let stopped = |sent| Replayed {
            sent,
            refused: vec![("0/1".into(), "too large".into())],
            stopped: Some(Error::Failed("Kafka is away".into())),
            left: vec!["0/2".into(), "0/3".into()],
        };
        let (text, ended) = report("sent 5\n", &[], stopped(5));
        assert_eq!(text, "0/1: too large\nsent 5\nnot sent: 0/2 0/3\n");
        let words = "Kafka is away: 5 dead letters sent, 2 left; 1 other could not be sent";
        assert_eq!(end(ended).as_deref(), Some(words));
        assert_eq!(report("", &[], stopped(0)).0, "0/1: too large\n");
    }

    /// A server that judges letters by their bytes.
    #[tokio::test]
    async fn a_refused_letter_does_not_keep_the_others_and_a_busy_server_does() {
        let judge = async |body: Bytes| match &*body {
            b"bad" => StatusCode::BAD_REQUEST,
            b"busy" => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::OK,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving =
            tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/logs", post(judge))).await });
        let server = Cli::try_parse_from(["", "--server", &url]).unwrap().server;
        let letters = |all: &[&'static str]| {
            all.iter().enumerate().map(|(index, bytes)| letter(&index.to_string(), bytes, None)).collect()
        };
        let done = to_server(&server, letters(&["good", "bad", "good"])).await.unwrap();
        assert_eq!((done.sent, done.left, done.stopped.is_none()), (2, vec![], true));
        assert!(done.refused[0].0 == "1" && done.refused[0].1.contains("400"), "{:?}", done.refused);
        let done = to_server(&server, letters(&["good", "busy", "good"])).await.unwrap();
        assert_eq!((done.sent, done.refused, done.left), (1, vec![], vec!["1".to_owned(), "2".to_owned()]));
        assert!(done.stopped.is_some_and(|error| error.to_string().contains("429")));
        serving.abort();
    }
}
