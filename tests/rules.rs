//! Rules that change in running processes, from etcd and from the server.

use std::{fs, path::Path, thread, time::Duration};

use logsink_tests::{
    App, Server, now_ns,
    process::{refuse, succeed},
    server::command,
    stack::etcd,
    unique, until,
};

/// Silences the chatter's noisy half.
const QUIET: &str = "[[rule]]\nname = \"quiet\"\nwhen = 'target=noisy'\nthen = \"drop\"\n";
/// Wrong in line 3: `>>` is no operator.
const BROKEN: &str = "[[rule]]\nname = \"broken\"\nwhen = 'level>>warn'\nthen = \"drop\"\n";
/// What a rule may take from `put` to its effect.
const WITHIN: Duration = Duration::from_secs(1);

#[test]
fn a_rule_in_etcd_silences_two_processes_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("chatty");
    let source = format!("etcd://{}", etcd().trim_start_matches("http://"));
    let mut apps: Vec<_> = ["one", "two"]
        .map(|name| {
            let home = dir.path().join(name);
            fs::create_dir(&home).unwrap();
            App::build(&home, &service, &server.grpc_url())
                .env("LOGSINK_RULES", &source)
                .env("OTEL_RESOURCE_ATTRIBUTES", &format!("app={name}"))
                .start()
        })
        .into();
    silences(&server, &service, &mut apps, |file| {
        put(&["--service", &service, "--etcd", &etcd()], file);
    });

    // A broken document is refused with its place, and changes nothing: not in etcd, not in the processes.
    let file = write(dir.path(), BROKEN);
    let words = refuse(command(&["rules", "put", "--service", &service, "--etcd", &etcd()]).arg(&file), 1);
    assert!(words.contains("line 3, column 14"), "{words}");
    let kept = succeed(&mut command(&["rules", "get", "--service", &service, "--etcd", &etcd()]));
    assert_eq!(kept.trim(), QUIET.trim());
    for app in &mut apps {
        assert_disabled(app);
    }
}

#[test]
fn a_rule_put_to_the_server_is_pushed_to_its_senders() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("pushed");
    // No setting about rules: over the gRPC connection that is there anyway.
    let mut apps =
        vec![App::build(dir.path(), &service, &server.grpc_url()).env("OTEL_RESOURCE_ATTRIBUTES", "app=one").start()];
    silences(&server, &service, &mut apps, |file| {
        put(&["--service", &service, "--server", &server.http_url("")], file);
    });

    let file = write(dir.path(), BROKEN);
    let words =
        refuse(command(&["rules", "put", "--service", &service, "--server", &server.http_url("")]).arg(&file), 1);
    assert!(words.contains("line 3, column 14"), "{words}");
    assert_eq!(server.rules(&["get", "--service", &service]).trim(), QUIET.trim());
    assert_disabled(&mut apps[0]);
}

#[test]
fn a_rules_file_is_watched_and_check_says_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("file");
    let path = dir.path().join("live-rules.toml");
    fs::write(&path, "").unwrap();
    let mut apps = vec![
        App::build(dir.path(), &service, &server.grpc_url())
            .env("LOGSINK_RULES", &format!("file:{}", path.display()))
            .env("OTEL_RESOURCE_ATTRIBUTES", "app=one")
            .start(),
    ];
    silences(&server, &service, &mut apps, |file| {
        // As an editor saves: a new file takes the name.
        #[allow(clippy::disallowed_methods, reason = "durability is not the matter here")]
        fs::rename(file, &path).unwrap();
    });
    succeed(command(&["rules", "check"]).arg(&path));
    let words = refuse(command(&["rules", "check"]).arg(write(dir.path(), BROKEN)), 1);
    assert!(words.contains("line 3, column 14"), "{words}");
}

/// The applications chatter; `change` puts [`QUIET`]. Within a second nothing of `noisy` is emitted any more while `calm`
/// goes on, by the events' own time stamps, as found in the server; and the silenced callsite costs what one costs that
/// is off.
fn silences(server: &Server, service: &str, apps: &mut [App], change: impl FnOnce(&Path)) {
    const FOUND: Duration = Duration::from_secs(20);
    for app in apps.iter_mut() {
        assert_ne!(app.interest(), "never", "it speaks");
        app.chatter(Duration::from_millis(5));
    }
    let names = &["one", "two"][..apps.len()];
    for name in names {
        server.await_hits(&format!("service={service} app={name} target=noisy"), 1, FOUND);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), QUIET);
    // The whole way counts: the command, the store, and the push or the watch.
    let put_ns = now_ns();
    change(&file);
    // Long enough to show that the silence lasts; the calm half shows that the application still speaks.
    thread::sleep(2 * WITHIN);
    let later = put_ns + 2 * i64::try_from(WITHIN.as_nanos()).unwrap();
    for name in names {
        until("the calm half goes on", FOUND, || {
            let newest = newest_ns(server, &format!("service={service} app={name} target=calm"))?;
            if newest > later { Ok(()) } else { Err(format!("{} ms behind", (later - newest) / 1_000_000)) }
        });
        let last = newest_ns(server, &format!("service={service} app={name} target=noisy")).unwrap();
        let took = Duration::from_nanos(u64::try_from(last - put_ns).unwrap_or(0));
        assert!(took < WITHIN, "{name} was noisy for {took:?} after the rule was put");
    }
    for app in apps {
        assert_disabled(app);
    }
}

fn newest_ns(server: &Server, expression: &str) -> Result<i64, String> {
    let hits = server.try_query(expression)?;
    hits.first().and_then(|hit| hit["time_ns"].as_i64()).ok_or_else(|| "no hit".into())
}

/// The silenced callsite is off for `tracing` itself: nobody looks at its values, and it costs what one costs that no level
/// lets through. The bound has room for one more load and a branch; an event that is looked at costs a hundred times that.
fn assert_disabled(app: &mut App) {
    assert_eq!(app.interest(), "never");
    let cost = app.cost();
    assert_eq!(cost["seen"], 0, "{cost}");
    let (more, off) = (cost["more_ns"].as_f64().unwrap(), cost["off_ns"].as_f64().unwrap());
    assert!(more <= off * 0.5 + 1.0, "a silenced callsite costs what a disabled one costs: {cost}");
}

fn put(arguments: &[&str], file: &Path) {
    succeed(command(&["rules", "put"]).args(arguments).arg(file));
}

fn write(dir: &Path, document: &str) -> std::path::PathBuf {
    let file = dir.join("rules.toml");
    fs::write(&file, document).unwrap();
    file
}
