//! What one event costs its caller in logsink and in its peers, measured side by side: `make bench-library`.
//!
//! Every case runs in processes of its own, because a process has one global subscriber. The parent ([`run`]) starts them in
//! rounds, one case after the other, so that a neighbour's load falls on all of them; a child ([`child`]) sets one case up
//! ([`cases`]), measures it one way ([`measure`]) and prints what it found. [`report`] makes the tables, [`plot`] the picture.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]
#![allow(clippy::print_stderr, reason = "and tells on standard error how far it is")]

mod bars;
pub mod cases;
pub mod child;
pub mod figures;
pub mod measure;
pub mod plot;
pub mod report;
pub mod run;
pub mod sink;
