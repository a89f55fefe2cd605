//! The loop: queue → batch → transport; flush; shutdown.
//!
//! Two threads of our own, so that nothing depends on the application's runtime: `logsink` empties the queue and cuts
//! batches, `logsink-io` sends them and listens for rules. Between them stands a channel of one batch. While the sink is slow
//! or down, `logsink` waits there, the queue fills, and the application's threads drop their newest events and count them:
//! beyond the queue at most `in_flight_max` + 2 batches are in memory.
//!
//! Every record that leaves the queue ends in a counter: sent, or dropped for a reason (see [`pending`]).

mod health;
mod pending;
mod send;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use crate::{
    InitError,
    batch::{Batcher, Envelope, Limits, Sealed},
    metrics::Metrics,
    queue, retry,
    source::RuleSource,
    transport::Transport,
    voice::say,
};
use health::Health;
use pending::Pending;
use send::{Item, Sender};

/// What the worker is told at its start.
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) retry: retry::Policy,
    pub(crate) in_flight_max: usize,
    pub(crate) envelope: Envelope,
    /// The sender's instance id.
    pub(crate) instance: String,
    /// The sink, as messages call it.
    pub(crate) sink: String,
    /// The revision of the rules in force, when they are from a source.
    pub(crate) revision: Box<dyn Fn() -> Option<String> + Send>,
    /// Called some times a second on `logsink-io`, whatever the sink does.
    pub(crate) tick: Box<dyn FnMut() + Send>,
}

/// What must be made within the worker's runtime.
pub(crate) struct Outside {
    pub(crate) transport: Arc<dyn Transport>,
    /// Runs beside the worker.
    pub(crate) rules: Option<(Box<dyn RuleSource>, Arc<crate::reload::Reload>)>,
}

/// After the deadline of a shutdown, connections and rule sources get this long to end.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The running worker.
pub(crate) struct Worker {
    #[allow(
        clippy::disallowed_types,
        reason = "who sends waits for the answer: as many commands as threads that flush"
    )]
    commands: mpsc::Sender<Command>,
    waker: queue::Waker,
    hurry: Arc<Hurry>,
    health: Arc<Mutex<Health>>,
    metrics: Arc<Metrics>,
    /// Turned true when the deadline of the shutdown has come: what is not sent is given up.
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process that has the threads: one forked from it has not.
    process: u32,
}

/// Cuts backoffs short.
#[derive(Default)]
struct Hurry {
    notify: Notify,
    /// Callers that wait for a flush: while there are any, delays stay small.
    waiting: AtomicUsize,
}

enum Command {
    /// Answers when everything that was in the queue has been sent or given up.
    Flush(mpsc::SyncSender<()>),
    /// The same; then the queue is closed and the pump ends.
    Stop(mpsc::SyncSender<()>),
}

impl Worker {
    /// Starts both threads. `outside` is called within the runtime of `logsink-io`.
    ///
    /// # Errors
    /// What `outside` says, or when a thread or its runtime cannot be had.
    pub(crate) fn start(
        consumer: queue::Consumer,
        settings: Settings,
        metrics: Arc<Metrics>,
        outside: impl FnOnce() -> Result<Outside, InitError> + Send + 'static,
    ) -> Result<Self, InitError> {
        let (commands, orders) = mpsc::channel();
        let (items, arrivals) = tokio::sync::mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let hurry = Arc::new(Hurry::default());
        let health = Arc::new(Mutex::new(Health::new(settings.sink)));
        let envelope = Arc::new(settings.envelope);
        let sender = Sender {
            envelope: envelope.clone(),
            metrics: metrics.clone(),
            policy: settings.retry,
            in_flight_max: settings.in_flight_max,
            instance: settings.instance,
            hurry: hurry.clone(),
            health: health.clone(),
        };

        let (ready, started) = mpsc::sync_channel(1);
        let io = spawn("logsink-io", move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .thread_name("logsink-blocking")
                .on_thread_start(queue::mark_own_thread)
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(InitError::Thread(error)))),
            };
            let outside = {
                let _within = runtime.enter();
                outside()
            };
            match outside {
                Ok(Outside { transport, rules }) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(async {
                        if let Some((source, reload)) = rules {
                            tokio::spawn(source.run(reload, stopped.clone()));
                        }
                        sender.run(transport.clone(), arrivals, settings.tick, stopped).await;
                        let _ = tokio::time::timeout(CLOSE_TIMEOUT, transport.close()).await;
                    });
                }
                Err(error) => drop(ready.send(Err(error))),
            }
            runtime.shutdown_timeout(CLOSE_TIMEOUT);
        })?;
        let panicked = || InitError::Thread(std::io::Error::other("it panicked"));
        if let Err(error) = started.recv().map_err(|_| panicked()).flatten() {
            let _ = io.join();
            return Err(error);
        }

        let waker = consumer.waker();
        let pump = Pump {
            batcher: Batcher::new(settings.limits, envelope, Instant::now()),
            consumer,
            commands: orders,
            items,
            metrics: metrics.clone(),
            age_max: settings.limits.age_max,
            revision: settings.revision,
        };
        let pump = spawn("logsink", move || pump.run())?;
        Ok(Self {
            commands,
            waker,
            hurry,
            health,
            metrics,
            stop,
            threads: Mutex::new(vec![pump, io]),
            process: std::process::id(),
        })
    }

    /// Waits until everything emitted before the call has been sent or given up; `false` when `timeout` passed first.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        self.ask(Command::Flush, timeout)
    }

    /// Flushes, closes the queue and ends both threads. What is not sent after `timeout` is given up and counted.
    pub(crate) fn shutdown(&self, timeout: Duration) -> bool {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if threads.is_empty() {
            return true;
        }
        if self.is_forked() {
            // Who joins a thread of another process waits for ever.
            threads.into_iter().for_each(std::mem::forget);
            say("this process was forked after logsink was started: its events were not sent");
            return false;
        }
        let flushed = self.ask(Command::Stop, timeout);
        self.stop.send_replace(true);
        for thread in threads {
            if thread.join().is_err() {
                say("a thread of the library panicked: events may be lost without being counted");
            }
        }
        let report = health::lock(&self.health).report_last(&self.metrics.snapshot());
        report.iter().for_each(say);
        flushed
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn ask(&self, command: fn(mpsc::SyncSender<()>) -> Command, timeout: Duration) -> bool {
        if self.is_forked() {
            return false;
        }
        let (reply, answer) = mpsc::sync_channel(1);
        if self.commands.send(command(reply)).is_err() {
            // The pump has ended: there is nothing left to flush.
            return true;
        }
        self.waker.wake();
        self.hurry.waiting.fetch_add(1, Relaxed);
        self.hurry.notify.notify_waiters();
        let answer = answer.recv_timeout(timeout);
        self.hurry.waiting.fetch_sub(1, Relaxed);
        // A worker that has ended without an answer has given the batches up.
        answer != Err(RecvTimeoutError::Timeout) && !*self.stop.borrow()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, InitError> {
    let run = move || {
        queue::mark_own_thread();
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(InitError::Thread)
}

// === impl Pump ===

/// The thread `logsink`: empties the queue, cuts batches.
struct Pump {
    consumer: queue::Consumer,
    batcher: Batcher,
    commands: mpsc::Receiver<Command>,
    items: tokio::sync::mpsc::Sender<Item>,
    metrics: Arc<Metrics>,
    age_max: Duration,
    revision: Box<dyn Fn() -> Option<String> + Send>,
}

impl Pump {
    fn run(mut self) {
        let mut since = Instant::now();
        // The rules of the previous round: what this round drains was judged by them or by newer ones.
        let mut revision: Option<Arc<str>> = None;
        loop {
            // Before the drain, so that what was emitted before a flush was asked for is part of it.
            let commands: Vec<_> = self.commands.try_iter().collect();
            let stop = commands.iter().any(|command| matches!(command, Command::Stop(_)));
            let now = Instant::now();
            self.drain(since, &revision, stop);
            since = now;
            let sealed = if commands.is_empty() { self.batcher.due(Instant::now()) } else { self.batcher.seal() };
            if let Some(sealed) = sealed {
                hand_over(&self.items, &self.metrics, sealed, &revision);
            }
            for command in commands {
                let (Command::Flush(reply) | Command::Stop(reply)) = command;
                // An error means that the sender has ended; the reply falls with the item, and who waits notices.
                let _ = self.items.blocking_send(Item::Barrier(reply));
            }
            if stop {
                return;
            }
            revision = (self.revision)().map(Arc::from);
            let timeout = self.batcher.due_in(Instant::now()).unwrap_or(self.age_max).min(self.age_max);
            self.consumer.wait(timeout);
        }
    }

    /// Takes what is in the queue; `last`: and closes it, so that nothing comes after.
    fn drain(&mut self, since: Instant, revision: &Option<Arc<str>>, last: bool) {
        let Self { consumer, batcher, items, metrics, .. } = self;
        let each = &mut |run: &[u8]| {
            batcher.push(run, since, &mut |sealed| hand_over(items, metrics, sealed, revision));
        };
        if last { consumer.close_and_drain(each) } else { consumer.drain(each) }
    }
}

/// Waits while the sender has no room. When it has ended, the batch is dropped and with that counted.
fn hand_over(
    items: &tokio::sync::mpsc::Sender<Item>,
    metrics: &Arc<Metrics>,
    sealed: Sealed,
    revision: &Option<Arc<str>>,
) {
    metrics.drained(sealed.records.into());
    let pending = Pending::new(sealed, metrics.clone());
    let _ = items.blocking_send(Item::Batch(pending, revision.clone()));
}

#[cfg(test)]
mod tests;
