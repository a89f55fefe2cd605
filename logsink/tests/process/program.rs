//! Runs stories as the standard harness does, and the programs that they are about.

use std::{
    env,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    panic,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::otlp_server::PATIENCE;

/// A story: its name and what happens.
pub(crate) type Story = (&'static str, fn());
/// A program: its name and its `main`.
pub(crate) type Program = (&'static str, fn());

/// Names the program that this process is.
const PROGRAM: &str = "TEST_PROGRAM";
/// Where the program sends its events.
const URL: &str = "TEST_URL";

/// What a story and its program share.
pub(crate) fn main(stories: &[&[Story]], programs: &[&[Program]]) {
    if let Ok(name) = env::var(PROGRAM) {
        let program = programs.iter().copied().flatten().find(|program| program.0 == name);
        return program.unwrap_or_else(|| panic!("there is no program {name}")).1();
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let chosen = |story: &&Story| {
        names.is_empty()
            || names.iter().any(|name| if exact { story.0 == name.as_str() } else { story.0.contains(name.as_str()) })
    };
    let chosen: Vec<&Story> = stories.iter().copied().flatten().filter(chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|story| eprintln!("{}: test", story.0));
        return;
    }
    let mut failed = 0;
    for (name, story) in &chosen {
        let passed = panic::catch_unwind(story).is_ok();
        failed += usize::from(!passed);
        eprintln!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    let all = stories.iter().map(|stories| stories.len()).sum::<usize>();
    let (result, passed, left_out) =
        (if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed, all - chosen.len());
    eprintln!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out"
    );
    if failed > 0 {
        std::process::exit(101);
    }
}

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// It ended by itself with this code.
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{}: {}", self.status, self.stderr);
    }

    /// It was ended by this signal.
    #[track_caller]
    pub(crate) fn assert_signal(&self, signal: i32) {
        assert_eq!(self.status.signal(), Some(signal), "{}: {}", self.status, self.stderr);
    }

    /// The number in a line `<name> <number>` of what the program said.
    #[track_caller]
    pub(crate) fn said(&self, name: &str) -> u64 {
        let number = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        self.stderr.lines().find_map(number).unwrap_or_else(|| panic!("no line {name} in {}", self.stderr))
    }
}

/// Runs a program to its end.
pub(crate) fn run(name: &str, url: &str) -> Ended {
    run_with(name, url, &[])
}

/// The same, with these variables in its environment.
pub(crate) fn run_with(name: &str, url: &str, variables: &[(&str, &str)]) -> Ended {
    let started = Instant::now();
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(PROGRAM, name).env(URL, url).envs(variables.iter().copied()).stderr(Stdio::piped());
    // A shell has what it runs in the background ignore SIGINT, and the library leaves an ignored signal alone.
    // SAFETY: the closure makes a system call that is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut process = command.spawn().unwrap();
    let mut pipe = process.stderr.take().unwrap();
    // As it comes, for a pipe that is full stops the program.
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            process.kill().unwrap();
            process.wait().unwrap();
            panic!("{name} does not end: {}", reader.join().unwrap());
        }
        thread::sleep(Duration::from_millis(2));
    };
    let took = started.elapsed();
    Ended { status, stderr: reader.join().unwrap(), took }
}

/// In a program: the library, sending to the story's server when it is told to rather than by itself.
pub(crate) fn library() -> logsink::Builder {
    logsink::builder().alone().rules("none").endpoint(env::var(URL).unwrap()).configure(|config| {
        config.batch.age_ms_max = 60_000;
        // Stories count the program's own events.
        config.send.losses_ms = 0;
        config.retry.delay_ms_min = 1;
        config.retry.delay_ms_max = 10;
    })
}

/// In a program: a sink that takes what `take` takes.
pub(crate) struct Sink(pub(crate) fn(logsink::transport::Batch));

impl logsink::transport::Transport for Sink {
    fn send(&self, batch: logsink::transport::Batch) -> logsink::transport::Sending<'_> {
        Box::pin(async move {
            (self.0)(batch);
            Ok(logsink::transport::Accepted::default())
        })
    }
}
