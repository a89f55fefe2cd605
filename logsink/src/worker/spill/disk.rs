//! The spools of a lane: its own slot, which is written to and sent from, and before it what dead processes left in others.
//!
//! One thing at a time is read or opened, on a thread that may block; what was written is waited for in order.

use std::{
    collections::{HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use super::{
    frame::Spilled,
    slot::{Refused, Settings, Slot},
};
use crate::{
    spool::{Appended, Frame, Reader, SpoolError},
    voice::say,
    worker::pending::Pending,
};

/// Read at a time: a batch or some small ones.
const READ_BYTES: usize = 1 << 20;
/// Bytes on the way to the disk, which are in memory twice meanwhile: enough for one sync to serve several batches.
const WRITING_BYTES_MAX: usize = 4 << 20;
/// How soon after the disk has refused to read it is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Disk {
    settings: Settings,
    own: Slot,
    /// A slot of a process that has ended.
    other: Option<Slot>,
    /// Further ones, to be tried.
    others: VecDeque<PathBuf>,
    /// Slots of newer versions, of which was said that they are left alone.
    left_alone: HashSet<PathBuf>,
    writing: VecDeque<Writing>,
    writing_bytes: usize,
    loaded: VecDeque<(Place, Spilled)>,
    task: Option<JoinHandle<Task>>,
    retry_at: Option<Instant>,
}

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    which: Which,
    offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Own,
    Other,
}

struct Writing {
    appended: Appended,
    bytes: usize,
    what: Written,
}

/// What was written.
pub(super) enum Written {
    /// A batch from the backlog, by its arrival.
    Batch { arrival: u64, batch: Pending },
    /// One that is under way as well.
    Twin { arrival: u64, sequence: u64, records: u32, durable: Arc<AtomicBool> },
}

/// What has happened.
pub(super) enum Done {
    Written(Written, Result<u64, SpoolError>),
    /// So many frames are damaged.
    Read {
        damaged: u64,
    },
    Failed(SpoolError),
    /// Nothing to speak of.
    Moved,
}

/// A blocking piece of work.
enum Task {
    Read(Which, Reader, u64, Result<Vec<Frame>, SpoolError>),
    Opened(PathBuf, Box<Result<Slot, Refused>>),
    Cleared,
}

/// What there is to send.
pub(super) enum Next {
    Batch(Place, Spilled),
    /// Something is there that must be read first.
    Later,
    Nothing,
}

impl Disk {
    pub(super) fn open(settings: Settings) -> Result<Self, SpoolError> {
        let own = settings.claim()?;
        Ok(Self {
            others: settings.others(&own.dir).into(),
            settings,
            own,
            other: None,
            left_alone: HashSet::new(),
            writing: VecDeque::new(),
            writing_bytes: 0,
            loaded: VecDeque::new(),
            task: None,
            retry_at: None,
        })
    }

    /// Writes a batch behind all others; [`Disk::wait_for`] is to be told what it was.
    ///
    /// # Errors
    /// When there is no room, on the disk or on the way to it.
    pub(super) fn append(&mut self, spilled: &Spilled) -> Result<Appended, SpoolError> {
        if self.writing_bytes >= WRITING_BYTES_MAX {
            return Err(SpoolError::Busy);
        }
        self.own.spool.append(&[&spilled.head(), &spilled.sealed.payload])
    }

    /// [`Disk::done`] is to tell what becomes of these bytes.
    pub(super) fn wait_for(&mut self, appended: Appended, bytes: usize, what: Written) {
        self.writing_bytes += bytes;
        self.writing.push_back(Writing { appended, bytes, what });
    }

    /// How old a batch may become, in nanoseconds.
    pub(super) fn age_max_ns(&self) -> u64 {
        u64::try_from(self.settings.age_max.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// What is to be sent next, the oldest first. Begins to read when that is needed.
    pub(super) fn next(&mut self) -> Next {
        if let Some((place, spilled)) = self.loaded.front() {
            return Next::Batch(*place, spilled.clone());
        }
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Next::Later;
        }
        if self.task.is_none() {
            self.task = self.begin();
        }
        let busy = self.task.is_some() || self.other.is_some() || !self.writing.is_empty();
        if busy { Next::Later } else { Next::Nothing }
    }

    /// The one that [`Disk::next`] showed was taken.
    pub(super) fn took(&mut self) {
        self.loaded.pop_front();
    }

    fn begin(&mut self) -> Option<JoinHandle<Task>> {
        if let Some(other) = &mut self.other {
            if let Some(reading) = read(Which::Other, other) {
                return Some(reading);
            }
            let done = self.other.take_if(|other| other.is_done())?;
            return Some(tokio::task::spawn_blocking(move || {
                done.clear();
                Task::Cleared
            }));
        }
        if let Some(dir) = self.others.pop_front() {
            let settings = self.settings.clone();
            return Some(tokio::task::spawn_blocking(move || {
                let slot = settings.open(&dir);
                Task::Opened(dir, Box::new(slot))
            }));
        }
        read(Which::Own, &mut self.own)
    }

    /// Waits for something to happen. Cancel-safe.
    pub(super) async fn done(&mut self) -> Done {
        let Self { writing, task, retry_at, .. } = self;
        tokio::select! {
            result = first_written(writing) => match self.writing.pop_front() {
                Some(writing) => {
                    self.writing_bytes -= writing.bytes;
                    Done::Written(writing.what, result)
                }
                None => Done::Moved,
            },
            done = finished(task) => {
                self.task = None;
                done.map_or(Done::Moved, |done| self.finish(done))
            }
            () = passed(*retry_at) => {
                self.retry_at = None;
                Done::Moved
            }
        }
    }

    fn finish(&mut self, task: Task) -> Done {
        match task {
            Task::Read(which, reader, durable, frames) => {
                let lost = reader.lost();
                let Some(slot) = self.slot(which) else { return Done::Moved };
                slot.reader = Some(reader);
                let frames = match frames {
                    Ok(frames) => frames,
                    Err(error) => {
                        self.retry_at = Some(Instant::now() + RETRY_AFTER);
                        return Done::Failed(error);
                    }
                };
                if frames.is_empty() {
                    slot.caught_up = durable;
                }
                let mut damaged = slot.lost_since(lost);
                let mut found = Vec::new();
                for frame in frames {
                    slot.ledger.read(frame.offset);
                    match Spilled::read(&frame.payload) {
                        Some(spilled) => found.push((Place { which, offset: frame.offset }, spilled)),
                        None => {
                            damaged += 1;
                            slot.ledger.settle(frame.offset);
                        }
                    }
                }
                self.loaded.extend(found);
                Done::Read { damaged }
            }
            Task::Opened(dir, slot) => match *slot {
                Ok(slot) => {
                    self.other = Some(slot);
                    Done::Moved
                }
                Err(Refused::Taken) => Done::Moved,
                Err(Refused::Newer(version)) => {
                    if self.left_alone.insert(dir.clone()) {
                        let dir = dir.display();
                        say(format_args!("{dir} was written by a newer version ({version}) and is left alone"));
                    }
                    Done::Moved
                }
                Err(Refused::Failed(error)) => Done::Failed(error),
            },
            Task::Cleared => Done::Moved,
        }
    }

    /// A frame is done with.
    pub(super) fn settle(&mut self, place: Place) -> Result<(), SpoolError> {
        let Some(slot) = self.slot(place.which) else { return Ok(()) };
        slot.ledger.settle(place.offset);
        slot.release()
    }

    /// Looks for slots of processes that have ended meanwhile.
    pub(super) fn look_for_others(&mut self) {
        if self.others.is_empty() && self.other.is_none() {
            self.others = self.settings.others(&self.own.dir).into();
        }
    }

    /// Whether nothing is there, and nothing on its way.
    pub(super) fn is_done(&self) -> bool {
        let idle = self.writing.is_empty() && self.loaded.is_empty() && self.task.is_none();
        idle && self.other.is_none() && self.others.is_empty() && self.own.is_done()
    }

    /// Deletes what was sent, when all was. Otherwise it stays for the next process.
    pub(super) fn close(&mut self) {
        if self.writing.is_empty() && self.loaded.is_empty() && self.own.is_done() {
            self.own.clear();
        }
    }

    fn slot(&mut self, which: Which) -> Option<&mut Slot> {
        match which {
            Which::Own => Some(&mut self.own),
            Which::Other => self.other.as_mut(),
        }
    }
}

/// Begins to read, when there is something to read.
fn read(which: Which, slot: &mut Slot) -> Option<JoinHandle<Task>> {
    let durable = slot.spool.durable();
    if durable <= slot.caught_up {
        return None;
    }
    let mut reader = slot.reader.take()?;
    Some(tokio::task::spawn_blocking(move || {
        let frames = reader.read(READ_BYTES);
        Task::Read(which, reader, durable, frames)
    }))
}

async fn first_written(writing: &mut VecDeque<Writing>) -> Result<u64, SpoolError> {
    match writing.front_mut() {
        Some(writing) => (&mut writing.appended).await,
        None => std::future::pending().await,
    }
}

/// `None` when the task panicked, which only a bug makes it: what it had is lost to this process, not to the disk.
async fn finished(task: &mut Option<JoinHandle<Task>>) -> Option<Task> {
    match task {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}

async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
