//! Examples of logsink, one file each: `cargo run -p logsink-examples --example minimal`.
