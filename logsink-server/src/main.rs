//! logsink-server: arguments → config → run → exit code.

fn main() -> std::process::ExitCode {
    logsink_server::cli::main()
}
