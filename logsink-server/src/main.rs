//! logsink-server: arguments → config → run → exit code.
fn main() {}
