use std::process::ExitCode;

use switchback::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    switchback::cli::main()
}
