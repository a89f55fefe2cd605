use super::*;

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Answer {
    let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Answer { status: StatusCode::from_u16(status).unwrap(), headers: headers.collect(), body: Bytes::from_static(body) }
}

#[test]
fn statuses_are_judged_as_the_specification_wants() {
    for status in 200..600 {
        let judged = answer(status, &[], b"").judge();
        match status {
            200..300 => assert_eq!(judged, Ok(Accepted::default())),
            413 => assert!(matches!(judged, Err(SendError::TooLarge { .. }))),
            429 | 502 | 503 | 504 => {
                assert!(matches!(judged, Err(SendError::Retryable { after: None, .. })), "{status}")
            }
            _ => assert!(matches!(judged, Err(SendError::Permanent { .. })), "{status}"),
        }
    }
}

#[test]
fn a_wait_is_obeyed_only_where_trying_again_makes_sense() {
    let after = |status| match answer(status, &[("retry-after", "7")], b"").judge() {
        Err(SendError::Retryable { after, .. }) => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after(429), Some(Duration::from_secs(7)));
    assert_eq!(after(503), Some(Duration::from_secs(7)));
    assert!(matches!(answer(500, &[("retry-after", "7")], b"").judge(), Err(SendError::Permanent { .. })));
}

#[test]
fn the_sink_s_words_are_one_line() {
    let protobuf = ("content-type", "application/x-protobuf; charset=x");
    // google.rpc.Status { code = 1, message = 2 }
    let reason = answer(400, &[protobuf], b"\x08\x03\x12\x03bad").reason();
    assert_eq!(reason, "HTTP status 400 Bad Request: bad");
    let reason = answer(502, &[("content-type", "text/html")], b"<h1>\n\x1b[31mBad</h1>\n").reason();
    assert_eq!(reason, "HTTP status 502 Bad Gateway: <h1>\\n\\u{1b}[31mBad</h1>");
    let reason = answer(301, &[("location", "https://new/v1/logs")], b"").reason();
    assert_eq!(
        reason,
        "HTTP status 301 Moved Permanently: write the endpoint that it has moved to, \"https://new/v1/logs\""
    );
}

#[test]
fn a_partial_success_counts_only_in_protobuf() {
    let body = b"\x0a\x07\x08\x03\x12\x03old";
    let rejected = |name| answer(200, &[("content-type", name)], body).judge().unwrap().rejected;
    assert_eq!(rejected("application/x-protobuf"), 3);
    assert_eq!(rejected("text/plain"), 0);
}

#[test]
fn what_cannot_be_sent_is_the_operator_s_error() {
    let error = |text: &str, url: &str, compression| {
        let config = Config::from_toml(text, "f").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _within = runtime.enter();
        HttpTransport::new(url, &config, compression).unwrap_err().to_string()
    };
    let url = "http://127.0.0.1:4318/v1/logs";
    assert!(error("", url, Compression::Lz4).starts_with("send.compression: OTLP/HTTP has no lz4"));
    assert!(
        error("", "http://a b/v1/logs", Compression::None).starts_with("endpoint: `http://a b/v1/logs` is not a URL")
    );
    let said = error("[headers]\nauthorization = \"hunter2\\n\"", url, Compression::None);
    assert_eq!(said, "headers.authorization: its value cannot be sent in an HTTP header");
    let said = error("[send]\ntoken_file = \"/nowhere/token\"", url, Compression::None);
    assert!(said.starts_with("send.token_file: cannot take a token from /nowhere/token"), "{said}");
    let said = error("[tls]\nca = \"/nowhere/ca.pem\"", "https://h/v1/logs", Compression::None);
    assert!(said.starts_with("tls.ca: cannot read /nowhere/ca.pem"), "{said}");
}
