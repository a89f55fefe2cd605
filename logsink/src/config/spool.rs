//! Where events go over the disk, with `queue.overflow = "spill"`.

use std::{env, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{refuse, within};
use crate::{ConfigError, worker::spill};

/// The spool on disk. Each process, and each sink that spills, has a directory of its own below `dir`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Spool {
    /// Default: `$XDG_STATE_HOME/logsink/spool`, else `~/.local/state/logsink/spool`.
    pub dir: Option<PathBuf>,
    /// Bytes on disk. When they are spent, new events are dropped and counted as `spool_full`. Default 1 GiB: an hour of some
    /// thousand events a second.
    pub bytes_max: u64,
    /// Events that have waited for longer are dropped and counted as `spool_expired`, in seconds. Default: seven days.
    pub age_s_max: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self { dir: None, bytes_max: 1 << 30, age_s_max: 7 * 24 * 3600 }
    }
}

/// Two batches at their largest.
const BYTES_MIN: u64 = 8 << 20;
/// Ten years.
const AGE_S_MAX: u64 = 10 * 365 * 24 * 3600;

impl Spool {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("spool.bytes_max", self.bytes_max, BYTES_MIN, u64::MAX)?;
        within("spool.age_s_max", self.age_s_max, 1, AGE_S_MAX)
    }

    /// The spool of one sink of a service.
    pub(crate) fn of_sink(&self, service: &str, sink: &str) -> Result<spill::Settings, ConfigError> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = || {
            variable("XDG_STATE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
                .map(|dir| dir.join("logsink/spool"))
        };
        let Some(dir) = self.dir.clone().or_else(state) else {
            return refuse("spool.dir", "is not set, and there is no home directory: name a directory");
        };
        Ok(spill::Settings {
            dir: dir.join(file_name(service)).join(file_name(sink)),
            bytes_max: self.bytes_max,
            age_max: Duration::from_secs(self.age_s_max),
        })
    }
}

/// A file name that tells the text, and no other text's.
fn file_name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !text.starts_with('.') && !text.is_empty() && text.len() <= 100 && text.chars().all(plain) {
        return text.to_owned();
    }
    let start: String = text.chars().take(100).map(|c| if plain(c) { c } else { '_' }).collect();
    format!("_{start}-{:08x}", crc32fast::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_and_apart() {
        assert_eq!(file_name("checkout-v1.2"), "checkout-v1.2");
        let odd = ["..", ".", "", "a/b", "a_b/", "/", "ü", "http://h:4317"].map(file_name);
        for (index, name) in odd.iter().enumerate() {
            assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty(), "{name}");
            assert!(!odd[..index].contains(name), "{name}");
        }
    }
}
