//! The `watchword` program: arguments, then the command they name.

use std::process::ExitCode;

fn main() -> ExitCode {
    watchword::cli::main()
}
