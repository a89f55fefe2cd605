//! The data directory.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf, process};

use crate::{config::Config, error::Error};

/// Makes the directory, for its owner's eyes only, and sees whether files can be made in it: better now than with the
/// first event.
pub(super) fn open(config: &Config) -> Result<PathBuf, Error> {
    let dir = config.data_dir()?;
    let wrong = |action| {
        let path = dir.clone();
        move |source| Error::File { action, path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(wrong("create the data directory"))?;
    let probe = dir.join(format!(".probe-{}", process::id()));
    let probed = fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe));
    probed.map_err(wrong("write to the data directory"))?;
    Ok(dir)
}
