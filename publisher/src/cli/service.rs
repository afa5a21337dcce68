//! Where the service is, who asks, and how long to try.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::netrc::{self, Login};
use super::values::{Hidden, WrongArguments, parse_duration, parse_timeout, variable};
use crate::client::{self, Address, Client, Credentials, Protocol};
use crate::ledger::RunFile;
use crate::retry::BACKOFF_MAX_MS;
use crate::signal::{self, Stop};

/// Where the service is if nothing else is said.
const URL_DEFAULT: &str = "http://127.0.0.1:3000";
/// The variable that says where the service is.
const URL_VARIABLE: &str = "SEKALI_URL";
/// The variable that says who asks.
const USER_VARIABLE: &str = "SEKALI_USER";
/// The variable with the password of who asks.
const PASSWORD_VARIABLE: &str = "SEKALI_PASSWORD";

/// How to reach the service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Service {
    /// Where the service is [default: http://127.0.0.1:3000; of a recorded run: where it was]
    /// [env: SEKALI_URL]
    #[arg(long, global = true)]
    url: Option<Hidden>,
    /// Who asks, if the service wants to know (HTTP Basic) [env: SEKALI_USER]. The password is
    /// better in SEKALI_PASSWORD or a netrc file: others on this machine see arguments
    #[arg(long, short, global = true, value_name = "USER[:PASSWORD]")]
    user: Option<Hidden>,
    /// Look up users and passwords by host in this file, in the form of ~/.netrc
    #[arg(long, global = true, value_name = "FILE")]
    netrc_file: Option<PathBuf>,
    /// How long to wait for the service to become healthy (30, 500ms, 2m)
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    wait_for: Duration,
    /// How long to retry a request after its first failure; 0: never
    #[arg(long, global = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    retry_for: Duration,
    /// How long one attempt of a request may take
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,
}

/// A service that is to be there, and the user who may not want to wait.
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) stop: Stop,
    pub(super) wait_for: Duration,
}

impl Service {
    /// Where the arguments say.
    pub(super) fn session(
        &self,
        protocol: Protocol,
        backoff_max_ms: u64,
    ) -> anyhow::Result<Session> {
        let address = match self.given_address()? {
            Some(address) => address,
            None => URL_DEFAULT.parse()?,
        };
        self.session_at(self.with_credentials(address)?, protocol, backoff_max_ms)
    }

    /// Where a recorded run was, unless told otherwise.
    pub(super) fn session_of(&self, run: &RunFile) -> anyhow::Result<Session> {
        let address = self.given_address()?.unwrap_or_else(|| run.url.clone());
        self.session_at(self.with_credentials(address)?, Protocol::Http1, BACKOFF_MAX_MS)
    }

    /// At this address, as this user, whatever the arguments say.
    pub(super) fn session_at(
        &self,
        address: Address,
        protocol: Protocol,
        backoff_max_ms: u64,
    ) -> anyhow::Result<Session> {
        let client = Arc::new(Client::new(client::Options {
            address,
            timeout: self.timeout,
            retry_for: self.retry_for,
            backoff_max: Duration::from_millis(backoff_max_ms),
            protocol,
            jitter_seed: rand::random(),
        })?);
        Ok(Session { client, stop: signal::watch()?, wait_for: self.wait_for })
    }

    /// What `--url` or its variable says.
    fn given_address(&self) -> Result<Option<Address>, WrongArguments> {
        let (given, name) = match &self.url {
            Some(Hidden(text)) => (Some(text.clone()), "--url <URL>"),
            None => (text_of(URL_VARIABLE)?, URL_VARIABLE),
        };
        let parse = |text: String| {
            text.parse()
                .map_err(|error| WrongArguments(format!("invalid value for '{name}': {error}")))
        };
        given.map(parse).transpose()
    }

    /// The address with who asks: as `--user` says, or the address itself, or
    /// the environment, or the netrc file. The password may come from further
    /// down than the user.
    fn with_credentials(&self, address: Address) -> anyhow::Result<Address> {
        let password = text_of(PASSWORD_VARIABLE)?;
        let (user, own_password) = match (&self.user, address.credentials()) {
            (Some(Hidden(text)), _) => pair(text),
            (None, Some(credentials)) if credentials.has_password() => return Ok(address),
            (None, Some(credentials)) if !credentials.user().is_empty() => {
                (Some(String::from_utf8_lossy(credentials.user()).into_owned()), None)
            }
            (None, _) => text_of(USER_VARIABLE)?.map_or((None, None), |text| pair(&text)),
        };
        let is_named = user.is_some();
        let login = match (user, own_password.or_else(|| password.clone())) {
            (Some(user), Some(password)) => Some(Login { user, password }),
            (user, _) => self.netrc(&address, user.as_deref())?,
        };
        if let Some(Login { user, password }) = login {
            let credentials = Credentials::new(user.as_bytes(), password.as_bytes());
            return Ok(address.with_credentials(Some(credentials)));
        }
        match address.credentials() {
            // A user alone is a token, if it came with the address.
            Some(token) if self.user.is_none() && token.authorization().is_some() => Ok(address),
            None if !is_named && password.is_none() => Ok(address),
            None if !is_named => Err(WrongArguments(format!(
                "{PASSWORD_VARIABLE} is set without a user: give --user or {USER_VARIABLE}"
            ))
            .into()),
            _ => Err(WrongArguments(format!(
                "there is no password for the service at {address}: set {PASSWORD_VARIABLE}, or \
                 give --netrc-file, or --user USER:PASSWORD (--user TOKEN: for a token)"
            ))
            .into()),
        }
    }

    fn netrc(&self, address: &Address, user: Option<&str>) -> anyhow::Result<Option<Login>> {
        match (&self.netrc_file, address.place().host_str()) {
            (Some(path), Some(host)) => netrc::read(path, host, user),
            _ => Ok(None),
        }
    }
}

/// `USER` or `USER:PASSWORD`.
fn pair(text: &str) -> (Option<String>, Option<String>) {
    match text.split_once(':') {
        Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
        None => (Some(text.to_owned()), None),
    }
}

/// A variable of the environment that has to be text, which is not shown.
fn text_of(name: &str) -> Result<Option<String>, WrongArguments> {
    let text = variable(name).map(OsString::into_string).transpose();
    text.map_err(|_| WrongArguments(format!("the variable {name} is not Unicode")))
}

impl Session {
    /// Waits until the service is healthy; false if the user ended that.
    ///
    /// # Errors
    ///
    /// If it does not become healthy in time.
    pub(super) async fn ready(&self) -> anyhow::Result<bool> {
        let mut interrupted = self.stop.clone();
        tokio::select! {
            healthy = self.client.wait_until_healthy(self.wait_for) => healthy.map(|()| true),
            () = interrupted.wait() => Ok(false),
        }
    }
}
