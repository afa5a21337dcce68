//! Arguments → run → exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    publisher::main(std::env::args_os())
}
