//! The search page: three files embedded in the binary, no build step.
//!
//! What the page shows came from strangers. Its script puts text into the page only as text, and the policy below lets
//! the browser run and load nothing but these files.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/` and what it loads.
pub fn router() -> Router {
    const HTML: &str = "text/html; charset=utf-8";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    const STYLE: &str = "text/css; charset=utf-8";
    Router::new()
        .route("/", get(|| file(HTML, include_str!("../ui/index.html"))))
        .route("/app.js", get(|| file(SCRIPT, include_str!("../ui/app.js"))))
        .route("/style.css", get(|| file(STYLE, include_str!("../ui/style.css"))))
        .route("/icon.svg", get(|| file("image/svg+xml", include_str!("../ui/icon.svg"))))
}

async fn file(media_type: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Small files on a near server: asking anew each time beats showing an old page after an upgrade.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
