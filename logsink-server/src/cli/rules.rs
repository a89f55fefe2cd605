//! `logsink-server rules`: writes, shows and checks rules, through a server or straight in etcd.

use std::{
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use logsink::filter::rules::{Document, RuleSet};
use reqwest::{Method, StatusCode, Url};

use super::client::ServerArgs;
use crate::control::{ControlError, Scope, etcd};

/// A write is durable within milliseconds; a server that needs longer is in trouble.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Write, show or check the rules of connected processes
#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Check a document and put it in force
    Put {
        #[command(flatten)]
        at: Place,
        /// The document; `-` for standard input
        file: PathBuf,
    },
    /// Print the document in force
    Get {
        #[command(flatten)]
        at: Place,
    },
    /// Remove the document
    Remove {
        #[command(flatten)]
        at: Place,
    },
    /// Check a document, without a server
    Check {
        /// The service that it is for; left out: all
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// The document; `-` for standard input
        file: PathBuf,
    },
    /// List connected processes and the rules that they run
    Instances {
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The service whose rules they are; left out: all services
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Go to etcd instead of a server: URLs of its members, separated by commas
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd: Vec<String>,
}

/// Does what the arguments say.
///
/// # Errors
/// When the document is broken, with line and column, or its store cannot be reached.
pub async fn run(args: RulesArgs) -> anyhow::Result<()> {
    match args.command {
        RulesCommand::Check { service, file } => {
            let text = read(&file)?;
            let document = check(&file, service.as_deref(), &text)?;
            print(&format!("{}: {} rules, no errors\n", name(&file), document.rules.len()))
        }
        RulesCommand::Put { at, file } => {
            let text = read(&file)?;
            check(&file, at.service.as_deref(), &text)?;
            let revision = at.write(Some(text)).await?;
            print(&format!("{} in force, revision {revision}\n", at.scope()))
        }
        RulesCommand::Remove { at } => {
            at.write(None).await?;
            print(&format!("{} removed\n", at.scope()))
        }
        RulesCommand::Get { at } => match at.read().await? {
            Some(text) => print(&text),
            None => bail!("there are no rules for {}", at.scope()),
        },
        RulesCommand::Instances { server } => {
            let url = url(&server, &["instances"])?;
            let (status, body) = ask(&server, Method::GET, url, None).await?;
            if !status.is_success() {
                return Err(refused(status, &body));
            }
            let instances: Vec<crate::control::instances::Instance> =
                serde_json::from_str(&body).context("the server's answer is not a list of instances")?;
            let mut lines = String::new();
            for process in instances {
                let state = match &process.refused {
                    Some(refused) => format!("refused {}: {}", refused.revision, refused.error),
                    None => "ok".to_owned(),
                };
                let line = [&process.service, &process.instance, &process.version, &process.revision, &state];
                lines += &line.map(|cell| cell.escape_debug().to_string()).join("\t");
                lines.push('\n');
            }
            print(&lines)
        }
    }
}

impl Place {
    fn scope(&self) -> Scope {
        Scope::of(self.service.as_deref())
    }

    fn url(&self) -> anyhow::Result<Url> {
        match &self.service {
            Some(name) => url(&self.server, &["rules", "service", name]),
            None => url(&self.server, &["rules", "global"]),
        }
    }

    async fn write(&self, text: Option<String>) -> anyhow::Result<String> {
        if !self.etcd.is_empty() {
            return Ok(etcd::write(&self.etcd, &self.scope(), text).await?.1);
        }
        let method = if text.is_some() { Method::PUT } else { Method::DELETE };
        let (status, body) = ask(&self.server, method, self.url()?, text).await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        Ok(answer["revision"].as_str().unwrap_or_default().to_owned())
    }

    async fn read(&self) -> anyhow::Result<Option<String>> {
        if !self.etcd.is_empty() {
            return Ok(etcd::read(&self.etcd).await?.remove(&self.scope()).map(|stored| stored.text));
        }
        let (status, body) = ask(&self.server, Method::GET, self.url()?, None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(body)),
            status => Err(refused(status, &body)),
        }
    }
}

/// The server's reason where it gave one, as its API does.
fn refused(status: StatusCode, body: &str) -> anyhow::Error {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match answer["error"].as_str() {
        Some(reason) => anyhow::anyhow!("{reason}"),
        None => anyhow::anyhow!("the server answered {status}"),
    }
}

/// A place below the server's API. Encodes what a path cannot hold.
fn url(server: &ServerArgs, path: &[&str]) -> anyhow::Result<Url> {
    let wrong = || anyhow::anyhow!("--server {} is not a URL: write it like http://127.0.0.1:4318", server.url);
    let mut url = Url::parse(&server.url).map_err(|_| wrong())?;
    url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(["api", "v1"]).extend(path);
    Ok(url)
}

async fn ask(
    server: &ServerArgs,
    method: Method,
    url: Url,
    body: Option<String>,
) -> anyhow::Result<(StatusCode, String)> {
    let mut request = server.client(ANSWER_WITHIN)?.request(method, url.clone());
    if let Some(body) = body {
        request = request.header("content-type", "application/toml").body(body);
    }
    let answer = request.send().await.map_err(|error| server.unreachable(&error))?;
    let status = answer.status();
    Ok((status, answer.text().await.with_context(|| format!("the answer of {url} broke off"))?))
}

/// The document alone, and compiled for its service.
fn check(file: &Path, service: Option<&str>, text: &str) -> anyhow::Result<Document> {
    let checked = Document::parse(text).and_then(|document| {
        RuleSet::compile(std::slice::from_ref(&document), service.unwrap_or_default())?;
        Ok(document)
    });
    checked.map_err(ControlError::from).with_context(|| name(file))
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut text = String::new();
    let mut input = std::io::stdin();
    if input.is_terminal() {
        bail!("standard input is a terminal: write `rules put FILE`, or pipe the document in");
    }
    input.read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: RulesArgs,
    }

    fn place(args: &[&str]) -> Place {
        match Cli::try_parse_from([&["rules", "get"], args].concat()).unwrap().args.command {
            RulesCommand::Get { at } => at,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_put_together() {
        assert_eq!(place(&["--server", "http://h:1"]).url().unwrap().as_str(), "http://h:1/api/v1/rules/global");
        let place = place(&["--server", "http://h:1/below/", "--service", "a/b c"]);
        assert_eq!(place.url().unwrap().as_str(), "http://h:1/below/api/v1/rules/service/a%2Fb%20c");
    }

    #[tokio::test]
    async fn a_server_that_refuses_to_list_instances_says_why() {
        let away = async || (StatusCode::SERVICE_UNAVAILABLE, r#"{"error": "etcd is away"}"#);
        let app = axum::Router::new()
            .route("/api/v1/instances", axum::routing::get(away))
            .route("/old/api/v1/instances", axum::routing::get(async || (StatusCode::NOT_FOUND, "<html>")));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        for (url, reason) in [(url.clone(), "etcd is away"), (url + "/old", "the server answered 404 Not Found")] {
            let args = Cli::try_parse_from(["rules", "instances", "--server", &url]).unwrap().args;
            assert_eq!(run(args).await.unwrap_err().to_string(), reason);
        }
        serving.abort();
    }

    #[test]
    fn a_broken_document_is_refused_with_its_place() {
        let error = check(Path::new("rules.toml"), None, "filter = \"inof\"").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "rules.toml: rules line 1, column 11: unknown level `inof`: did you mean `info`?"
        );
    }
}
