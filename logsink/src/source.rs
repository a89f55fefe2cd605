//! Where rules come from: a file, etcd, or the server that takes the events.
//!
//! A source hands over documents; [`crate::reload`] judges them. Sources reconnect by themselves and for ever: a source
//! that is down changes nothing for a running process.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod file;
#[cfg(feature = "grpc")]
pub mod push;
