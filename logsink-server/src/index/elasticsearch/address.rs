//! Where nodes are and how to log in: URLs, Elastic's cloud ids, credentials. What was given is checked here, and nothing of it
//! that is secret is ever in an error or a log line.

use std::{fmt, path::Path};

use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::transport::CloudId,
};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{ElasticsearchOptions, IndexError};

/// How to log in.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// An API key in its encoded form: base64 of `id:key`.
    ApiKey(String),
    /// A bearer token: of a service account, or of a proxy in front.
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::ApiKey(_) => "ApiKey(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// The nodes' URLs without credentials, and how to log in there.
pub(super) fn nodes(options: &ElasticsearchOptions) -> Result<(Vec<Url>, Auth), IndexError> {
    let mut auth = options.auth.clone();
    let mut urls: Vec<Url> = options.urls.iter().map(|url| parse(url, &mut auth)).collect::<Result<_, _>>()?;
    if let Some(id) = &options.cloud_id {
        urls.push(cloud(id)?);
    }
    if urls.is_empty() {
        return Err(IndexError::Failed("urls: name one node at least, such as http://127.0.0.1:9200".into()));
    }
    Ok((urls, auth))
}

/// What the official client's transport takes; none for no login.
pub(super) fn credentials(auth: Auth) -> Result<Option<Credentials>, IndexError> {
    // The transport makes headers of them and would panic on what cannot stand in one.
    let is_token = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    match auth {
        Auth::None => Ok(None),
        Auth::Basic { username, password } => Ok(Some(Credentials::Basic(username, password))),
        Auth::ApiKey(key) if is_token(&key) => Ok(Some(Credentials::EncodedApiKey(key))),
        Auth::ApiKey(_) => Err(IndexError::Failed("api_key: write it in its encoded form, base64 of `id:key`".into())),
        Auth::Bearer(token) if is_token(&token) => Ok(Some(Credentials::Bearer(token))),
        Auth::Bearer(_) => {
            Err(IndexError::Failed("bearer_token: write the token alone, without `Bearer` and spaces".into()))
        }
    }
}

/// The authorities in a PEM file.
pub(super) fn authorities(path: &Path) -> Result<CertificateValidation, IndexError> {
    let bad = |error: &dyn fmt::Display| IndexError::Failed(format!("ca: {}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(|error| bad(&error))?;
    let certificate = Certificate::from_pem(&pem).map_err(|error| bad(&error))?;
    Ok(CertificateValidation::Full(certificate))
}

/// A node's name for people and metrics: host and port.
pub(super) fn name(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A node's URL; credentials in it are taken out, so that no log line shows them.
fn parse(text: &str, auth: &mut Auth) -> Result<Url, IndexError> {
    let bad = |what: String| IndexError::Failed(format!("urls: {what}, write it like http://127.0.0.1:9200"));
    let mut url = Url::parse(text).map_err(|error| bad(format!("a URL cannot be read ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad(format!("`{}` is not the URL of a node", url.scheme())));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad(format!("the URL of {} has a `?` or `#`: only a path may follow", name(&url))));
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

/// The URL in an Elastic Cloud id.
fn cloud(id: &str) -> Result<Url, IndexError> {
    CloudId::parse(id).map(|id| id.url).map_err(|_| {
        IndexError::Failed(
            "cloud_id: this is not a cloud id: copy it from the deployment's page, `name:` and base64 after it".into(),
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_credentials_out_of_a_url() {
        let mut auth = Auth::None;
        let url = parse("https://elastic:p%40ss%20w@es.internal:9200/path", &mut auth).unwrap();
        assert_eq!(url.as_str(), "https://es.internal:9200/path");
        assert_eq!(name(&url), "es.internal:9200");
        assert_eq!(auth, Auth::Basic { username: "elastic".into(), password: "p@ss w".into() });
        assert!(!format!("{auth:?}").contains("p@ss"));
    }

    #[test]
    fn refuses_what_is_not_a_nodes_url() {
        for text in ["127.0.0.1:9200", "kafka://a:1", "http://", "", "unix:/x", "http://u:secret@a:1/?x=1"] {
            let error = parse(text, &mut Auth::None).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:9200") && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_cloud_id_names_a_node() {
        // The example of Elastic's documentation, and one with a port.
        let id = "staging:dXMtZWFzdC0xLmF3cy5mb3VuZC5pbyRjZWM2ZjI2MWE3NGJmMjRjZTMzYmI4ODExYjg0Mjk0ZiRjNmMyY2E2ZDA0MjI0OWFmMGNjN2Q3YTllOTYyNTc0Mw==";
        let url = cloud(id).unwrap();
        assert_eq!(url.as_str(), "https://cec6f261a74bf24ce33bb8811b84294f.us-east-1.aws.found.io/");
        assert_eq!(name(&url), "cec6f261a74bf24ce33bb8811b84294f.us-east-1.aws.found.io:443");
        for bad in ["", "staging", "staging:", "staging:%%%", ":dXM=", "staging:dXM="] {
            assert!(cloud(bad).unwrap_err().to_string().starts_with("cloud_id: "), "{bad}");
        }
    }

    #[test]
    fn tokens_that_cannot_stand_in_a_header_are_refused_without_being_shown() {
        for auth in [Auth::ApiKey("se cret".into()), Auth::Bearer("Bearer secret".into()), Auth::Bearer(String::new())]
        {
            let error = credentials(auth).expect_err("it is refused").to_string();
            assert!(error.contains("write ") && !error.contains("cret"), "{error}");
        }
    }
}
