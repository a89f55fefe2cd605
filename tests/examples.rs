//! Each example does what its header says. (`axum-service` is in the other stories.)

use std::{fs, process::Stdio, time::Duration};

use logsink_tests::{
    Server,
    example::command,
    process::{Process, run},
    stack::kafka,
    until,
};

const FOUND: Duration = Duration::from_secs(20);

#[test]
fn minimal_sends_its_event_although_it_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let output = run(command("minimal", dir.path()).env("LOGSINK_ENDPOINT", server.grpc_url()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let hits = server.await_hits("service=minimal answer=42", 1, FOUND);
    assert_eq!(hits[0]["message"], "hello from the smallest program");
}

#[test]
fn compose_layers_gives_people_and_the_store_each_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let output = run(command("compose-layers", dir.path()).env("LOGSINK_ENDPOINT", server.grpc_url()));
    let terminal = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{terminal}");
    assert_eq!(terminal.matches("to both").count(), 2, "{terminal}");
    assert!(!terminal.contains("to the store only"), "{terminal}");
    server.await_hits("service=compose-layers user=ada", 3, FOUND);
    assert_eq!(server.query("service=compose-layers level=debug \"store only\"").len(), 1);
}

#[test]
fn kafka_sends_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(command("kafka", dir.path()).arg(kafka()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("sent 1010 of 1010 records"), "{said}");
}

#[test]
fn rules_hot_swap_shows_a_silenced_callsite_becoming_free() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let log = dir.path().join("example.log");
    let mut example = command("rules-hot-swap", dir.path());
    example.env("LOGSINK_ENDPOINT", server.grpc_url()).stdin(Stdio::null());
    let example = Process::start(&mut example, &log);
    let costs = || -> Result<(f64, f64), String> {
        let text = example.stderr();
        let line = text.lines().rfind(|line| line.starts_with("an event costs")).ok_or("nothing said yet")?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        Ok((numbers.next().ok_or("no number")?, numbers.next().ok_or("no number")?))
    };
    until("both cost something", FOUND, || {
        let (chatter, business) = costs()?;
        if chatter > business / 5.0 { Ok(()) } else { Err(format!("{chatter} {business}")) }
    });
    let rules = dir.path().join("rules.toml");
    fs::write(&rules, "[[rule]]\nname = \"chatter\"\nwhen = 'target=chatter'\nthen = \"drop\"\n").unwrap();
    server.rules(&["put", "--service", "rules-hot-swap", rules.to_str().unwrap()]);
    until("chatter is free", FOUND, || {
        let (chatter, business) = costs()?;
        if chatter < business / 5.0 { Ok(()) } else { Err(format!("{chatter} {business}")) }
    });
}
