//! Which server it is, as `GET /` says: Elasticsearch 7.17 to 9, OpenSearch 2 and 3.

use elasticsearch::http::Method;
use serde::Deserialize;

use super::{Elasticsearch, Failed};

/// Which server it is: they index attributes by different field types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    /// `flattened`
    Elasticsearch,
    /// `flat_object`
    OpenSearch,
}

/// Asks the server what it is. One that is too old is for a person to replace.
pub(super) async fn flavor(elasticsearch: &Elasticsearch) -> Result<Flavor, Failed> {
    let answer = elasticsearch.call(Method::Get, "/", &[], None).await?.ok()?;
    read(&answer)
}

fn read(answer: &[u8]) -> Result<Flavor, Failed> {
    #[derive(Deserialize)]
    struct About {
        version: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        number: String,
        #[serde(default)]
        distribution: String,
    }
    let Ok(About { version: Version { number, distribution } }) = serde_json::from_slice(answer) else {
        return Err(Failed::retry("garbage", "the answer to GET / is not that of Elasticsearch or OpenSearch".into()));
    };
    let mut parts = number.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    let version = (parts.next().flatten(), parts.next().flatten());
    match (distribution.as_str(), version) {
        // 7.10.2 is what OpenSearch says where old clients are to take it for Elasticsearch.
        ("opensearch", (Some(2..), _)) => Ok(Flavor::OpenSearch),
        ("", (Some(8..), _) | (Some(7), Some(17..))) => Ok(Flavor::Elasticsearch),
        ("" | "opensearch", _) => Err(Failed::Stop {
            message: format!(
                "the server is {} {number}: Elasticsearch 7.17 or later or OpenSearch 2 or later is needed",
                if distribution.is_empty() { "Elasticsearch" } else { "OpenSearch" }
            ),
        }),
        _ => Err(Failed::Stop {
            message: format!("the server is `{distribution}`: Elasticsearch or OpenSearch is needed"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(number: &str, distribution: Option<&str>) -> Result<Flavor, Failed> {
        let mut version = serde_json::json!({"number": number});
        if let Some(distribution) = distribution {
            version["distribution"] = distribution.into();
        }
        read(serde_json::json!({"name": "n", "version": version, "tagline": "t"}).to_string().as_bytes())
    }

    #[test]
    fn tells_the_servers_apart() {
        for number in ["7.17.0", "7.17.29", "8.0.0", "8.19.21", "9.5.3", "9.0.0-beta1", "10.1.0"] {
            assert_eq!(about(number, None), Ok(Flavor::Elasticsearch), "{number}");
        }
        for number in ["2.0.0", "2.19.1", "3.8.0", "7.10.2"] {
            assert_eq!(about(number, Some("opensearch")), Ok(Flavor::OpenSearch), "{number}");
        }
    }

    #[test]
    fn refuses_what_is_too_old_with_a_sentence() {
        for (number, distribution) in [
            ("7.16.3", None),
            ("7.10.2", None),
            ("6.8.23", None),
            ("x", None),
            ("1.3.20", Some("opensearch")),
            ("8.0.0", Some("other")),
        ] {
            let Err(Failed::Stop { message }) = about(number, distribution) else { panic!("{number} is taken") };
            assert!(message.contains("is needed"), "{message}");
        }
        assert!(matches!(read(b"<html>"), Err(Failed::Retry { .. })), "a proxy's page says nothing about the server");
    }
}
