//! Compression of bodies.
//!
//! It pays where the wire is slower or dearer than the processor: for a million records of 0.5 KB gzip takes 1.1 CPU seconds and zstd
//! 1.2 (`make bench-server`), and a sixth or a seventh is left. On loopback and in one's own network the body goes as it is; `auto`
//! decides by the address that a node has. Elasticsearch and OpenSearch always decode gzip, so that it has an encoder of its own here
//! ([`gzip`]): alone it takes a third of the time that flate2 takes at its fastest level. zstd is for those who have a proxy that
//! decodes it: Elasticsearch 9.5.3 reads the compressed bytes as if they were JSON. A node that refuses a compressed body and takes
//! the same one plain gets plain ones from then on.

mod bits;
mod gzip;
mod huffman;
mod matches;

use std::{
    io::Write,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use flate2::{Compression as Level, write::GzEncoder};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use self::gzip::Gzip;

/// How bodies are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all for nodes on this machine or at a private address, gzip for all others.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// gzip, which Elasticsearch and OpenSearch decode.
    Gzip,
    /// zstd, for a proxy that decodes it.
    Zstd,
}

/// Of a body of 4 MB, on one core: 1.28 GB/s to 1/7.4 of it, where level 1 does 0.70 GB/s to 1/11, -1 1.1 GB/s to 1/7.8, and what
/// is below -3 is no faster (`zstd -b`). On the wire both are little; the time is what is saved.
const ZSTD_LEVEL: i32 = -3;
/// Bytes that a match has at least, where this level would take six: of a record's many short repeats the fewer are written down.
/// It takes 4 % fewer instructions to a body that is 1 % smaller. Larger or smaller tables are no gain, and -7 takes 8 % fewer still to
/// a body that is 14 % larger.
const ZSTD_MATCH_BYTES_MIN: u32 = 7;
/// The window, as a power of two: what a record repeats stands in the records just before it. 256 KiB and the tables stay in the
/// cache near the core; with the level's own 512 KiB a body as large takes 15 % longer.
const ZSTD_WINDOW_LOG: u32 = 18;

/// What a body was compressed with: the value of `content-encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl Compression {
    /// What it comes to for a node at these addresses.
    pub(super) fn encoding(self, addresses: &[IpAddr]) -> Option<Encoding> {
        match self {
            Self::None => None,
            Self::Gzip => Some(Encoding::Gzip),
            Self::Zstd => Some(Encoding::Zstd),
            Self::Auto => (!addresses.iter().all(|&address| is_near(address))).then_some(Encoding::Gzip),
        }
    }
}

/// Whether an address is this machine's or of a private network: where a wire costs nothing.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The most of a body that its compressed form may be: logs become a fifth to a fifteenth, and what does not even become
/// half is not worth the other side's time.
pub(super) fn bound(body: usize) -> usize {
    body / 2
}

/// Compresses bodies, with what that takes of memory kept from one to the next.
#[derive(Default)]
pub(super) struct Compressor {
    gzip: Idle<Gzip>,
    zstd: Idle<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// Compresses `body` into `out`, which is empty. False when it would take more than [`bound`]: then it goes as it is.
    pub(super) fn compress(&self, encoding: Encoding, body: &[u8], out: &mut Vec<u8>) -> bool {
        let max = bound(body.len());
        match encoding {
            Encoding::Gzip => {
                let mut own = self.gzip.take().unwrap_or_default();
                let is_done = own.compress(body, out, max);
                self.gzip.give(own);
                is_done || by_library(body, out, max)
            }
            Encoding::Zstd => {
                let Ok(mut zstd) = self.zstd.take().map_or_else(compressor, Ok) else {
                    return false;
                };
                out.reserve_exact(max);
                let is_done = zstd.compress_to_buffer(body, out).is_ok() && out.len() <= max;
                self.zstd.give(zstd);
                is_done
            }
        }
    }
}

/// Text that does not repeat itself as lines of JSON do: long messages, one or two records.
fn by_library(body: &[u8], out: &mut Vec<u8>, max: usize) -> bool {
    out.clear();
    // The fastest level: the next ones cost twice the time and save a tenth of the bytes.
    let mut encoder = GzEncoder::new(Bounded { out, max }, Level::fast());
    encoder.write_all(body).and_then(|()| encoder.try_finish()).is_ok()
}

/// What is not in use. There is never more of it than was in use at a time.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    fn take(&self) -> Option<T> {
        self.lock().pop()
    }

    fn give(&self, one: T) {
        self.lock().push(one);
    }

    // A panic while it is held leaves whole ones.
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    zstd.set_parameter(CParameter::MinMatch(ZSTD_MATCH_BYTES_MIN))?;
    zstd.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
    Ok(zstd)
}

/// Takes so many bytes and then fails.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    max: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.out.len() + bytes.len() > self.max {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_compressed_reads_back() {
        let body = br#"{"create":{}}{"message":"connection refused by peer"}"#.repeat(1_000);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let mut out = Vec::new();
            assert!(Compressor::default().compress(encoding, &body, &mut out), "{encoding:?}");
            let mut back = Vec::new();
            match encoding {
                Encoding::Gzip => flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back).map(drop).unwrap(),
                Encoding::Zstd => back = zstd::decode_all(&out[..]).unwrap(),
            }
            assert!(back == body && out.len() < body.len() / 10, "{encoding:?}");
        }
    }

    #[test]
    fn what_does_not_compress_is_given_up() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(300_000).collect();
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let mut out = Vec::new();
            assert!(!Compressor::default().compress(encoding, &noise, &mut out), "{encoding:?}");
            assert!(out.len() <= bound(noise.len()));
        }
    }

    #[test]
    fn auto_spares_the_own_network() {
        let auto = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Compression::Auto.encoding(&addresses)
        };
        for near in ["127.0.0.1", "10.2.3.4", "172.20.0.9", "192.168.7.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"] {
            assert_eq!(auto(&[near]), None, "{near}");
        }
        for far in ["34.1.2.3", "172.33.0.1", "2a02::1"] {
            assert_eq!(auto(&[far]), Some(Encoding::Gzip), "{far}");
            assert_eq!(auto(&["10.0.0.1", far]), Some(Encoding::Gzip));
        }
        assert_eq!(Compression::Zstd.encoding(&["127.0.0.1".parse().unwrap()]), Some(Encoding::Zstd));
    }
}
