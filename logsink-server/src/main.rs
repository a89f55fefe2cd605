//! logsink-server: arguments → config → run → exit code.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    logsink_server::cli::main()
}
