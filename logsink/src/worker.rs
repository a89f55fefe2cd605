//! The loop: queue → batch → transport; flush; shutdown.
//!
//! Two threads of our own, so that nothing depends on the application's runtime: `logsink` empties the queue and feeds every
//! sink's lane, `logsink-io` sends the lanes' batches and listens for rules. A lane has its own filter, batches, backlog,
//! retries and counters; what happens where its backlog is full is its policy (see [`backlog`]).
//!
//! Every record that a lane takes ends in a counter of that lane: sent, or dropped for a reason (see [`pending`]).

mod backlog;
mod health;
pub(crate) mod lane;
mod losses;
mod pending;
mod pump;
mod release;
mod send;
pub(crate) mod spill;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::Relaxed,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use crate::{InitError, batch::Batcher, queue, source::RuleSource, transport::Transport, voice::say};
use backlog::Barrier;
pub(crate) use backlog::Bounds;
use lane::{CLOSE_TIMEOUT, Lane};
use pump::{Command, Feed, Pump, Taste};
pub(crate) use release::Release;
use spill::SpillingLane;

/// What the worker is told at its start.
pub(crate) struct Settings {
    /// The main sink's first.
    pub(crate) lanes: Vec<lane::Settings>,
    /// Whether there are records that only some lanes get.
    pub(crate) has_local: bool,
    /// What the library itself has to say.
    pub(crate) own: Own,
    /// The revision of the rules in force, when they are from a source.
    pub(crate) revision: Box<dyn Fn() -> Option<String> + Send>,
    /// Reads the flight recorder, when there is one.
    pub(crate) release: Option<Release>,
    /// Called some times a second on `logsink-io`, whatever the sinks do.
    pub(crate) tick: Box<dyn FnMut() + Send>,
}

/// What must be made within the worker's runtime.
pub(crate) struct Outside {
    /// One for each lane.
    pub(crate) transports: Vec<Arc<dyn Transport>>,
    /// Runs beside the worker.
    pub(crate) rules: Option<(Box<dyn RuleSource>, Arc<crate::reload::Reload>)>,
}

/// Appends framed records of the library's own, once a round of the pump; `true`: for the last time.
pub(crate) type Own = Box<dyn FnMut(bool, &mut Vec<u8>) + Send>;

/// How soon what is done by `tick` happens.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// The running worker.
pub(crate) struct Worker {
    #[allow(
        clippy::disallowed_types,
        reason = "who sends waits for the answer: as many commands as threads that flush"
    )]
    commands: mpsc::Sender<Command>,
    waker: queue::Waker,
    lanes: Vec<Arc<lane::Shared>>,
    /// Turned true when the deadline of the shutdown has come: what is not sent is given up.
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process that has the threads: one forked from it has not.
    process: u32,
}

impl Worker {
    /// Starts both threads. `outside` is called within the runtime of `logsink-io`.
    ///
    /// # Errors
    /// What `outside` says, or when a thread or its runtime cannot be had.
    pub(crate) fn start(
        consumer: queue::Consumer,
        settings: Settings,
        outside: impl FnOnce() -> Result<Outside, InitError> + Send + 'static,
    ) -> Result<Self, InitError> {
        let (commands, orders) = mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        let Settings { lanes: lane_settings, has_local, own, revision, release, tick } = settings;
        let lanes: Vec<_> = lane_settings.iter().map(|settings| Arc::new(lane::Shared::new(settings))).collect();
        let feeds =
            lane_settings.iter().zip(&lanes).map(|(settings, shared)| feed(settings, shared, has_local)).collect();

        let (ready, started) = mpsc::sync_channel(1);
        let shared = lanes.clone();
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
            let lanes = outside.and_then(|Outside { transports, rules }| {
                let lanes = lane_settings.into_iter().zip(shared).zip(transports);
                let lanes: Result<Vec<_>, _> =
                    lanes.map(|((settings, shared), to)| sending(settings, shared, to)).collect();
                Ok((lanes?, rules))
            });
            match lanes {
                Ok((lanes, rules)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(async {
                        if let Some((source, reload)) = rules {
                            tokio::spawn(source.run(reload, stopped.clone()));
                        }
                        run(lanes, tick, &stopped).await;
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
        let pump = Pump { consumer, feeds, commands: orders, own, own_records: Vec::new(), revision, release };
        let pump = spawn("logsink", move || pump.run())?;
        Ok(Self { commands, waker, lanes, stop, threads: Mutex::new(vec![pump, io]), process: std::process::id() })
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
        for lane in &self.lanes {
            let report = health::lock(&lane.health).report_last(&lane.metrics.snapshot());
            report.iter().for_each(say);
        }
        flushed
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn ask(&self, command: fn(Barrier) -> Command, timeout: Duration) -> bool {
        if self.is_forked() {
            return false;
        }
        let (barrier, fallen) = mpsc::sync_channel(0);
        if self.commands.send(command(barrier)).is_err() {
            // The pump has ended: there is nothing left to flush.
            return true;
        }
        self.waker.wake();
        for lane in &self.lanes {
            lane.hurry.waiting.fetch_add(1, Relaxed);
            lane.hurry.notify.notify_waiters();
        }
        let fallen = fallen.recv_timeout(timeout);
        for lane in &self.lanes {
            lane.hurry.waiting.fetch_sub(1, Relaxed);
        }
        // A worker that has ended has let go of the barrier too, and given the batches up.
        fallen != Err(RecvTimeoutError::Timeout) && !*self.stop.borrow()
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

/// The sending end of a lane.
enum Sending {
    FromMemory(Lane),
    OverDisk(Box<SpillingLane>),
}

fn sending(
    mut settings: lane::Settings,
    shared: Arc<lane::Shared>,
    transport: Arc<dyn Transport>,
) -> Result<Sending, InitError> {
    Ok(match settings.spool.take() {
        None => Sending::FromMemory(Lane::new(settings, shared, transport)),
        Some(spool) => Sending::OverDisk(Box::new(SpillingLane::open(settings, spool, shared, transport)?)),
    })
}

/// Runs the lanes until all have ended, which they do when the pump has and all is sent, or when told to stop.
async fn run(lanes: Vec<Sending>, mut tick: Box<dyn FnMut() + Send>, stopped: &watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    for lane in lanes {
        match lane {
            Sending::FromMemory(lane) => running.spawn(lane.run(stopped.clone())),
            Sending::OverDisk(lane) => running.spawn(lane.run(stopped.clone())),
        };
    }
    let mut ticks = tokio::time::interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => say(format_args!("a sink's lane ended: {error}")),
                None => return,
            },
            _ = ticks.tick() => tick(),
        }
    }
}

fn feed(settings: &lane::Settings, shared: &Arc<lane::Shared>, has_local: bool) -> Feed {
    let taste = match &settings.filter {
        None if !has_local => Taste::All,
        filter => Taste::Some { filter: filter.clone(), local: settings.local },
    };
    Feed {
        taste,
        batcher: Batcher::new(settings.limits, settings.envelope.clone(), Instant::now()),
        age_max: settings.limits.age_max,
        shared: shared.clone(),
        envelope: settings.envelope.clone(),
        losses: settings.losses_every.map(losses::Losses::new),
    }
}

#[cfg(test)]
mod tests;
