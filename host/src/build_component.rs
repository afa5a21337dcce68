//! The components' own builds: the wasm target, added when it is missing, and
//! the build commands of the manifest.
//!
//! The builds print to stderr: stdout is read by programs.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::console;
use crate::manifest::{Build, Component};

/// The target that a Rust component is built for.
const WASM_TARGET: &str = "wasm32-wasip2";

/// Builds the `components` that say how, one after the other; what two of them
/// have in common is run once. Whether any said how.
pub(crate) fn build_all(components: &[Component]) -> Result<bool> {
    let mut built: Vec<&Build> = Vec::new();
    for component in components {
        let Some(of_component) = &component.build else { continue };
        if !built.contains(&of_component) {
            build(&component.id, of_component)?;
            built.push(of_component);
        }
    }
    Ok(!built.is_empty())
}

/// Runs the build commands of component `id` one after the other.
fn build(id: &str, build: &Build) -> Result<()> {
    if build.commands.iter().any(|command| command.contains(WASM_TARGET)) {
        ensure_target(&build.directory)?;
    }
    for command in &build.commands {
        console::message(format_args!("Building component {id} with `{command}`"));
        let status = shell(command)
            .current_dir(&build.directory)
            .stdout(io::stderr())
            .status()
            .with_context(|| format!("cannot run `{command}` in {}", build.directory.display()))?;
        ensure!(
            status.success(),
            "building component {id} failed ({status}): see above, or pass --no-build to serve what was built before"
        );
    }
    Ok(())
}

fn shell(command: &str) -> Command {
    let (program, flag) = if cfg!(windows) { ("cmd.exe", "/c") } else { ("sh", "-c") };
    let mut shell = Command::new(program);
    shell.args([flag, command]);
    shell
}

/// Adds the wasm target to the toolchain in use in `directory`.
fn ensure_target(directory: &Path) -> Result<()> {
    if has_target(directory)? {
        return Ok(());
    }
    let command = format!("rustup target add {WASM_TARGET}");
    console::message(format_args!("Adding the {WASM_TARGET} target with `{command}`"));
    let status = Command::new("rustup")
        .args(["target", "add", WASM_TARGET])
        .current_dir(directory)
        .stdout(io::stderr())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`{command}` failed ({status}): see above"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "the Rust target {WASM_TARGET} is missing and there is no rustup to add it: \
             install rustup from https://rustup.rs, or the target by other means"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot run `{command}`")),
    }
}

/// Asks the compiler and not rustup, which not every toolchain comes from.
fn has_target(directory: &Path) -> Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .current_dir(directory)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run `rustc`: install Rust from https://rustup.rs")?;
    let libraries = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(libraries.trim_end()).is_dir())
}

#[cfg(all(test, unix))]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::fs;

    use super::*;

    #[test]
    fn what_is_common_is_run_once() -> Result<()> {
        let root = std::env::temp_dir().join(format!("sekali-build-{}", std::process::id()));
        fs::create_dir_all(root.join("below"))?;
        let component = |id: &str, command: Option<&str>, directory: &str| Component {
            id: id.to_owned(),
            source: root.join("c.wasm"),
            variables: BTreeMap::new(),
            environment: BTreeMap::new(),
            allowed_outbound_hosts: Vec::new(),
            key_value_stores: HashSet::new(),
            sqlite_databases: HashSet::new(),
            build: command.map(|command| Build {
                commands: vec![command.to_owned()],
                directory: root.join(directory),
            }),
        };
        assert!(!build_all(&[component("a", None, "")])?);
        let components = [
            component("a", Some("echo same >>log"), ""),
            component("b", None, ""),
            component("c", Some("echo other >>log"), ""),
            component("d", Some("echo same >>log"), ""),
            component("e", Some("echo same >>log"), "below"),
        ];
        assert!(build_all(&components)?);
        assert_eq!(fs::read_to_string(root.join("log"))?, "same\nother\n");
        assert_eq!(fs::read_to_string(root.join("below/log"))?, "same\n");
        let error = build_all(&[component("f", Some("false"), "")]).expect_err("it fails");
        assert!(error.to_string().contains("component f"), "{error}");
        fs::remove_dir_all(&root)?;
        Ok(())
    }
}
