//! What the stories share: the real server and the application as child processes, the stack of real servers, and waiting
//! for a condition instead of sleeping.
//!
//! Every child listens on loopback only, keeps its files in a temporary directory, and ends with the test. A story that
//! needs a server which is not there fails and says how to start it: it never passes by not running.

pub mod app;
pub mod example;
pub mod http;
pub mod load;
pub mod otlp;
pub mod process;
pub mod python;
pub mod server;
pub mod stack;
pub mod tls;
pub mod wait;

pub use app::App;
pub use example::Example;
pub use load::Load;
pub use server::Server;
pub use wait::until;

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

/// A name that no other test of this or an earlier run has used: for services, topics, data streams and runs.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis();
    format!("{prefix}-{millis:x}-{:x}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Now, in Unix nanoseconds.
pub fn now_ns() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(elapsed.as_nanos()).expect("nanoseconds fit until the year 2262")
}
