//! What is wrong is said in one clear sentence, with an exit code; what was accepted before is not touched.

use std::{fs, time::Duration};

use logsink_tests::{
    App, Server, app,
    process::{free_port, refuse, run, succeed},
    server::command,
    unique, until,
};

#[test]
fn the_server_names_the_setting_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    for (text, words) in [
        ("colour = \"red\"", "colour"),
        (
            "[listen]\ngrpc = \"0.0.0.0:4317\"",
            "listen.grpc: 0.0.0.0:4317 can be reached from other machines and there is no TLS",
        ),
        (
            "[listen]\nhttp = \"[::]:4318\"",
            "listen.http: [::]:4318 can be reached from other machines and there is no TLS",
        ),
        ("[tls]\ncert = \"nowhere.pem\"\nkey = \"nowhere.key\"", "nowhere.pem"),
        ("[listen]\ngrpc = \"here\"", "line 2"),
        ("mode = \"cluster\"", "kafka"),
        ("[kafka]\nbrokers = []\n[elasticsearch]\nurls = [\"http://127.0.0.1:9200\"]", "kafka.brokers"),
        ("[retention", "line 1"),
    ] {
        fs::write(&file, text).unwrap();
        for arguments in [&["--config"][..], &["check", "--config"]] {
            let said = refuse(command(arguments).arg(&file).current_dir(dir.path()), 2);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
    let said = refuse(command(&["--config"]).arg(dir.path().join("nowhere.toml")).current_dir(dir.path()), 2);
    assert!(said.contains("nowhere.toml"), "{said}");
    fs::write(&file, "data_dir = \"data\"\n").unwrap();
    succeed(command(&["check", "--config"]).arg(&file).current_dir(dir.path()));
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the directory should be: refused to root as well, which permissions would not be.
    let file = dir.path().join("in-the-way");
    fs::write(&file, "kept").unwrap();
    let ports = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let arguments = ["--listen-grpc", &ports[0], "--listen-http", &ports[1]];
    let said = refuse(command(&["--data-dir"]).arg(file.join("data")).args(arguments).current_dir(dir.path()), 1);
    assert!(said.contains("in-the-way"), "{said}");
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
}

#[test]
fn a_taken_port_or_data_directory_is_refused_and_its_owner_undisturbed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("owner");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    app.emit("a", 200, 10_000);
    server.await_hits(&format!("service={service}"), 200, Duration::from_secs(20));

    let taken = server.grpc_url().replace("http://", "");
    let free = format!("127.0.0.1:{}", free_port());
    let mut second = command(&["--listen-grpc", &taken, "--listen-http", &free, "--data-dir"]);
    let said = refuse(second.arg(dir.path().join("other")).current_dir(dir.path()), 1);
    assert!(said.contains(&taken) && said.contains("port"), "{said}");

    let frees = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let mut second = command(&["--listen-grpc", &frees[0], "--listen-http", &frees[1], "--data-dir"]);
    let said = refuse(second.arg(dir.path().join("data")).current_dir(dir.path()), 1);
    assert!(said.contains("data"), "{said}");

    assert_eq!(server.query(&format!("service={service}")).len(), 200);
    app.quit();
}

#[test]
fn commands_say_what_they_could_not_do() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for arguments in [&["query", "level=info", "--server", &nobody][..], &["rules", "get", "--server", &nobody]] {
        let said = refuse(command(arguments).current_dir(dir.path()), 1);
        assert!(said.contains(nobody.trim_start_matches("http://")), "{said}");
    }
    let server = Server::standalone(dir.path());
    let output = run(command(&["query", "level>=", "--server", &server.http_url("")]).current_dir(dir.path()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("column"), "{said}");
}

#[test]
fn the_library_refuses_a_bad_endpoint_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    for (endpoint, words) in [
        ("ftp://127.0.0.1:21", "ftp"),
        ("not an url", "not an url"),
        ("kafka://127.0.0.1:9092/not a topic", "topic"),
        ("http://127.0.0.1:nine", "nine"),
    ] {
        let said = refuse(app::command(dir.path()).env("LOGSINK_ENDPOINT", endpoint), 2);
        assert!(said.contains(words) && said.contains("endpoint") || said.contains("ENDPOINT"), "{endpoint}: {said}");
    }
    fs::write(dir.path().join("logsink.toml"), "colour = 7\n").unwrap();
    let said = refuse(&mut app::command(dir.path()), 2);
    assert!(said.contains("colour"), "{said}");
}

#[test]
fn a_second_init_is_an_error_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("twice");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    let said = app.ask("again");
    assert!(said.contains("already"), "{said}");
    app.emit("a", 10, 1_000);
    server.await_hits(&format!("service={service}"), 10, Duration::from_secs(20));
    app.quit();
}

#[test]
fn an_unreachable_sink_is_reported_once_and_everything_arrives_when_it_comes() {
    const EVENTS: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    // The server's ports are known once it has been there.
    let mut server = Server::standalone(dir.path());
    server.kill();
    let service = unique("early");
    let mut app = App::build(dir.path(), &service, &server.grpc_url()).start();
    app.emit("a", EVENTS, 1_000);
    until("the application says that its sink is away", Duration::from_secs(20), || {
        let said = app.stderr();
        if said.contains("logsink") { Ok(said) } else { Err("it says nothing".into()) }
    });
    until("all is out", Duration::from_secs(20), || {
        if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) }
    });
    let said = app.stderr();
    assert_eq!(said.lines().count(), 1, "one warning, whatever the number of tries: {said}");
    assert!(!said.contains("panicked"), "{said}");
    server.restart();
    app.flush(Duration::from_secs(60));
    let hits = server.await_hits(&format!("service={service}"), EVENTS as usize, Duration::from_secs(20));
    crate::numbers::exactly_once(&hits, EVENTS);
    assert_eq!(app.metrics()["lost"], 0);
    app.quit();
}

#[test]
fn a_guard_that_cannot_deliver_gives_up_at_its_deadline_and_counts_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut app = App::build(dir.path(), &unique("lonely"), &nobody).start();
    app.emit("a", 10, 1_000);
    until("all is out", Duration::from_secs(20), || {
        if app.emitted() == 10 { Ok(()) } else { Err(app.emitted().to_string()) }
    });
    // `quit` panics when the process takes longer than twenty seconds; the guard's deadline is five.
    let said = app.quit();
    assert!(said.contains("10 events were lost; since the start: shutdown=10"), "{said}");
}
