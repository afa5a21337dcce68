//! Builds the component if needed and serves it; see `sekali-host --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sekali_host::main(std::env::args_os())
}
