//! The `tcp-tools` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tcp_tools::cli::main()
}
