//! Environment variables over the file: `OTEL_*` as the OpenTelemetry specification names them, then `LOGSINK_*`.
//!
//! A `LOGSINK_*` variable is the key's path in capitals: `batch.bytes_max` is `LOGSINK_BATCH_BYTES_MAX`. An empty variable
//! counts as unset, as the specification wants it.

use std::{collections::BTreeMap, str::FromStr};

use super::{
    Compression, Config, Level, LevelOverflow, ProxyEnv, RulesFrom, Secret, Threshold,
    capture::{SpanFieldsFrom, names},
    endpoint::LOGS_PATH,
    queue::named,
};
use crate::ConfigError;

/// Reads one variable.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Lays the environment over what is there. `read` gives a variable's value.
    ///
    /// # Errors
    /// When a variable's value cannot be used.
    pub fn apply_env(&mut self, read: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let read = |name: &str| read(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        self.apply_proxies(&read);
        self.apply_otel(&read)?;
        self.apply_own(&read)
    }

    /// The variables that most programs know, in capitals or not.
    fn apply_proxies(&mut self, read: Read<'_>) {
        let any = |name: &str| read(name).or_else(|| read(&name.to_ascii_lowercase())).unwrap_or_default();
        // A CGI program finds the header `Proxy` of whoever calls it in this variable (CVE-2016-5385).
        let http = if read("REQUEST_METHOD").is_none() { any("HTTP_PROXY") } else { String::new() };
        self.send.proxy_env = ProxyEnv { http, https: any("HTTPS_PROXY"), all: any("ALL_PROXY"), no: any("NO_PROXY") };
    }

    fn apply_otel(&mut self, read: Read<'_>) -> Result<(), ConfigError> {
        // What is said of logs alone wins over what is said of all signals.
        let signal = |name: &str| -> Option<(String, String)> {
            [format!("OTEL_EXPORTER_OTLP_LOGS_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
                .into_iter()
                .find_map(|name| read(&name).map(|value| (name, value)))
        };
        self.apply_otel_endpoint(read, signal("PROTOCOL"))?;
        if let Some((name, text)) = signal("HEADERS") {
            self.headers.extend(pairs(&name, &text)?.into_iter().map(|(key, value)| (key, Secret(value))));
        }
        if let Some((name, text)) = signal("TIMEOUT") {
            self.send.timeout_ms = parse(&name, &text)?;
        }
        if let Some((name, text)) = signal("COMPRESSION") {
            self.send.compression = Some(compression(&name, &text)?);
        }
        for (name, file) in [
            ("CERTIFICATE", &mut self.tls.ca),
            ("CLIENT_CERTIFICATE", &mut self.tls.certificate),
            ("CLIENT_KEY", &mut self.tls.key),
        ] {
            if let Some((_, path)) = signal(name) {
                *file = Some(path.into());
            }
        }
        if let Some(text) = read("OTEL_RESOURCE_ATTRIBUTES") {
            let mut attributes = pairs("OTEL_RESOURCE_ATTRIBUTES", &text)?;
            if let Some(service) = attributes.remove("service.name") {
                self.service = Some(service);
            }
            self.resource.extend(attributes);
        }
        if let Some(service) = read("OTEL_SERVICE_NAME") {
            self.service = Some(service);
        }
        Ok(())
    }

    /// The endpoint and its protocol. The endpoint of all signals is the base of the one for logs.
    fn apply_otel_endpoint(&mut self, read: Read<'_>, protocol: Option<(String, String)>) -> Result<(), ConfigError> {
        let over_http = match &protocol {
            None => None,
            Some((_, protocol)) if protocol == "grpc" => Some(false),
            Some((_, protocol)) if protocol == "http/protobuf" => Some(true),
            Some((name, protocol)) => {
                let message = format!("`{protocol}` is not spoken: write `grpc` or `http/protobuf`");
                return Err(ConfigError { field: name.clone(), message });
            }
        };
        let (url, is_base) = match (read("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"), read("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(url), _) => (url, false),
            (None, Some(url)) => (url, true),
            // The specification's default endpoint of this protocol.
            (None, None) if over_http == Some(true) && self.endpoint.is_none() => {
                ("http://localhost:4318".to_owned(), true)
            }
            (None, None) => return Ok(()),
        };
        let Some((scheme, address)) = url.split_once("://") else {
            self.endpoint = Some(url);
            return Ok(());
        };
        let path = address.find('/').map_or("", |at| &address[at..]);
        // What the protocol leaves open, the port and the path say, as in `endpoint`.
        let authority = &address[..address.len() - path.len()];
        let looks_http = authority.ends_with(":4318") || !matches!(path, "" | "/");
        let trimmed = address.trim_end_matches('/');
        self.endpoint = Some(match (scheme, over_http.unwrap_or(looks_http)) {
            ("http" | "https", true) if is_base => format!("otlp{scheme}://{trimmed}{LOGS_PATH}"),
            // Taken as it is; where it has no path, that is the root.
            ("http" | "https", true) => format!("otlp{scheme}://{address}{}", if path.is_empty() { "/" } else { "" }),
            ("http", false) if looks_http => format!("grpc://{trimmed}"),
            ("https", false) if looks_http => format!("grpcs://{trimmed}"),
            _ => url.trim_end_matches('/').to_owned(),
        });
        Ok(())
    }

    fn apply_own(&mut self, read: Read<'_>) -> Result<(), ConfigError> {
        let text = |name: &str, field: &mut Option<String>| {
            if let Some(value) = read(name) {
                *field = Some(value);
            }
        };
        text("LOGSINK_ENDPOINT", &mut self.endpoint);
        text("LOGSINK_SERVICE", &mut self.service);
        text("RUST_LOG", &mut self.filter);
        text("RUST_LOG", &mut self.console_filter);
        text("LOGSINK_CONSOLE_FILTER", &mut self.console_filter);
        text("LOGSINK_FILTER", &mut self.filter);
        if let Some(value) = read("LOGSINK_RULES") {
            self.rules = Some(RulesFrom::Text(value));
        }
        // The short form too: it is what one wants to set in a hurry.
        text("LOGSINK_RECORDER", &mut self.recorder.filter);
        text("LOGSINK_RECORDER_FILTER", &mut self.recorder.filter);
        if let Some(level) = read("LOGSINK_RECORDER_TRIGGER") {
            self.recorder.trigger = level;
        }
        text("LOGSINK_TLS_SERVER_NAME", &mut self.tls.server_name);
        text("LOGSINK_SASL_MECHANISM", &mut self.sasl.mechanism);
        text("LOGSINK_SASL_USERNAME", &mut self.sasl.username);
        for (name, secret) in
            [("LOGSINK_SASL_PASSWORD", &mut self.sasl.password), ("LOGSINK_SEND_PROXY", &mut self.send.proxy)]
        {
            if let Some(value) = read(name) {
                *secret = Some(Secret(value));
            }
        }
        for (name, path) in [
            ("LOGSINK_CACHE_DIR", &mut self.cache_dir),
            ("LOGSINK_SPOOL_DIR", &mut self.spool.dir),
            ("LOGSINK_TLS_CA", &mut self.tls.ca),
            ("LOGSINK_TLS_CERTIFICATE", &mut self.tls.certificate),
            ("LOGSINK_TLS_KEY", &mut self.tls.key),
            ("LOGSINK_SEND_TOKEN_FILE", &mut self.send.token_file),
            ("LOGSINK_SASL_PASSWORD_FILE", &mut self.sasl.password_file),
        ] {
            if let Some(value) = read(name) {
                *path = Some(value.into());
            }
        }
        if let Some(value) = read("LOGSINK_REDACT") {
            // Beside those of the file: who adds one must not uncover another.
            self.redact.extend(names(&value));
        }
        boolean(read, "LOGSINK_CAPTURE_LOCATION", &mut self.capture.location)?;
        boolean(read, "LOGSINK_CAPTURE_THREAD", &mut self.capture.thread)?;
        boolean(read, "LOGSINK_CAPTURE_SPANS", &mut self.capture.spans)?;
        if let Some(value) = read("LOGSINK_CAPTURE_SPAN_FIELDS") {
            self.capture.span_fields = SpanFieldsFrom::from_list(&value);
        }
        if let Some(value) = read("LOGSINK_RESOURCE") {
            self.resource.extend(pairs("LOGSINK_RESOURCE", &value)?);
        }
        if let Some(value) = read("LOGSINK_HEADERS") {
            let headers = pairs("LOGSINK_HEADERS", &value)?;
            self.headers.extend(headers.into_iter().map(|(key, value)| (key, Secret(value))));
        }
        if let Some(value) = read("LOGSINK_KAFKA") {
            let properties = pairs("LOGSINK_KAFKA", &value)?;
            self.kafka.extend(properties.into_iter().map(|(key, value)| (key, Secret(value))));
        }
        if let Some(value) = read("LOGSINK_SEND_COMPRESSION") {
            self.send.compression = Some(compression("LOGSINK_SEND_COMPRESSION", &value)?);
        }
        word(read, "LOGSINK_CONSOLE", &mut self.console)?;
        let mut diagnostics = self.diagnostics.unwrap_or(Threshold::Off);
        word(read, "LOGSINK_DIAGNOSTICS", &mut diagnostics)?;
        self.diagnostics = Some(diagnostics);
        if read("LOGSINK_PANIC_HOOK").is_some() {
            boolean(read, "LOGSINK_PANIC_HOOK", self.panic_hook.insert(true))?;
        }
        boolean(read, "LOGSINK_CRASH_REPORT", &mut self.crash_report)?;
        boolean(read, "LOGSINK_FLUSH_ON_SIGNALS", &mut self.flush_on_signals)?;
        number(read, "LOGSINK_QUEUE_BYTES_MAX", &mut self.queue.bytes_max)?;
        number(read, "LOGSINK_QUEUE_BLOCK_MS_MAX", &mut self.queue.block_ms_max)?;
        word(read, "LOGSINK_QUEUE_OVERFLOW", &mut self.queue.overflow)?;
        word(read, "LOGSINK_QUEUE_PROTECT", &mut self.queue.protect)?;
        if let Some(value) = read("LOGSINK_QUEUE_LEVEL") {
            self.queue.level.extend(level_overflows("LOGSINK_QUEUE_LEVEL", &value)?);
        }
        number(read, "LOGSINK_SPOOL_BYTES_MAX", &mut self.spool.bytes_max)?;
        number(read, "LOGSINK_SPOOL_AGE_S_MAX", &mut self.spool.age_s_max)?;
        number(read, "LOGSINK_RECORDER_BYTES_MAX", &mut self.recorder.bytes_max)?;
        number(read, "LOGSINK_RECORDER_RING_BYTES", &mut self.recorder.ring_bytes)?;
        number(read, "LOGSINK_BATCH_BYTES_MAX", &mut self.batch.bytes_max)?;
        number(read, "LOGSINK_BATCH_RECORDS_MAX", &mut self.batch.records_max)?;
        number(read, "LOGSINK_BATCH_AGE_MS_MAX", &mut self.batch.age_ms_max)?;
        number(read, "LOGSINK_SEND_IN_FLIGHT_MAX", &mut self.send.in_flight_max)?;
        number(read, "LOGSINK_SEND_TIMEOUT_MS", &mut self.send.timeout_ms)?;
        number(read, "LOGSINK_SEND_FLUSH_TIMEOUT_MS", &mut self.send.flush_timeout_ms)?;
        number(read, "LOGSINK_SEND_LOSSES_MS", &mut self.send.losses_ms)?;
        number(read, "LOGSINK_RETRY_DELAY_MS_MIN", &mut self.retry.delay_ms_min)?;
        number(read, "LOGSINK_RETRY_DELAY_MS_MAX", &mut self.retry.delay_ms_max)?;
        let mut elapsed = 0;
        if number(read, "LOGSINK_RETRY_ELAPSED_MS_MAX", &mut elapsed)? {
            self.retry.elapsed_ms_max = Some(elapsed);
        }
        Ok(())
    }
}

fn number<T: FromStr>(read: Read<'_>, name: &str, field: &mut T) -> Result<bool, ConfigError> {
    let Some(text) = read(name) else { return Ok(false) };
    *field = parse(name, &text)?;
    Ok(true)
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|_| ConfigError {
        field: name.to_owned(),
        message: format!("`{text}` is not a whole number in range"),
    })
}

/// One of the words that a setting knows.
fn word<T: FromStr<Err = String>>(read: Read<'_>, name: &str, field: &mut T) -> Result<(), ConfigError> {
    if let Some(text) = read(name) {
        *field = text.parse().map_err(|message| ConfigError { field: name.to_owned(), message })?;
    }
    Ok(())
}

/// `error=block,debug=drop_newest`
fn level_overflows(name: &str, text: &str) -> Result<BTreeMap<Level, LevelOverflow>, ConfigError> {
    let one = |pair: &str| {
        let (level, overflow) = pair.split_once('=')?;
        Some((named(level.trim())?, named(overflow.trim())?))
    };
    let all: Option<_> = text.split(',').filter(|pair| !pair.trim().is_empty()).map(one).collect();
    all.ok_or_else(|| ConfigError {
        field: name.to_owned(),
        message: format!("`{text}` is not `level=policy`: write `error=block`, policies being drop_newest and block"),
    })
}

fn boolean(read: Read<'_>, name: &str, field: &mut bool) -> Result<(), ConfigError> {
    let Some(text) = read(name) else { return Ok(()) };
    *field = match text.as_str() {
        "true" | "on" => true,
        "false" | "off" => false,
        _ => {
            let message = format!("`{text}` is neither `true` nor `false`");
            return Err(ConfigError { field: name.to_owned(), message });
        }
    };
    Ok(())
}

fn compression(name: &str, text: &str) -> Result<Compression, ConfigError> {
    Ok(match text {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        "lz4" => Compression::Lz4,
        _ => {
            let message = format!("`{text}` is not known: write none, gzip, zstd or lz4");
            return Err(ConfigError { field: name.to_owned(), message });
        }
    })
}

/// `key=value,key=value`, values percent-encoded (W3C Baggage, which the specification refers to).
fn pairs(name: &str, text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    // The values may be credentials: the error names the pair by its place.
    let refuse = |index: usize| ConfigError {
        field: name.to_owned(),
        message: format!("pair {} is not `key=value` with percent-encoded UTF-8: separate pairs by commas", index + 1),
    };
    let mut pairs = BTreeMap::new();
    for (index, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| refuse(index))?;
        let key = key.trim();
        let value = percent_decoded(value.trim()).ok_or_else(|| refuse(index))?;
        if key.is_empty() {
            return Err(refuse(index));
        }
        pairs.insert(key.to_owned(), value);
    }
    Ok(pairs)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            // `from_str_radix` takes a sign.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}
