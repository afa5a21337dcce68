//! The host and the publisher as processes of their own: this binary starts
//! itself again and becomes one of them.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode, Output, Stdio};

use super::root;

const AS_HOST: &str = "--become-host";
const AS_PUBLISHER: &str = "--become-publisher";

/// Becomes the host or the publisher when this binary was started as one.
pub fn become_process(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.skip(1).peekable();
    let role = args.next()?;
    if role == AS_HOST {
        let name = OsString::from("sekali-host");
        return Some(sekali_host::main(std::iter::once(name).chain(args)));
    }
    if role == AS_PUBLISHER {
        let name = OsString::from("publisher");
        return Some(::publisher::main(std::iter::once(name).chain(args)));
    }
    None
}

/// This binary as the host or the publisher, run at the root of the checkout.
fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "it".into()));
    command.arg(role).current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        // A developer's settings must not change what is tested.
        if name.to_string_lossy().starts_with("SPIN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("SEKALI_URL").env_remove("RUNTIME_CONFIG_FILE");
    // It would be in errors that components are given.
    command.env_remove("RUST_BACKTRACE");
    command
}

/// The host as a process.
pub fn host() -> Command {
    command(AS_HOST)
}

/// The publisher as a process, whose output is captured.
pub fn publisher(url: &str, args: &[&str]) -> Command {
    let mut command = command(AS_PUBLISHER);
    command.args(["--url", url]).args(args).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// A command for `sh -c`, which becomes it. Of its environment it has what is set, not
/// what is removed.
pub fn shell_line(command: &Command) -> String {
    let quoted = |part: &OsStr| format!("'{}'", part.display().to_string().replace('\'', r"'\''"));
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let set = set.map(|(name, value)| format!("export {}={}; ", name.display(), quoted(value)));
    let parts = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    format!("{}exec {}", set.collect::<String>(), parts.collect::<Vec<_>>().join(" "))
}

/// Status and output of a process, for a failing test.
pub fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
