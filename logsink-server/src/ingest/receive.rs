//! A request's bytes on their way in: no byte is kept that was not reserved before.
//!
//! Where a request says how long it is, room for all of it is waited for, first come first served, before anything of it is
//! read; meanwhile its bytes are the sender's, but for what the connection's window holds. One that then comes slowly keeps room for what
//! has come. A request that does not say how long it is, and what comes out of a compressed one, takes room as it grows, and is told to
//! try again when there is none.

use std::{cell::RefCell, io::Read, sync::Arc, time::Duration};

use axum::body::HttpBody;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{Ingest, IngestError, json};

/// How long a request waits for room before it is told to try again: most are gone within milliseconds, and a sender waits
/// for ten seconds.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a body that is still coming holds room for all of it: 16 MiB come within that at 70 Mbit/s. A few senders that say much and
/// send it slowly would keep all others out else, for as long as a body may take.
const HELD_WHOLE: Duration = Duration::from_secs(2);

/// Bodies that are decompressed where they arrived: up to so many bytes, and while they do not grow above so many. More would
/// keep a thread from the requests of others, for longer than handing over to another thread takes.
const INLINE_BYTES_MAX: usize = 64 << 10;
const INLINE_OUT_BYTES_MAX: usize = 1 << 20;

/// What a body that grows takes room for at a time.
const STEP_BYTES: usize = 64 << 10;

/// The largest window of a zstd body, as a power of two: 8 MiB, what RFC 9659 lets a sender use over HTTP. A body can ask for
/// 2 GiB otherwise, whatever it decompresses to.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes of [`pending_bytes_max`](super::Options::pending_bytes_max) that a request holds; given back when this is dropped.
pub(super) struct Room {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new(all: &Arc<Semaphore>) -> Self {
        Self { all: all.clone(), held: None }
    }

    /// Waits for its turn.
    async fn wait_for(&mut self, bytes: usize) -> Result<(), IngestError> {
        let permits = u32::try_from(bytes).map_err(|_| IngestError::Overload)?;
        match timeout(ROOM_TIMEOUT, self.all.clone().acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => self.add(permit),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => return Err(IngestError::Overload),
        }
        Ok(())
    }

    /// Takes more if there is room at once: who holds some must not wait for others that do.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), IngestError> {
        let permits = u32::try_from(bytes).map_err(|_| IngestError::Overload)?;
        let permit = self.all.clone().try_acquire_many_owned(permits).map_err(|_| IngestError::Overload)?;
        self.add(permit);
        Ok(())
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            held => *held = Some(permit),
        }
    }

    /// Keeps no more than this.
    fn shrink_to(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            drop(held.split(held.num_permits().saturating_sub(bytes)));
        }
    }
}

/// The data frames of a body.
pub(super) struct Frames<B>(pub(super) B);

impl<B: HttpBody<Data = Bytes> + Unpin> Frames<B> {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, IngestError> {
        while let Some(frame) = self.0.frame().await {
            let frame = frame.map_err(|_| IngestError::Malformed("the body ended early".into()))?;
            // Trailers say nothing in a request.
            match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// A message as gRPC frames it: a flag, which says whether it is compressed, and four bytes of length before it.
    pub(super) async fn grpc_message(&mut self, ingest: &Ingest, room: &mut Room) -> Result<(u8, Bytes), IngestError> {
        const PREFIX_BYTES: usize = 5;
        let ended = || IngestError::Malformed("the call ended before its message".into());
        let mut first = self.next().await?.ok_or_else(ended)?;
        while first.len() < PREFIX_BYTES {
            let next = self.next().await?.ok_or_else(ended)?;
            first = [first, next].concat().into();
        }
        let (compressed, len) = (first.get_u8(), first.get_u32() as usize);
        let message = self.exactly(first, len, ingest, room).await?;
        match self.next().await? {
            None => Ok((compressed, message)),
            Some(_) => Err(IngestError::Malformed("an export is one message, and there is more".into())),
        }
    }

    /// A body of HTTP, whose length may be known.
    pub(super) async fn body(
        &mut self,
        len: Option<usize>,
        ingest: &Ingest,
        room: &mut Room,
    ) -> Result<Bytes, IngestError> {
        if let Some(len) = len {
            return self.exactly(Bytes::new(), len, ingest, room).await;
        }
        let bytes_max = ingest.options.request_bytes_max;
        let mut whole = BytesMut::new();
        while let Some(data) = self.next().await? {
            if whole.len() + data.len() > bytes_max {
                return Err(IngestError::TooLarge { bytes_max });
            }
            room.grow(data.len())?;
            whole.put(data);
        }
        Ok(whole.freeze())
    }

    /// The next `len` bytes, of which `first` is there. What came in one piece is not copied.
    async fn exactly(
        &mut self,
        first: Bytes,
        len: usize,
        ingest: &Ingest,
        room: &mut Room,
    ) -> Result<Bytes, IngestError> {
        let bytes_max = ingest.options.request_bytes_max;
        if len > bytes_max {
            return Err(IngestError::TooLarge { bytes_max });
        }
        room.wait_for(len).await?;
        let more = || IngestError::Malformed("the body is longer than it says".into());
        let mut whole = match first.len() {
            found if found == len => return Ok(first),
            found if found > len => return Err(more()),
            _ => BytesMut::with_capacity(len),
        };
        whole.put(first);
        let (late, mut is_slow) = (sleep(HELD_WHOLE), false);
        tokio::pin!(late);
        while whole.len() < len {
            let ended = || IngestError::Malformed("the body ended early".into());
            let data = tokio::select! {
                biased;
                data = self.next() => data?.ok_or_else(ended)?,
                () = &mut late, if !is_slow => {
                    room.shrink_to(whole.len());
                    is_slow = true;
                    continue;
                }
            };
            if is_slow {
                room.grow(data.len())?;
            }
            match whole.len() + data.len() {
                sum if sum > len => return Err(more()),
                _ if data.len() == len => return Ok(data),
                _ => whole.put(data),
            }
        }
        Ok(whole.freeze())
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// What a body is, once it is not compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

/// The request in protobuf, made from its body.
pub(super) async fn decode(
    ingest: &Ingest,
    body: Bytes,
    compression: Option<Compression>,
    format: Format,
    room: &mut Room,
) -> Result<Bytes, IngestError> {
    let body = match compression {
        None => body,
        Some(compression) => {
            let bytes_max = ingest.options.request_bytes_max;
            let (small, inline_max) = (body.len() <= INLINE_BYTES_MAX, INLINE_OUT_BYTES_MAX.min(bytes_max));
            let inline = if small { decompress(&body, compression, inline_max, room) } else { too_large(inline_max) };
            match inline {
                // It may fit all the same, elsewhere.
                Err(IngestError::TooLarge { .. }) if inline_max < bytes_max || !small => {
                    let mut taken = std::mem::replace(room, Room::new(&room.all));
                    let (out, taken) = elsewhere(ingest, move || {
                        taken.shrink_to(body.len());
                        (decompress(&body, compression, bytes_max, &mut taken), taken)
                    })
                    .await?;
                    *room = taken;
                    out?
                }
                out => out?,
            }
        }
    };
    match format {
        Format::Protobuf => Ok(body),
        Format::Json => {
            let protobuf = elsewhere(ingest, move || json::to_protobuf(&body)).await?;
            Ok(protobuf.map_err(IngestError::Malformed)?.into())
        }
    }
}

/// Off the threads that other requests wait for.
async fn elsewhere<T: Send + 'static>(
    ingest: &Ingest,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, IngestError> {
    // The semaphore is never closed.
    let _turn = ingest.decoding.acquire().await;
    tokio::task::spawn_blocking(work).await.map_err(|error| IngestError::QueueFailed(error.to_string()))
}

fn too_large<T>(bytes_max: usize) -> Result<T, IngestError> {
    Err(IngestError::TooLarge { bytes_max })
}

thread_local! {
    /// A context of zstd is a hundred kilobytes, and is made faster than a small body is read.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn decompress(body: &[u8], compression: Compression, bytes_max: usize, room: &mut Room) -> Result<Bytes, IngestError> {
    match compression {
        Compression::Gzip => read(flate2::bufread::MultiGzDecoder::new(body), "gzip", bytes_max, room),
        Compression::Zstd => {
            const NAME: &str = "zstd with a window of 8 MiB at most";
            // Most senders' frames say how long their content is: it is written in one go then.
            let content = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
            let content = content.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            match content {
                Some(bytes) if bytes > bytes_max => return too_large(bytes_max),
                Some(bytes) => {
                    room.grow(bytes)?;
                    if let Some(out) = zstd_at_once(body, bytes) {
                        return Ok(out);
                    }
                }
                None => {}
            }
            // Of unknown length, or several frames, or broken.
            let mut decoder = zstd::Decoder::with_buffer(body).map_err(|_| broken(NAME))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| broken(NAME))?;
            read(decoder, NAME, bytes_max, room)
        }
    }
}

fn zstd_at_once(body: &[u8], bytes: usize) -> Option<Bytes> {
    ZSTD.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(zstd::bulk::Decompressor::new().ok()?);
        }
        kept.as_mut()?.decompress(body, bytes).ok().map(Bytes::from)
    })
}

fn broken(name: &str) -> IngestError {
    IngestError::Encoding(format!("the body is not {name}"))
}

fn read(decoder: impl Read, name: &str, bytes_max: usize, room: &mut Room) -> Result<Bytes, IngestError> {
    let mut out = Vec::new();
    let mut decoder = decoder.take(bytes_max as u64 + 1);
    loop {
        room.grow(STEP_BYTES)?;
        let before = out.len();
        decoder.by_ref().take(STEP_BYTES as u64).read_to_end(&mut out).map_err(|_| broken(name))?;
        match out.len() {
            len if len > bytes_max => return too_large(bytes_max),
            len if len < before + STEP_BYTES => return Ok(out.into()),
            _ => {}
        }
    }
}
