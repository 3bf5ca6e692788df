//! The `watchword` program: arguments, then the command they name.

use std::process::ExitCode;

/// Each login makes and frees a few dozen small objects on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    watchword::cli::main()
}
