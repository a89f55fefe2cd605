//! TLS on both doors of the server: who is known gets in, and who is not hears why in one sentence.

use std::{fs, time::Duration};

use logsink_tests::{
    App, Server, app,
    process::{refuse, run},
    server::command,
    tls::{Authority, Member},
    unique, until,
};

const FOUND: Duration = Duration::from_secs(20);

#[test]
fn events_and_searches_travel_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let server = Server::secure(dir.path(), &authority, None);
    let service = unique("sealed");
    let mut app = trusting(dir.path(), &service, &server, &authority, None);
    assert!(server.grpc_url().starts_with("https://"));
    app.emit("a", 100, 1_000);
    crate::numbers::exactly_once(&server.await_hits(&format!("service={service}"), 100, FOUND), 100);

    // Rules go the same way: to the server by the command, and back over the connection of the events.
    let rules = dir.path().join("rules.toml");
    fs::write(&rules, "[[rule]]\nname = \"quiet\"\nwhen = 'target=noisy'\nthen = \"drop\"\n").unwrap();
    server.rules(&["put", "--service", &service, rules.to_str().unwrap()]);
    until("the rule is pushed over TLS", FOUND, || {
        let instances = server.rules(&["instances"]);
        let line = instances.lines().find(|line| line.starts_with(&service)).ok_or("the process is not listed")?;
        let revision = line.split('\t').nth(3).unwrap_or_default();
        if revision.is_empty() || revision == "none" { Err(instances.clone()) } else { Ok(()) }
    });
    app.quit();

    // Plain text finds no way in.
    let plain = server.http_url("").replace("https:", "http:");
    refuse(command(&["query", "", "--server", &plain]).current_dir(dir.path()), 1);
}

#[test]
fn a_server_with_a_stranger_s_certificate_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let stranger = Authority::new(dir.path(), "stranger");
    let server = Server::secure(dir.path(), &authority, None);
    let service = unique("wary");
    let mut app = trusting(dir.path(), &service, &server, &stranger, None);
    let said = goes_nowhere(&mut app);
    assert!(said.contains("certificate"), "{said}");
    let said = app.quit();
    assert!(said.contains("10 events were lost; since the start: shutdown=10"), "what could not be sent: {said}");
    assert_eq!(server.query(&format!("service={service}")).len(), 0);

    // The command says what to do: no authority named, the wrong one, and a file that is none.
    let url = server.http_url("");
    for credentials in [vec![], vec!["--ca", stranger.certificate.to_str().unwrap()]] {
        let said = refuse(command(&["query", "", "--server", &url]).args(credentials).current_dir(dir.path()), 1);
        assert!(said.contains("certificate") && said.contains("--ca"), "{said}");
    }
    let said = refuse(command(&["query", "", "--server", &url, "--ca", "server.toml"]).current_dir(dir.path()), 2);
    assert!(said.contains("--ca server.toml: there is no certificate in it"), "{said}");
}

#[test]
fn a_server_that_knows_its_clients_lets_nobody_else_in() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let client = authority.sign("client");
    let server = Server::secure(dir.path(), &authority, Some(&client));
    let service = unique("known");
    let mut app = trusting(dir.path(), &service, &server, &authority, Some(&client));
    app.emit("a", 100, 1_000);
    crate::numbers::exactly_once(&server.await_hits(&format!("service={service}"), 100, FOUND), 100);
    app.quit();

    // Without a certificate, and with one of another authority.
    let stranger = Authority::new(dir.path(), "stranger").sign("intruder");
    let nobody = unique("nobody");
    let ca = authority.certificate.to_str().unwrap();
    for identity in [None, Some(&stranger)] {
        let mut app = trusting(dir.path(), &nobody, &server, &authority, identity);
        goes_nowhere(&mut app);
        let said = app.quit();
        assert!(said.contains("shutdown=10"), "what could not be sent is counted: {said}");

        let mut command = command(&["query", "", "--server", &server.http_url(""), "--ca", ca]);
        if let Some(Member { certificate, key }) = identity {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let said = refuse(command.current_dir(dir.path()), 1);
        assert!(said.contains("--cert and --key"), "{said}");
    }
    assert_eq!(server.query(&format!("service={nobody}")).len(), 0);
    let output = run(command(&["query", "", "--cert", ca]).current_dir(dir.path()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--key"), "both or neither");
}

#[test]
fn events_over_http_are_sealed_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let client = authority.sign("client");
    let server = Server::secure(dir.path(), &authority, Some(&client));
    let endpoint = server.http_url("").replace("https:", "otlphttps:");
    let service = unique("web");
    let mut app = trusting_at(&endpoint, dir.path(), &service, &authority, Some(&client));
    app.emit("a", 100, 1_000);
    crate::numbers::exactly_once(&server.await_hits(&format!("service={service}"), 100, FOUND), 100);
    app.quit();

    let stranger = Authority::new(dir.path(), "stranger");
    let nobody = unique("nobody");
    for (authority, identity) in [(&authority, None), (&stranger, Some(&client))] {
        let mut app = trusting_at(&endpoint, dir.path(), &nobody, authority, identity);
        goes_nowhere(&mut app);
        app.quit();
    }
    assert_eq!(server.query(&format!("service={nobody}")).len(), 0);
}

#[test]
fn certificate_files_that_cannot_be_used_are_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let own = authority.sign("own");
    let text = dir.path().join("text.pem");
    fs::write(&text, "not a certificate\n").unwrap();
    let config = dir.path().join("wrong.toml");
    for (cert, key, words) in [
        (&text, &own.key, "tls.cert"),
        (&own.certificate, &text, "tls.key"),
        (&own.certificate, &authority.sign("other").key, "tls.key"),
    ] {
        fs::write(&config, format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
        for arguments in [&["--config"][..], &["check", "--config"]] {
            let said = refuse(command(arguments).arg(&config).current_dir(dir.path()), 2);
            assert!(said.contains(words), "{said}");
        }
    }
    for (file, words) in [(&text, "text.pem"), (&dir.path().join("nowhere.pem"), "nowhere.pem")] {
        let mut command = app::command(dir.path());
        let said = refuse(command.env("LOGSINK_ENDPOINT", "https://127.0.0.1:1").env("LOGSINK_TLS_CA", file), 2);
        assert!(said.contains("tls.ca") && said.contains(words), "{said}");
    }
}

/// An application that trusts this authority and shows this certificate.
fn trusting(
    dir: &std::path::Path,
    service: &str,
    server: &Server,
    authority: &Authority,
    identity: Option<&Member>,
) -> App {
    trusting_at(&server.grpc_url(), dir, service, authority, identity)
}

fn trusting_at(
    endpoint: &str,
    dir: &std::path::Path,
    service: &str,
    authority: &Authority,
    identity: Option<&Member>,
) -> App {
    // Each has a log of its own.
    let home = dir.join(unique("app"));
    fs::create_dir(&home).unwrap();
    let mut app = App::build(&home, service, endpoint)
        .env("LOGSINK_TLS_CA", authority.certificate.to_str().unwrap())
        .env("LOGSINK_SEND_FLUSH_TIMEOUT_MS", "1000");
    if let Some(identity) = identity {
        app = app
            .env("LOGSINK_TLS_CERTIFICATE", identity.certificate.to_str().unwrap())
            .env("LOGSINK_TLS_KEY", identity.key.to_str().unwrap());
    }
    app.start()
}

/// Emits ten events that cannot be sent: they wait, none is lost, and one line says so, which is returned.
fn goes_nowhere(app: &mut App) -> String {
    app.emit("a", 10, 1_000);
    let said = until("the application says that its sink takes nothing", FOUND, || {
        let said = app.stderr();
        if said.contains("takes no events") { Ok(said) } else { Err(format!("it says {said:?}")) }
    });
    assert_eq!(said.lines().count(), 1, "{said}");
    let metrics = app.metrics();
    assert_eq!((metrics["sent"].as_u64(), metrics["lost"].as_u64()), (Some(0), Some(0)), "{metrics}");
    said
}
