//! The `watchword` program: arguments, then the command they name.

use std::process::ExitCode;

/// Each login makes and frees a few dozen small objects on several threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    watchword::cli::main()
}
