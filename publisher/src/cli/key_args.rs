//! `publisher key`: makes keys for a service that asks for them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::console;

/// What a key begins with, so that scanners for secrets know one.
const PREFIX: &str = "sekali_";
/// Random bytes of a key.
const SECRET_BYTES: usize = 32;
/// The longest name that the service takes, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Make keys for a service that asks for them
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    New(NewArgs),
}

/// Make a key: prints it, and the line for the variable api_keys of the service
///
/// The line has the SHA-256 of the key, by which nobody gets in. The key is shown
/// this once.
#[derive(Debug, Args)]
struct NewArgs {
    /// By which the service calls it: letters, digits, dots, dashes, underscores
    #[arg(long, value_parser = parse_name)]
    name: String,
    /// What it is good for; repeatable
    #[arg(long, required = true)]
    scope: Vec<Scope>,
    /// Of which topics, all by default; * stands for any characters (shop.*); repeatable
    #[arg(long = "topic", value_name = "PATTERN")]
    topics: Vec<String>,
    /// When it ends (2027-01-31T00:00:00Z)
    #[arg(long, value_name = "TIME")]
    expires: Option<jiff::Timestamp>,
    /// Events a second that it may publish, in each instance of the service
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    events_per_second: Option<u64>,
    /// Bytes a second that it may publish
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_second: Option<u64>,
    /// Write the key to this file, which is new and its owner's alone, and do not print it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// To publish
    Publish,
    /// To read events, counters and subscriptions
    Read,
    /// All, and to define subscriptions
    Admin,
}

/// What the service has of a key.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    sha256: String,
    scopes: &'a [Scope],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    topics: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
}

fn parse_name(name: &str) -> Result<String, String> {
    let is_plain = |one: u8| one.is_ascii_alphanumeric() || b"._-".contains(&one);
    match (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "expected 1 to {NAME_CHARS_MAX} letters, digits, dots, dashes and underscores"
        )),
    }
}

impl KeyArgs {
    /// Makes what is asked for.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let KeyCommand::New(args) = &self.command;
        let secret: [u8; SECRET_BYTES] = rand::random();
        let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        let line = args.line(&key)?;
        match &args.key_file {
            Some(file) => {
                write_secret(file, &key)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                console::note(format_args!("the key is in {}", file.display()));
                console::print(&format!("{line}\n"))
            }
            None => {
                console::note(
                    "the key, for whoever uses it, which is not shown again; and its line for \
                     the variable api_keys of the service:",
                );
                console::print(&format!("{key}\n{line}\n"))
            }
        }
    }
}

impl NewArgs {
    fn line(&self, key: &str) -> serde_json::Result<String> {
        let digest = Sha256::digest(key);
        serde_json::to_string(&Entry {
            name: &self.name,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            scopes: &self.scope,
            topics: &self.topics,
            expires: self.expires.map(|at| at.to_string()),
            events_per_second: self.events_per_second,
            bytes_per_second: self.bytes_per_second,
        })
    }
}

fn write_secret(file: &Path, key: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(format!("{key}\n").as_bytes())?;
    file.sync_all()
}
