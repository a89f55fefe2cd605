//! `logsink-testapp` as a child process: an application with the library in it, told what to do over its standard input.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::process::{self, Process};

/// A running application. It is configured by its environment alone, as a user would.
#[derive(Debug)]
pub struct App {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// How to start one.
#[derive(Debug)]
pub struct AppBuilder {
    command: Command,
    log: PathBuf,
}

/// The command that starts it, for stories in which it does not get far.
pub fn command(dir: &Path) -> Command {
    process::application(&process::target_dir().join("logsink-testapp"), dir)
}

/// The same program with a terminal of its own, whose output is the command's.
///
/// # Panics
/// When its path is not text.
pub fn on_a_terminal(command: &Command) -> Command {
    let program = command.get_program().to_str().expect("the path is text");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", program, "/dev/null"]).stdin(std::process::Stdio::null());
    script.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if let Some(dir) = command.get_current_dir() {
        script.current_dir(dir);
    }
    script
}

impl App {
    /// An application called `service` that sends to `endpoint`. Its files are in `dir`.
    pub fn build(dir: &Path, service: &str, endpoint: &str) -> AppBuilder {
        let mut command = command(dir);
        command.env("OTEL_SERVICE_NAME", service).env("LOGSINK_ENDPOINT", endpoint);
        AppBuilder { command, log: dir.join(format!("{service}.log")) }
    }

    /// Says one line and returns the answer's line.
    ///
    /// # Panics
    /// When the application is gone or answers with an error.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("the application reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the application answers");
        assert!(!answer.is_empty(), "the application ended at `{line}`");
        assert!(!answer.starts_with("error"), "{line}: {answer}");
        answer.trim_end().to_owned()
    }

    /// Begins to emit `count` events, at most so many a second; they are numbered on from 0.
    pub fn emit(&mut self, run: &str, count: u64, per_second: u64) {
        self.ask(&format!("emit {run} {count} {per_second}"));
    }

    /// How many events it has emitted.
    pub fn emitted(&mut self) -> u64 {
        self.ask("emitted").parse().expect("a number")
    }

    /// Waits until everything emitted so far is acknowledged by the sink.
    pub fn flush(&mut self, deadline: Duration) {
        self.ask(&format!("flush {}", deadline.as_secs()));
    }

    /// The library's counters: `sent`, `lost`, `retries`.
    pub fn metrics(&mut self) -> Value {
        serde_json::from_str(&self.ask("metrics")).expect("metrics are JSON")
    }

    /// Begins to emit one event of the target `noisy` and one of `calm` at this distance.
    pub fn chatter(&mut self, every: Duration) {
        self.ask(&format!("chatter {}", every.as_millis()));
    }

    /// The interest that `tracing` has registered for events of `noisy`: `never`, `sometimes` or `always`.
    pub fn interest(&mut self) -> String {
        self.ask("interest")
    }

    /// What an event of `noisy` and one of a level that is off cost on the caller, each as a median: `noisy_ns`, `off_ns`;
    /// the median of their differences, `more_ns`; how often a value of one of them was looked at, `seen`.
    pub fn cost(&mut self) -> Value {
        serde_json::from_str(&self.ask("cost")).expect("costs are JSON")
    }

    /// Ends it as a program ends: the guard is dropped, which flushes. Returns what it wrote to stderr over its life.
    pub fn quit(mut self) -> String {
        self.ask("quit");
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "{status}");
        self.stderr()
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }
}

impl AppBuilder {
    /// Another variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(mut self) -> App {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut self.command, &self.log);
        let input = process.child.stdin.take().expect("stdin is piped");
        let output = BufReader::new(process.child.stdout.take().expect("stdout is piped"));
        let mut app = App { process, input, output };
        app.ask("hello");
        app
    }
}
