//! HTTP requests from tests, which are plain blocking functions.

use std::time::Duration;

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub body: String,
}

/// GET.
///
/// # Errors
/// When there is no answer.
pub fn get(url: &str) -> Result<Answer, String> {
    request(|client| client.get(url))
}

/// POST with a content type.
///
/// # Errors
/// When there is no answer.
pub fn post(url: &str, content_type: &str, body: Vec<u8>) -> Result<Answer, String> {
    post_with(url, &[("content-type", content_type)], body)
}

/// POST with these headers.
///
/// # Errors
/// When there is no answer.
pub fn post_with(url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer, String> {
    request(|client| headers.iter().fold(client.post(url), |post, (name, value)| post.header(*name, *value)).body(body))
}

fn request(build: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .map_err(|error| error.to_string())?;
        let response = build(&client).send().await.map_err(|error| format!("{error:?}"))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await.map_err(|error| error.to_string())? })
    })
}
