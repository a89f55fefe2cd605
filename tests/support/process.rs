//! Child processes that end with the test, and their output in files.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::until;

/// A child with its stderr in a file. Killed when dropped; while a test panics, the end of the file is shown.
#[derive(Debug)]
pub struct Process {
    /// The child itself, for its pipes.
    pub child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; stderr is appended to `log`, stdin and stdout are as the command says.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log file opens");
        let child = command.stderr(file).spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// What it and its predecessors with the same log wrote to stderr.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name, such as `TERM`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// When `kill` fails: the process is gone.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(done.is_ok_and(|status| status.success()), "cannot send SIG{name}; stderr:\n{}", self.stderr());
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        until("the process ends", deadline, || {
            child.try_wait().map_err(|error| error.to_string())?.ok_or_else(|| "it runs".into())
        })
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let text = self.stderr();
            let tail: Vec<_> = text.lines().rev().take(40).collect();
            eprintln!("--- the end of {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A command line of a program, untouched by what the environment of the one who runs the tests says about logsink.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("LOGSINK_") || text.starts_with("OTEL_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

/// As [`command`], for a program with the library in it: its files are in `dir`.
pub fn application(program: &Path, dir: &Path) -> Command {
    let mut command = command(program);
    // What is left on stderr is what the library has to say of itself.
    command.current_dir(dir).env("LOGSINK_CACHE_DIR", dir.join("cache")).env("LOGSINK_CONSOLE", "off");
    command
}

/// Runs a command to its end, without standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// As [`run`], and it must succeed: returns its standard output.
///
/// # Panics
/// When it fails; with what it wrote.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\nstdout:\n{stdout}\nstderr:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// As [`run`], and it must fail with this exit code and one clear sentence on stderr, which is returned.
///
/// # Panics
/// When it succeeds, panics, fails otherwise, or says more than a line.
pub fn refuse(command: &mut Command, code: i32) -> String {
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{stderr}");
    one_sentence(&stderr);
    stderr
}

/// One line for a person, beside what the server logs about its start: not a panic, not a Rust value in its debug form.
///
/// # Panics
/// When it is not.
pub fn one_sentence(stderr: &str) {
    let lines: Vec<_> = stderr.trim().lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "one sentence is wanted:\n{stderr}");
    for ugly in ["panicked", "Error {", "Err(", "Some(", "Os {"] {
        assert!(!stderr.contains(ugly), "not a sentence for a person: {stderr}");
    }
}

/// A port that nobody listens on, below the range that the system gives to outgoing connections: a server that is
/// killed finds it free when it is started again.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_100;
    const COUNT: u16 = 9_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries of two runs side by side begin at different places.
    let start = (std::process::id() % 900) as u16 * 10;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Relaxed)) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of nine thousand ports is free")
}

/// The directory of cargo's binaries that this test was built into.
///
/// # Panics
/// When the test was not started by cargo.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let deps = test.parent().expect("a program is in a directory");
    deps.parent().expect("cargo puts tests into deps/").to_owned()
}
