//! The tests of the server's unsafe code alone, for `make sanitize`: `make test` runs them with the server.

#![allow(dead_code, unused_imports, reason = "the server uses what the tests do not")]
#![allow(unreachable_pub, reason = "what is public in the server need not be here")]

#[path = "../../logsink-server/src"]
mod server {
    mod text;
}
