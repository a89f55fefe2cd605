//! What building and reloading can refuse, and why.

/// A setting that cannot be used: names the setting and says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ConfigError {
    /// The setting's path as the user wrote it: a key of the file, an environment variable or a builder call.
    pub field: String,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

/// Why the library did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another subscriber (or an earlier `init`) is already the global default.
    #[error(
        "a global tracing subscriber is already set: call logsink::init() once, before any other subscriber, or add logsink::layer() to yours"
    )]
    AlreadyInitialized,
    /// The directory of the spool cannot be used.
    #[error("spool.dir: {0}: name a directory that this process can write to, or another queue.overflow than spill")]
    Spool(#[from] crate::spool::SpoolError),
    /// The background thread did not start.
    #[error("cannot start the logsink thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A flush did not end in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sink has not taken all events within {timeout:?}")]
pub struct FlushError {
    /// The time that was given.
    pub timeout: std::time::Duration,
}
