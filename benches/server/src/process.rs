//! Processes that end with the bench, however it ends, and what the kernel counts of them.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// A graceful stop of any of them takes less.
const STOP_MAX: Duration = Duration::from_secs(40);

/// A child with its output in a file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// What the kernel counts of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, seconds, of all threads that are or were.
    pub(crate) cpu_s: f64,
    /// The most memory that was ever resident, MB.
    pub(crate) peak_mb: f64,
    /// What is resident, MB.
    pub(crate) resident_mb: f64,
}

impl Process {
    /// Starts it; what it says goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        die_with_parent(command);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log })
    }

    /// Usage until now.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.child.id())
    }

    /// An error with its last words when it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended, {status}: {}", self.last_words()),
        }
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                bail!("it did not end within {deadline:?}: {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end and waits.
    pub(crate) fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: a plain system call; the child has not been waited for unless it ended, and then the call fails harmlessly.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        self.wait(STOP_MAX)
    }

    /// What it said.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let text = self.output();
        let lines: Vec<_> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A profile of a process by `perf`, where the environment asks for one: `PERF=FILE`.
pub(crate) struct Profile(Option<Process>);

impl Profile {
    /// Begins it.
    pub(crate) fn start(program: &Process, work: &Path) -> anyhow::Result<Self> {
        let Some(file) = std::env::var_os("PERF").filter(|file| !file.is_empty()) else { return Ok(Self(None)) };
        let mut command = Command::new("perf");
        command.args(["record", "-q", "-F", "997", "-g", "-o"]).arg(file);
        command.args(["-p", &program.child.id().to_string()]);
        Ok(Self(Some(Process::start(&mut command, work.join("perf.log"))?)))
    }

    /// Ends it and lets the file be written.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        if let Some(mut perf) = self.0 {
            perf.stop()?;
        }
        Ok(())
    }
}

/// Kills the child when this thread ends, even by SIGKILL: nothing is left behind to disturb the next run.
fn die_with_parent(command: &mut Command) {
    let arm = || {
        // SAFETY: a plain system call with constant arguments.
        let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(arm) };
}

/// Usage of any process.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).with_context(|| format!("process {pid}"));
    let stat = read("stat")?;
    // The name in brackets may hold blanks; utime and stime are the 12th and 13th words behind it.
    let times = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let ticks: f64 = times.into_iter().flatten().filter_map(|word| word.parse::<f64>().ok()).sum();
    let status = read("status")?;
    let mb = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: Option<f64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kib.unwrap_or(0.0) * 1024.0 / 1e6
    };
    // SAFETY: a plain library call without pointers.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok(Usage { cpu_s: ticks / ticks_per_s, peak_mb: mb("VmHWM:"), resident_mb: mb("VmRSS:") })
}

/// User and system time of this process so far, seconds.
pub(crate) fn own_cpu_s() -> f64 {
    // SAFETY: all zeros is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `rusage` that lives through the call. It cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The process that `dev/stack` started under this name.
pub(crate) fn of_stack(work: &Path, name: &str) -> anyhow::Result<u32> {
    let path = work.join("run").join(format!("{name}.pid"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok())
        .with_context(|| format!("{}: no pid", path.display()))
}
