use super::*;

fn env(config: &mut Config, variables: &[(&str, &str)]) -> Result<(), ConfigError> {
    config.apply_env(&|name| variables.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned()))
}

#[test]
fn later_layers_win() {
    let mut config =
        Config::from_toml("endpoint = \"http://file:1\"\nservice = \"file\"\nfilter = \"warn\"", "f").unwrap();
    env(
        &mut config,
        &[
            ("OTEL_SERVICE_NAME", "otel"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute, k%31=v ,team=caf%C3%A9"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317/"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "77"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "11"),
            ("LOGSINK_ENDPOINT", "http://own:4317"),
            ("LOGSINK_RETRY_ELAPSED_MS_MAX", "5"),
            ("LOGSINK_FILTER", ""),
        ],
    )
    .unwrap();
    assert_eq!(config.endpoint.as_deref(), Some("http://own:4317"));
    assert_eq!(config.service.as_deref(), Some("otel"));
    assert_eq!(config.filter.as_deref(), Some("warn"), "an empty variable is unset");
    assert_eq!(config.resource["team"], "café");
    assert_eq!(config.send.timeout_ms, 77);
    assert_eq!(config.retry.elapsed_ms_max, Some(5));
    config.validate().unwrap();
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let refused = |variables: &[(&str, &str)]| {
        let mut config = Config::default();
        env(&mut config, variables).and_then(|()| config.validate()).unwrap_err().to_string()
    };
    for (variables, message) in [
        (&[("LOGSINK_CRASH_REPORT", "maybe")], "LOGSINK_CRASH_REPORT: `maybe` is neither `true`"),
        (&[("LOGSINK_DIAGNOSTICS", "loud")], "LOGSINK_DIAGNOSTICS: `loud` is not known: write off, error, warn"),
        (&[("LOGSINK_QUEUE_BYTES_MAX", "1k")], "LOGSINK_QUEUE_BYTES_MAX: `1k` is not a whole number in range"),
        (
            &[("LOGSINK_SEND_COMPRESSION", "br")],
            "LOGSINK_SEND_COMPRESSION: `br` is not known: write none, gzip, zstd or lz4",
        ),
        (
            &[("LOGSINK_BATCH_BYTES_MAX", "10")],
            "batch.bytes_max: 10 is out of range: write a number from 65536 to 4190208",
        ),
        (&[("LOGSINK_ENDPOINT", "kafka://")], "endpoint: "),
        (&[("LOGSINK_ENDPOINT", "http://h:nine")], "endpoint: `nine` is not a port: write `http://h:4317`"),
        #[cfg(feature = "kafka")]
        (&[("LOGSINK_ENDPOINT", "kafka://a:9092,b:nine/t")], "endpoint: `nine` is not a port"),
        (&[("LOGSINK_ENDPOINT", "ftp://u:secret@h")], "endpoint: `ftp://…@h` cannot be sent to"),
        (
            &[("LOGSINK_ENDPOINT", "grpc://h:4318/v1/logs")],
            "endpoint: a gRPC endpoint has no path: write `grpc://h:4318`",
        ),
        (&[("LOGSINK_ENDPOINT", "file:")], "endpoint: no file is named: write `file:/path/to/app.log`"),
        (&[("LOGSINK_ENDPOINT", "stdout:xml")], "endpoint: `xml` is not known: write `stdout:?format=text`, `pretty`"),
        (
            &[("LOGSINK_ENDPOINT", "file:/a?rotate=1")],
            "endpoint: `rotate=1` is not known: write `file:/path?format=text`",
        ),
        (
            &[("LOGSINK_QUEUE_OVERFLOW", "throw")],
            "LOGSINK_QUEUE_OVERFLOW: `throw` is not known: write drop_newest, drop_oldest, block or spill",
        ),
        (&[("LOGSINK_QUEUE_PROTECT", "errors")], "LOGSINK_QUEUE_PROTECT: `errors` is not known: write off, error"),
        (&[("LOGSINK_QUEUE_LEVEL", "error=spill")], "LOGSINK_QUEUE_LEVEL: `error=spill` is not `level=policy`"),
        (&[("LOGSINK_QUEUE_LEVEL", "error=drop_newest")], "queue.level.error: says what `queue.overflow` says already"),
        (&[("LOGSINK_SPOOL_BYTES_MAX", "1000")], "spool.bytes_max: 1000 is out of range"),
        (&[("LOGSINK_CONSOLE_FILTER", "wran")], "console_filter: unknown level `wran`: did you mean `warn`?"),
        (&[("LOGSINK_RULES", "consul://x")], "rules: `consul://x` is not a source of rules"),
        (&[("OTEL_RESOURCE_ATTRIBUTES", "a=b,secret")], "OTEL_RESOURCE_ATTRIBUTES: pair 2 is not `key=value`"),
        (&[("OTEL_RESOURCE_ATTRIBUTES", "a=%+1")], "OTEL_RESOURCE_ATTRIBUTES: pair 1"),
    ] {
        let text = refused(variables);
        assert!(text.starts_with(message), "{text}");
    }
    let text = refused(&[("LOGSINK_HEADERS", "Authorization=x"), ("LOGSINK_SEND_TOKEN_FILE", "/token")]);
    assert!(text.starts_with("send.token_file: `headers` has an `authorization` entry too"), "{text}");
    let text =
        refused(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
    assert!(text.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: `http/json` is not spoken: write `grpc`"), "{text}");

    let text = refused(&[("LOGSINK_CRASH_REPORT", "on"), ("LOGSINK_PANIC_HOOK", "off")]);
    assert!(text.starts_with("crash_report: needs the panic hook"), "{text}");

    let error = Config::from_toml("[batch]\nbytes = 3", "logsink.toml").unwrap_err();
    assert!(error.message.starts_with("line 2, column 1: ") && error.message.contains("bytes_max"), "{error}");
    assert!(!error.message.contains('\n'), "one sentence: {error}");
}

#[test]
fn rules_are_named_by_a_url_or_a_table() {
    let rules = |text: &str| Config::from_toml(&format!("rules = {text}"), "f").and_then(|config| config.rule_source());
    assert_eq!(rules("\"none\"").unwrap(), Rules::None);
    for file in ["\"file:/etc/rules.toml\"", "\"file:///etc/rules.toml\"", "{ file = \"/etc/rules.toml\" }"] {
        assert_eq!(rules(file).unwrap(), Rules::File("/etc/rules.toml".into()));
    }
    for etcd in ["\"etcd://a:1,b:2/\"", "{ etcd = [\"http://a:1\", \"http://b:2\"] }"] {
        match rules(etcd) {
            Ok(rules) => assert_eq!(rules, Rules::Etcd(vec!["http://a:1".to_owned(), "http://b:2".to_owned()])),
            Err(error) => assert!(error.message.contains("cargo feature `etcd`") && !cfg!(feature = "etcd"), "{error}"),
        }
    }
    assert!(rules("\"etcd://\"").is_err());
    let error = rules("{ consul = 1 }").unwrap_err();
    assert!(error.message.contains("{ file = … }"), "{error}");
}

#[test]
fn credentials_stay_out_of_debug_output() {
    let config = Config::from_toml("[headers]\nauthorization = \"Bearer hunter2\"", "f").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[cfg(feature = "grpc")]
#[test]
fn a_grpc_endpoint_gets_the_port_of_otlp() {
    let url = |text: &str| match Endpoint::parse(text).unwrap() {
        Endpoint::Grpc { url, tls, loopback } => (url, tls, loopback),
        other => panic!("{other:?}"),
    };
    assert_eq!(url("http://localhost"), ("http://localhost:4317".to_owned(), false, true));
    assert_eq!(url("https://[fe80::1]/"), ("https://[fe80::1]:4317".to_owned(), true, false));
    assert_eq!(url("http://[::1]:99"), ("http://[::1]:99".to_owned(), false, true));
    assert_eq!(Config::default().rule_source().unwrap(), Rules::Push);
}

#[test]
fn lines_have_a_destination_a_format_and_perhaps_colours() {
    let lines = |url: &str| match Endpoint::parse(url).unwrap() {
        Endpoint::Lines { to, format, colour } => (to, format, colour),
        other => panic!("{other:?}"),
    };
    for url in ["stdout:", "stdout://", "stdout:text", "stdout:?format=text", "stdout:?"] {
        assert_eq!(lines(url), (Destination::Stdout, Format::Text, Colour::Auto), "{url}");
    }
    assert_eq!(lines("stderr:pretty"), (Destination::Stderr, Format::Pretty, Colour::Auto));
    assert_eq!(lines("stderr:?color=always&format=json"), (Destination::Stderr, Format::Json, Colour::Always));
    let file = |path: &str, format| (Destination::File(path.into()), format, Colour::Auto);
    assert_eq!(lines("file:/var/log/app.log"), file("/var/log/app.log", Format::Text));
    assert_eq!(lines("file:///var/log/app.log?format=json"), file("/var/log/app.log", Format::Json));
    assert_eq!(lines("file:app.log?colour=never").0, Destination::File("app.log".into()));
}

#[cfg(all(feature = "grpc", feature = "http"))]
#[test]
fn the_url_and_the_protocol_tell_http_from_grpc() {
    let plain = |url: &str| match Endpoint::parse(url).unwrap() {
        Endpoint::Grpc { url, tls, .. } => format!("grpc {url} {tls}"),
        Endpoint::Http { url, tls, .. } => format!("http {url} {tls}"),
        other => panic!("{other:?}"),
    };
    for (url, expected) in [
        ("http://h", "grpc http://h:4317 false"),
        ("http://h:4318", "http http://h:4318/v1/logs false"),
        ("https://h:4318/", "http https://h:4318/v1/logs true"),
        ("https://h/otlp/v1/logs", "http https://h/otlp/v1/logs true"),
        ("otlphttp://h:80", "http http://h:80/v1/logs false"),
        ("otlphttps://h", "http https://h/v1/logs true"),
        ("otlphttps://h/", "http https://h/ true"),
        ("grpc://h:4318", "grpc http://h:4318 false"),
        ("grpcs://h", "grpc https://h:4317 true"),
    ] {
        assert_eq!(plain(url), expected, "{url}");
    }

    let (all, logs, protocol) =
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL");
    for (variables, expected) in [
        (&[(all, "http://h:4317")][..], "grpc http://h:4317 false"),
        (&[(all, "http://h:4318/")], "http http://h:4318/v1/logs false"),
        (&[(all, "https://h/otlp")], "http https://h/otlp/v1/logs true"),
        (&[(all, "http://h:9"), (protocol, "http/protobuf")], "http http://h:9/v1/logs false"),
        (&[(all, "http://h:4318"), (protocol, "grpc")], "grpc http://h:4318 false"),
        (&[(logs, "https://h:9/mine"), (protocol, "http/protobuf"), (all, "http://x:1")], "http https://h:9/mine true"),
        (&[(logs, "http://h:9"), (protocol, "http/protobuf")], "http http://h:9/ false"),
        (&[(protocol, "http/protobuf")], "http http://localhost:4318/v1/logs false"),
        (
            &[(protocol, "grpc"), ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"), (all, "http://h:9")],
            "http http://h:9/v1/logs false",
        ),
        (&[(all, "http://h:4318"), ("LOGSINK_ENDPOINT", "http://own:4317")], "grpc http://own:4317 false"),
    ] {
        let mut config = Config::default();
        env(&mut config, variables).unwrap();
        assert_eq!(plain(config.endpoint.as_deref().unwrap()), expected, "{variables:?}");
    }
}

#[test]
fn proxies_are_read_from_the_environment() {
    let mut config = Config::default();
    env(&mut config, &[("https_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:1"), ("no_proxy", "x")]).unwrap();
    assert_eq!((config.send.proxy_env.https.as_str(), config.send.proxy_env.no.as_str()), ("http://b:1", "x"));
    // A CGI program's caller could set it.
    env(&mut config, &[("HTTP_PROXY", "http://evil:1"), ("REQUEST_METHOD", "GET")]).unwrap();
    assert_eq!(config.send.proxy_env.http, "");
    env(&mut config, &[("LOGSINK_SEND_PROXY", "none"), ("LOGSINK_SEND_TOKEN_FILE", "/t")]).unwrap();
    assert_eq!(config.send.proxy, Some(Secret("none".to_owned())));
    assert_eq!(config.send.token_file, Some("/t".into()));
}

#[cfg(feature = "kafka")]
#[test]
fn several_sinks_are_named_or_found() {
    let read = |url: &str| Config { endpoint: Some(url.to_owned()), ..Config::default() }.endpoint();
    let urls = vec!["http://a:4317".to_owned(), "http://b:14317".to_owned()];
    if cfg!(feature = "grpc") {
        assert_eq!(read("http://a, b:14317/"), Ok(Endpoint::GrpcAny { urls, tls: false, loopback: false }));
        let own = read("grpcs://127.0.0.1:1,localhost:2").unwrap();
        assert!(matches!(own, Endpoint::GrpcAny { tls: true, loopback: true, .. }), "{own:?}");
        assert_eq!(read("http://a:4317,a").unwrap_err().message, "http://a:4317 is named twice");
        for (url, says) in [
            ("http://a:4318,b:4318", "a list is for gRPC"),
            ("http://a:4317,", "no host: write"),
            ("http://a:4317,b:nine", "`nine` is not a port"),
        ] {
            let message = read(url).unwrap_err().message;
            assert!(message.starts_with(says), "{url}: {message}");
        }
    }
    if cfg!(all(feature = "grpc", feature = "etcd")) {
        let members = vec!["http://e1:2379".to_owned(), "http://e2:2379".to_owned()];
        let endpoint = |fleet: &str| Ok(Endpoint::Etcd { members: members.clone(), fleet: fleet.to_owned() });
        assert_eq!(read("etcd://e1:2379,e2:2379/"), endpoint(""));
        assert_eq!(read("etcd://e1:2379,e2:2379/eu-1"), endpoint("eu-1"));
        assert!(read("etcd://e1:2379,/").is_err() && read("etcd://").is_err() && read("etcd://e/a/b").is_err());
        let config = Config { endpoint: Some("etcd://e".to_owned()), ..Config::default() };
        assert_eq!(config.rule_source(), Ok(Rules::Push));
    } else {
        assert!(read("etcd://e1:2379").unwrap_err().message.contains("cargo feature"));
    }
}

#[test]
#[cfg(feature = "kafka")]
fn a_kafka_endpoint_has_brokers_and_a_topic() {
    let kafka = |brokers: &str, topic: &str| Endpoint::Kafka {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        tls: false,
    };
    assert_eq!(Endpoint::parse("kafka://a:9092,b:9092/logs").unwrap(), kafka("a:9092,b:9092", "logs"));
    assert_eq!(Endpoint::parse("kafka://a:9092").unwrap(), kafka("a:9092", "otlp_logs"));
    assert!(Endpoint::parse("kafka://a:9092/x/y").is_err());
    match Endpoint::parse("kafkas://a:9093/logs") {
        Ok(endpoint) => assert!(matches!(endpoint, Endpoint::Kafka { tls: true, .. })),
        Err(error) => assert!(error.contains("`kafka-ssl`") && !cfg!(feature = "kafka-ssl"), "{error}"),
    }
    let sasl = |text: &str| Config::from_toml(text, "f").unwrap().validate().map_err(|error| error.field);
    assert_eq!(sasl("[sasl]\nusername = \"jo\""), Err("sasl.mechanism".to_owned()));
    assert_eq!(sasl("[sasl]\nmechanism = \"PLAIN\"\npassword = \"a\"\npassword_file = \"b\""), Err("sasl".to_owned()));
    let config = Config { endpoint: Some("kafka://a:9092".to_owned()), ..Config::default() };
    assert_eq!(config.rule_source().unwrap(), Rules::None);
}

#[test]
fn what_is_captured_and_redacted_comes_from_all_layers() {
    use crate::{FieldNames, SpanFields};
    let names = |names: &[&str]| FieldNames::new(names.iter().copied()).unwrap();
    let with = |toml: &str, variables: &[(&str, &str)]| {
        let mut config = Config::from_toml(toml, "logsink.toml")?;
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        config.apply_env(&value)?;
        config.validate()?;
        config.capture(None)
    };
    let default = crate::Capture::default();
    for (toml, variables, expected) in [
        ("", &[][..], default),
        (
            "redact = [\"password\"]",
            &[("LOGSINK_REDACT", "*secret*, pin")],
            crate::Capture { redact: names(&["password", "*secret*", "pin"]), ..default },
        ),
        (
            "[capture]\nspan_fields = \"none\"\nthread = false",
            &[("LOGSINK_CAPTURE_LOCATION", "false")],
            crate::Capture { span_fields: SpanFields::None, thread: false, location: false, ..default },
        ),
        (
            "[capture]\nspan_fields = [\"user\"]",
            &[],
            crate::Capture { span_fields: SpanFields::Only(names(&["user"])), ..default },
        ),
        ("[capture]\nspan_fields = [\"user\"]", &[("LOGSINK_CAPTURE_SPAN_FIELDS", "all")], default),
        (
            "",
            &[("LOGSINK_CAPTURE_SPAN_FIELDS", "user, http.*"), ("LOGSINK_CAPTURE_SPANS", "true")],
            crate::Capture { span_fields: SpanFields::Only(names(&["user", "http.*"])), ..default },
        ),
    ] {
        assert_eq!(with(toml, variables).unwrap(), expected, "{toml} {variables:?}");
    }
    for (toml, variables, field, message) in [
        ("redact = [\"level\"]", &[][..], "redact", "`level` cannot be redacted"),
        ("", &[("LOGSINK_REDACT", "a, trace_id")], "redact", "`trace_id`"),
        ("[capture]\nspan_fields = \"al\"", &[], "capture.span_fields", "`al` is none of the choices"),
        ("[capture]\nspan_fields = 7", &[], "logsink.toml", "expected \"all\", \"none\""),
        ("[capture]\nspan_fields = [\"service\"]", &[], "capture.span_fields", "`service`"),
        ("", &[("LOGSINK_CAPTURE_SPANS", "yes")], "LOGSINK_CAPTURE_SPANS", "neither `true` nor `false`"),
    ] {
        let error = with(toml, variables).unwrap_err();
        assert!(error.field == field && error.message.contains(message), "{error}");
    }
    // What the program chooses takes the place of the settings, but uncovers nothing.
    let config = Config { redact: vec!["password".to_owned()], ..Config::default() };
    let chosen = crate::Capture { thread: false, redact: names(&["pin"]), ..default };
    assert_eq!(config.capture(Some(chosen)).unwrap(), crate::Capture { redact: names(&["pin", "password"]), ..chosen });
}

#[test]
fn further_sinks_have_what_is_theirs() {
    let text = "[batch]\nrecords_max = 7\n[headers]\nauthorization = \"secret\"\n\
                [[sink]]\nendpoint = \"stdout:\"\nfilter = \"warn\"\n\
                [[sink]]\nendpoint = \"stderr:\"\nbatch = { age_ms_max = 9 }\noverflow = \"drop_oldest\"";
    let config = Config::from_toml(text, "f").unwrap();
    config.validate().unwrap();
    let [first, second] = &config.sink[..] else { panic!("{:?}", config.sink) };
    let (one, two) = (config.of_sink(first), config.of_sink(second));
    assert_eq!((one.endpoint.as_deref(), one.batch.records_max, one.headers.len()), (Some("stdout:"), 7, 0));
    assert_eq!((two.batch.records_max, two.batch.age_ms_max), (8192, 9), "a table replaces the whole table");
    assert_eq!((first.overflow(&config), second.overflow(&config)), (Overflow::DropNewest, Overflow::DropOldest));

    for (sinks, message) in [
        ("endpoint = \"ftp://h\"", "sink[0].endpoint: `ftp://h` cannot be sent to"),
        ("endpoint = \"stdout:\"\noverflow = \"block\"", "sink[0].overflow: a further sink holds up nobody"),
        ("endpoint = \"stdout:\"\nfilter = \"inof\"", "sink[0].filter: unknown level `inof`"),
        ("endpoint = \"stdout:\"\nbatch = { records_max = 0 }", "sink[0].batch.records_max: 0 is out of range"),
        ("endpoint = \"stdout:\"\n[[sink]]\nendpoint = \"stdout:\"", "sink: stdout: is named twice"),
    ] {
        let config = Config::from_toml(&format!("[[sink]]\n{sinks}"), "f").unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn the_memory_is_shared_out_in_full() {
    let queue = Queue::default();
    let (channel, bounds) = (queue.channel(), queue.bounds(Overflow::DropNewest, 3));
    let lanes = 3 * (bounds.bytes_max + bounds.reserve_bytes);
    let all = channel.bytes_max + channel.reserve_bytes + lanes;
    assert!(all <= queue.bytes_max && all > queue.bytes_max - 16, "{all}");
    // Errors have a reserve unless told otherwise, and nobody waits.
    assert!(channel.levels.keeps(crate::Severity::ERROR) && !channel.levels.any_blocks());
}

#[test]
fn hooks_are_turned_on_and_off_by_file_and_environment() {
    let text = "panic_hook = false\nflush_on_signals = true\ndiagnostics = \"debug\"";
    let mut config = Config::from_toml(text, "f").unwrap();
    assert_eq!((config.panic_hook, config.crash_report, config.flush_on_signals), (Some(false), false, true));
    assert_eq!(config.diagnostics, Some(Threshold::Debug));
    let environment = BTreeMap::from([
        ("LOGSINK_PANIC_HOOK", "on"),
        ("LOGSINK_CRASH_REPORT", "true"),
        ("LOGSINK_FLUSH_ON_SIGNALS", "false"),
        ("LOGSINK_DIAGNOSTICS", "off"),
    ]);
    config.apply_env(&|name| environment.get(name).map(|value| (*value).to_owned())).unwrap();
    assert_eq!((config.panic_hook, config.crash_report, config.flush_on_signals), (Some(true), true, false));
    assert_eq!((config.diagnostics, config.validate()), (Some(Threshold::Off), Ok(())));
}
