//! A token in a file, sent as `authorization: Bearer …`: read again now and then, since such tokens expire and are replaced
//! in their file (by Kubernetes, by an agent of a vault).

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::ConfigError;

/// How old what was read may be. Tokens live for minutes at least, and are replaced well before they expire.
const AGE_MAX: Duration = Duration::from_secs(5);
/// No token is longer; a file that is was named by mistake.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The token of one sink.
#[derive(Debug)]
pub(super) struct Token {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// Marked sensitive: its debug form does not show it.
    header: HeaderValue,
    read: Instant,
}

impl Token {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or holds no token.
    pub(super) fn new(file: &Path) -> Result<Self, ConfigError> {
        let header = read(file).map_err(|error| ConfigError {
            field: "send.token_file".to_owned(),
            message: format!("cannot take a token from {}: {error}", file.display()),
        })?;
        Ok(Self { file: file.to_owned(), state: Mutex::new(State { header, read: Instant::now() }) })
    }

    /// The header's value. Where the file cannot be read any more, the last one that could.
    pub(super) async fn header(&self) -> HeaderValue {
        let state = self.state();
        if state.read.elapsed() < AGE_MAX { state.header } else { self.read_again().await }
    }

    /// Whether the file holds another token than this one, which the sink has refused.
    pub(super) async fn is_replaced(&self, refused: &HeaderValue) -> bool {
        self.read_again().await != refused
    }

    async fn read_again(&self) -> HeaderValue {
        let file = self.file.clone();
        // On a thread that may block: the file may be on a network's disk.
        let fresh = tokio::task::spawn_blocking(move || read(&file)).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.read = Instant::now();
        if let Ok(Ok(header)) = fresh {
            state.header = header;
        }
        state.header.clone()
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(file: &Path) -> io::Result<HeaderValue> {
    let mut text = String::new();
    let bytes = File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64;
    let refuse = |message| Err(io::Error::new(io::ErrorKind::InvalidData, message));
    if bytes > FILE_BYTES_MAX {
        return refuse("it is larger than any token");
    }
    let token = text.trim();
    if token.is_empty() {
        return refuse("it is empty");
    }
    // A header takes more than is a token, and none of it is worth showing.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("it holds something else than one token of visible ASCII");
    }
    match HeaderValue::try_from(format!("Bearer {token}")) {
        Ok(mut header) => {
            header.set_sensitive(true);
            Ok(header)
        }
        Err(_) => refuse("it holds no token"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_that_is_replaced_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        for (text, message) in [("", "it is empty"), ("two words", "one token"), (&"x".repeat(70_000), "larger")] {
            fs::write(&file, text).unwrap();
            let error = Token::new(&file).unwrap_err().to_string();
            assert!(
                error.starts_with("send.token_file: cannot take a token from ") && error.contains(message),
                "{error}"
            );
            assert!(!error.contains("two words"));
        }
        fs::write(&file, "first\n").unwrap();
        let token = Token::new(&file).unwrap();
        assert!(!format!("{token:?}").contains("first"), "{token:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let first = token.header().await;
            assert_eq!(first, "Bearer first");
            fs::write(&file, "second").unwrap();
            assert_eq!(token.header().await, "Bearer first", "not read for every batch");
            assert!(token.is_replaced(&first).await);
            assert_eq!(token.header().await, "Bearer second");

            // Old enough to be read again; what cannot be read changes nothing.
            let age = |token: &Token| token.state.lock().unwrap().read -= AGE_MAX;
            fs::write(&file, "third").unwrap();
            age(&token);
            assert_eq!(token.header().await, "Bearer third");
            fs::remove_file(&file).unwrap();
            age(&token);
            assert_eq!(token.header().await, "Bearer third");
        });
    }
}
