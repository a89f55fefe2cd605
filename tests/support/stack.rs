//! The real Kafka, Elasticsearch and etcd that `make test` starts, and what the stories do to them.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::process::succeed;

fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "${variable} is not set: this test needs the real server. Run `make test`, or start one with `make stack` \
             and put its addresses into the environment: eval \"$(dev/stack/stack env)\""
        )
    })
}

/// `host:port` of the broker.
pub fn kafka() -> String {
    address("KAFKA_BROKERS")
}

/// The node's URL.
pub fn elasticsearch() -> String {
    address("ELASTICSEARCH_URL")
}

/// The URL of `elasticsearch2`, which a story starts that needs a second node: the ports of instances are ten apart.
pub fn elasticsearch2() -> String {
    let first = elasticsearch();
    let (host, port) = first.rsplit_once(':').expect("a URL with a port");
    format!("{host}:{}", port.parse::<u16>().expect("a port") + 10)
}

/// The member's URL.
pub fn etcd() -> String {
    address("ETCD_ENDPOINTS")
}

/// Held by a test that stops a server which the other tests of its binary use.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has poisoned it; the next one starts the servers it needs anyway.
    let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    control("resume", &["kafka", "elasticsearch", "etcd"]);
    control("start", &["kafka", "elasticsearch", "etcd"]);
    guard
}

/// `dev/stack/stack VERB NAMES…`: `start` (waits until it answers), `stop`, `kill` (-9), `pause`, `resume`.
pub fn control(verb: &str, names: &[&str]) {
    succeed(Command::new(script()).arg(verb).args(names));
}

/// A program that `dev/stack/stack install` has put there, by its path below `$STACK_HOME`.
///
/// # Panics
/// When it is not there; says how to install it.
pub fn program(path: &str) -> PathBuf {
    let home = std::env::var_os("STACK_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("$HOME is set")).join(".cache/logsink-stack"),
        PathBuf::from,
    );
    let program = home.join(path);
    let name = path.split('/').next().unwrap_or_default();
    assert!(program.exists(), "{} is missing: run `dev/stack/stack install {name}`", program.display());
    program
}

/// etcd's own command line.
pub fn etcdctl(arguments: &[&str]) -> String {
    succeed(
        Command::new(program("etcd/bin/etcdctl"))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &etcd()])
            .args(arguments),
    )
}

fn script() -> PathBuf {
    std::env::var_os("LOGSINK_TEST_STACK")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/stack/stack")), PathBuf::from)
}
