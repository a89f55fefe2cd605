//! JSON log lines in a topic, one document a message, as other shippers write them.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use logsink_tests::{
    Server,
    process::{Process, free_port},
    server::Space,
    stack, unique, until,
};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};

const FOUND: Duration = Duration::from_secs(60);

/// A real rsyslog, which writes what comes to this port into the topic, with all that it knows of a line.
fn rsyslog(dir: &Path, port: u16, topic: &str) -> Process {
    let program = stack::program("rsyslog/usr/sbin/rsyslogd");
    let home = stack::program("rsyslog/modules");
    let config = dir.join("rsyslog.conf");
    let text = format!(
        "global(workDirectory={dir:?})\nmodule(load=\"imptcp\")\nmodule(load=\"omkafka\")\n\
         template(name=\"json\" type=\"list\") {{ property(name=\"jsonmesg\") }}\n\
         input(type=\"imptcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
         if $inputname == \"imptcp\" then action(type=\"omkafka\" broker=[{:?}] topic={topic:?} template=\"json\" confParam=[\"acks=all\"])\n",
        stack::kafka()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", home.with_file_name("libraries")).args(["-n", "-i", "NONE", "-M"]).arg(&home);
    command.arg("-f").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
    let process = Process::start(&mut command, &dir.join("rsyslog.log"));
    until("rsyslog listens", FOUND, || {
        TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| format!("{error}\n{}", process.stderr()))
    });
    process
}

#[test]
fn rsyslogs_lines_and_those_of_others_are_found_and_what_is_no_line_is_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space { kafka: "format = \"json\"\n".into(), ..Space::new("lines") };
    let mut server = Server::cluster(dir.path(), "drain", &["drain", "query"], &space);

    let port = free_port();
    let _rsyslog = rsyslog(dir.path(), port, &space.topic);
    let service = unique("syslog");
    // RFC 5424: facility 10, severity 4.
    let lines: String = (0..20)
        .map(|n| format!("<84>1 2026-11-26T14:13:02.5Z web-1 {service} 77 ID{n} - payment {n} was refused\n"))
        .collect();
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(lines.as_bytes()).unwrap();

    // The shapes of the others, with a bad message between them.
    let of_others = [
        (
            "filebeat",
            r#"{"@timestamp":"2026-11-26T14:13:02.123Z","message":"request finished","log":{"level":"error","offset":7},
                "service":{"name":"SERVICE"},"trace":{"id":"0af7651916cd43dd8448eb211c80319c"},"host":{"name":"web-1"},
                "http":{"response":{"status_code":503}},"ecs":{"version":"8.0.0"}}"#,
            "level=error \"request finished\" trace_id=0af7651916cd43dd8448eb211c80319c http.response.status_code=503",
        ),
        ("broken", "{\"message\": half a line", ""),
        (
            "vector",
            r#"{"appname":"SERVICE","host":"web-1","message":"upstream timed out","severity":"err","timestamp":"2026-11-26T14:13:02Z","procid":4711}"#,
            "level=error \"upstream timed out\" procid=4711",
        ),
        (
            "fluentbit",
            r#"{"@timestamp":1795702382.250001,"log":"GET / 200","stream":"stdout","kubernetes":{"container_name":"SERVICE","pod_name":"web-6f"}}"#,
            "\"GET / 200\" stream=stdout kubernetes.pod_name=web-6f",
        ),
    ];
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", stack::kafka()).set("acks", "all").create().unwrap();
    let traceparent = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let names = of_others.map(|(name, ..)| unique(name));
    for ((_, line, _), name) in of_others.iter().zip(&names) {
        let line = line.replace("SERVICE", name);
        let record = BaseRecord::<(), _>::to(&space.topic).payload(&line).partition(0);
        producer
            .send(record.headers(OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(traceparent) })))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(FOUND).unwrap();

    // Severity 4 of syslog is a warning; the day is the line's own.
    let day = ["--from", "2026-11-26T00:00:00Z", "--to", "2026-11-27T00:00:00Z"];
    let found = |expression: &str, count: usize| {
        until(&format!("{count} hits of {expression}"), FOUND, || {
            let hits = server.try_query_in(expression, &day)?;
            if hits.len() == count { Ok(hits) } else { Err(format!("{hits:?}")) }
        })
    };
    let hits = found(&format!("service={service} level=warn \"was refused\" host.name=web-1"), 20);
    let hit = hits.iter().find(|hit| hit["attributes"]["msgid"] == "ID7").expect("each line is there");
    assert_eq!(hit["message"], "payment 7 was refused", "{hit}");
    assert_eq!(hit["time_ns"], 1_795_702_382_500_000_000_u64, "{hit}");
    for ((name, _, expression), service) in of_others.iter().zip(&names).filter(|((name, ..), _)| *name != "broken") {
        let hits = found(&format!("service={service} {expression}"), 1);
        // Where the line has no trace of its own, the message's header has one.
        let trace =
            if *name == "filebeat" { "0af7651916cd43dd8448eb211c80319c" } else { "1af7651916cd43dd8448eb211c80319c" };
        assert_eq!(hits[0]["trace_id"], trace, "{name}: {}", hits[0]);
    }

    // The bad one, with its bytes, its reason and its headers.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", stack::kafka())
        .set("group.id", unique("letters"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&format!("{}.dead", space.topic)]).unwrap();
    let letter = until("a dead letter", FOUND, || match consumer.poll(Duration::from_millis(500)) {
        Some(Ok(message)) => Ok(message.detach()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(letter.payload(), Some(&b"{\"message\": half a line"[..]));
    let headers = letter.headers().expect("a letter has headers");
    let texts: Vec<_> =
        headers.iter().map(|header| String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned()).collect();
    assert!(texts.iter().any(|text| text.contains("not_json: expected value at line 1 column 13")), "{texts:?}");
    assert_eq!(server.counter("logsink_index_dead_total{reason=\"not_json\"}"), 1);
    assert!(server.stop().success());
}
