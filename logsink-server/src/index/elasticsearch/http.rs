//! Requests through the official client's transport: nodes in turn, credentials, TLS.

use std::time::Duration;

use bytes::Bytes;
use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method,
        headers::{CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{MultiNodeConnectionPool, Transport, TransportBuilder},
    },
};
use reqwest::Url;

use super::{Auth, ElasticsearchOptions, Failed, IndexError, bulk};

/// The longest pause that a `Retry-After` can ask for: a proxy's typing error should not stop the line for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

pub(super) struct Client {
    transport: Transport,
}

/// Status and body, whatever the status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
}

impl Client {
    pub(super) fn new(options: &ElasticsearchOptions) -> Result<Self, IndexError> {
        let mut auth = options.auth.clone();
        let urls: Vec<Url> = options.urls.iter().map(|url| parse(url, &mut auth)).collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(IndexError::Failed("urls: name one node at least, such as http://127.0.0.1:9200".into()));
        }
        let mut builder = TransportBuilder::new(MultiNodeConnectionPool::round_robin(urls, None))
            // The cluster is a neighbour: a proxy meant for the outside must not see the logs.
            .disable_proxy()
            .timeout(options.timeout);
        builder = match auth {
            Auth::None => builder,
            Auth::Basic { username, password } => builder.auth(Credentials::Basic(username, password)),
            // The transport makes a header of it and would panic on what cannot stand in one.
            Auth::ApiKey(key) if key.chars().all(|c| c.is_ascii_graphic()) => {
                builder.auth(Credentials::EncodedApiKey(key))
            }
            Auth::ApiKey(_) => {
                return Err(IndexError::Failed("api_key: write it in its encoded form, base64 of `id:key`".into()));
            }
        };
        if let Some(path) = &options.ca {
            let pem =
                std::fs::read(path).map_err(|error| IndexError::Failed(format!("ca: {}: {error}", path.display())))?;
            let certificate = Certificate::from_pem(&pem)
                .map_err(|error| IndexError::Failed(format!("ca: {}: {error}", path.display())))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder.build().map_err(|error| IndexError::Failed(format!("elasticsearch: {error}")))?;
        Ok(Self { transport })
    }

    /// One request, once.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        content_type: &'static str,
        timeout: Option<Duration>,
    ) -> Result<Answer, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let answer = self.transport.send(method, path, headers, Some(query), body, timeout).await;
        let answer = answer.map_err(|error| disconnected(&error))?;
        let status = answer.status_code().as_u16();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        // A reset in the middle of the answer, too, leaves unknown what the server did.
        let body = answer.bytes().await.map_err(|error| disconnected(&error))?;
        Ok(Answer { status, body, retry_after })
    }
}

impl Answer {
    /// The body of a good answer.
    pub(super) fn ok(self) -> Result<Bytes, Failed> {
        let message = || format!("{}: {}", self.status, bulk::excerpt(&self.body));
        match self.status {
            200..=299 => Ok(self.body),
            400 => Err(Failed::BadRequest { message: message() }),
            408 | 429 | 500..=599 => {
                Err(Failed::Retry { reason: "unavailable", message: message(), after: self.retry_after })
            }
            _ => Err(Failed::Stop { message: message() }),
        }
    }
}

/// A node's URL; credentials in it are taken out, so that no log line shows them.
fn parse(text: &str, auth: &mut Auth) -> Result<Url, IndexError> {
    let bad = |what: String| IndexError::Failed(format!("urls: {what}, write it like http://127.0.0.1:9200"));
    let mut url = Url::parse(text).map_err(|error| bad(format!("a URL cannot be read ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad(format!("`{}` is not the URL of a node", url.scheme())));
    }
    if !url.username().is_empty() {
        let decode = |text: &str| decode(text).ok_or_else(|| bad("the credentials in a URL are not UTF-8".into()));
        let (username, password) = (decode(url.username())?, decode(url.password().unwrap_or_default())?);
        if *auth == Auth::None {
            *auth = Auth::Basic { username, password };
        }
        // Both fail only for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    Ok(url)
}

/// Percent-decodes one part of a URL.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

fn disconnected(error: &elasticsearch::Error) -> Failed {
    let reason = if error.is_timeout() { "timeout" } else { "connection" };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    Failed::retry(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_credentials_out_of_a_url() {
        let mut auth = Auth::None;
        let url = parse("https://elastic:p%40ss%20w@es.internal:9200/path", &mut auth).unwrap();
        assert_eq!(url.as_str(), "https://es.internal:9200/path");
        assert_eq!(auth, Auth::Basic { username: "elastic".into(), password: "p@ss w".into() });
        assert!(!format!("{auth:?}").contains("p@ss"));
    }

    #[test]
    fn refuses_what_is_not_a_nodes_url() {
        for text in ["127.0.0.1:9200", "kafka://a:1", "http://", "", "unix:/x"] {
            let error = parse(text, &mut Auth::None).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:9200"), "{text}: {error}");
        }
    }
}
