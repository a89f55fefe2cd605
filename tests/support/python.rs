//! A Python environment with the OpenTelemetry SDK from PyPI.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::process::succeed;

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/requirements.txt");

/// The environment's `python`, made on first use and kept below cargo's target directory.
///
/// # Panics
/// When Python or PyPI cannot be had.
pub fn with_sdk() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().expect("no test panics while it holds this");
    let home = crate::process::target_dir().join("opentelemetry-sdk");
    let python = home.join("bin/python");
    let wanted = fs::read_to_string(REQUIREMENTS).expect("the requirements are there");
    let made = home.join("made-from.txt");
    if fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return python;
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home));
    succeed(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-r",
        REQUIREMENTS,
    ]));
    fs::write(&made, wanted).expect("the environment can be written");
    python
}

/// Runs `tests/sdk/export.py` with these arguments.
pub fn export(python: &Path, arguments: &[&str]) -> String {
    succeed(Command::new(python).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/export.py")).args(arguments))
}
