//! The command line: one file a command below `cli/`.

pub mod rules;
