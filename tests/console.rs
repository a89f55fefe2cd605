//! What a developer sees on stderr of a program that calls `init()`, while nobody listens at its endpoint.

use std::time::Duration;

use logsink_tests::{
    app::{self, App},
    example, until,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The application with a console and a few variables more, and its directory.
fn start(variables: &[(&str, &str)]) -> (App, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut app = App::build(dir.path(), "console", "http://127.0.0.1:9")
        .env("LOGSINK_CONSOLE", "auto")
        .env("LOGSINK_SEND_FLUSH_TIMEOUT_MS", "50")
        .env("RUST_LOG", "");
    for (name, value) in variables {
        app = app.env(name, value);
    }
    (app.start(), dir)
}

fn await_line(app: &App, part: &str) -> String {
    until(part, PATIENCE, || {
        let stderr = app.stderr();
        let line = stderr.lines().find(|line| line.contains(part)).map(str::to_owned);
        line.ok_or(stderr)
    })
}

/// Ends it, and returns what it wrote of events.
fn quit(app: App) -> Vec<String> {
    let stderr = app.quit();
    stderr.lines().filter(|line| !line.starts_with("logsink: ")).map(str::to_owned).collect()
}

fn await_emitted(app: &mut App, count: u64) {
    until("the events", PATIENCE, || match app.emitted() {
        emitted if emitted == count => Ok(()),
        emitted => Err(emitted.to_string()),
    });
}

#[test]
fn events_are_readable_lines_at_once() {
    let (mut app, _dir) = start(&[]);
    app.emit("run", 1, 1_000);
    let line = await_line(&app, "event 0 of the load");
    assert!(line.contains(" INFO ") && line.contains("load") && line.contains("n=0"), "{line}");
    assert!(!line.contains('\u{1b}'), "no colours in a file: {line}");
    // Though no sink takes them, what was last is there at the end.
    app.emit("run", 5, 100_000);
    await_emitted(&mut app, 6);
    assert_eq!(quit(app).len(), 6);
}

#[test]
fn lines_are_coloured_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let minimal = example::command("minimal", dir.path());
    let on_a_terminal = |no_color: &str| {
        // Gives its child a terminal, and shows what is written there.
        let mut script = app::on_a_terminal(&minimal);
        script.env("LOGSINK_CONSOLE", "auto").env("LOGSINK_SEND_FLUSH_TIMEOUT_MS", "50");
        script.env("LOGSINK_ENDPOINT", "http://127.0.0.1:9").env("NO_COLOR", no_color);
        let output = script.output().expect("`script` of util-linux runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.contains("hello")).expect(&text).to_owned()
    };
    let line = on_a_terminal("");
    assert!(line.contains("\u{1b}[32m INFO\u{1b}[0m"), "{line:?}");
    assert!(line.contains("hello from the smallest program answer=42"), "{line:?}");
    let plain = on_a_terminal("1");
    assert!(plain.contains(" INFO ") && !plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn they_can_be_json_or_nothing() {
    let (mut app, _dir) = start(&[("LOGSINK_CONSOLE", "json")]);
    app.emit("run", 1, 1_000);
    let line = await_line(&app, "event 0 of the load");
    assert!(serde_json::from_str::<serde_json::Value>(&line).unwrap().is_object(), "{line}");
    assert_eq!(quit(app).len(), 1);

    let (mut app, _dir) = start(&[("LOGSINK_CONSOLE", "off")]);
    app.emit("run", 3, 1_000);
    await_emitted(&mut app, 3);
    assert_eq!(quit(app), Vec::<String>::new());

    let dir = tempfile::tempdir().unwrap();
    let output = app::command(dir.path()).env("LOGSINK_CONSOLE", "loud").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("LOGSINK_CONSOLE: `loud` is not known: write auto, off, text, pretty or json"), "{stderr}");
}

#[test]
fn rust_log_is_the_consoles_own_filter() {
    let drained = |app: &mut App| app.metrics()["drained"].as_u64().unwrap();

    // More than the sinks want.
    let (mut app, _dir) = start(&[("RUST_LOG", "off,load=info"), ("LOGSINK_FILTER", "error")]);
    app.emit("run", 2, 1_000);
    await_line(&app, "event 1 of the load");
    assert_eq!(drained(&mut app), 0, "the sinks want errors alone");
    assert_eq!(quit(app).len(), 2);

    // Less.
    let (mut app, _dir) = start(&[("RUST_LOG", "off"), ("LOGSINK_FILTER", "info")]);
    app.emit("run", 2, 1_000);
    until("the sink's lane to get them", PATIENCE, || match drained(&mut app) {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(quit(app), Vec::<String>::new());

    // Alone, for both.
    let (mut app, _dir) = start(&[("RUST_LOG", "off,load=info")]);
    app.emit("run", 2, 1_000);
    await_line(&app, "event 1 of the load");
    until("the sink's lane to get them", PATIENCE, || match drained(&mut app) {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(quit(app).len(), 2);
}
