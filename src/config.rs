//! The Spin variables, read once per instance.
//!
//! Each has its default in `spin.toml`, so a value that is missing or cannot
//! be read is a mistake in a deployment: requests are answered 503 with the
//! variable's name until it is mended, and shippers keep their events.

use std::time::Duration;

use crate::http::cors::Origins;
use crate::log::Level;

/// How the service was set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Most events in one request.
    pub batch_events_max: usize,
    /// How long a publish waits for the store before it is answered 503.
    pub commit_wait_max: Duration,
    /// What `Retry-After` says on a 503.
    pub retry_after_seconds: u32,
    /// Least severe log line written; `None` for no line at all.
    pub log_level: Option<Level>,
    /// Pages of which origins may call the service.
    pub cors_origins: Origins,
}

/// The names of the variables, as `spin.toml` declares them.
pub const VARIABLES: [&str; 6] = [
    "body_bytes_max",
    "batch_events_max",
    "commit_wait_ms_max",
    "retry_after_seconds",
    "log_level",
    "cors_origins",
];

impl Config {
    /// Builds the configuration from the values of [`VARIABLES`], in that order.
    ///
    /// # Errors
    ///
    /// A sentence that names the variable and its value.
    pub fn from_values(values: &[String; VARIABLES.len()]) -> Result<Self, String> {
        let [body_bytes_max, batch_events_max, commit_wait, retry_after, log_level, cors_origins] =
            values;
        let positive = |name: &str, value: &str| match value.trim().parse::<u32>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!(
                "The variable {name} must be a whole number from 1 to {}, is {value:?}.",
                u32::MAX
            )),
        };
        Ok(Config {
            body_bytes_max: positive("body_bytes_max", body_bytes_max)? as usize,
            batch_events_max: positive("batch_events_max", batch_events_max)? as usize,
            commit_wait_max: Duration::from_millis(
                positive("commit_wait_ms_max", commit_wait)?.into(),
            ),
            retry_after_seconds: positive("retry_after_seconds", retry_after)?,
            log_level: match log_level.trim() {
                "off" => None,
                "error" => Some(Level::Error),
                "warn" => Some(Level::Warn),
                "info" => Some(Level::Info),
                "debug" => Some(Level::Debug),
                _ => {
                    return Err(format!(
                        "The variable log_level must be off, error, warn, info or debug, \
                         is {log_level:?}."
                    ));
                }
            },
            cors_origins: Origins::parse(cors_origins)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_variable_that_is_wrong() {
        let good = ["10485760", "10000", "5000", "1", "warn", ""].map(str::to_owned);
        let config = Config::from_values(&good).unwrap();
        assert_eq!(config.body_bytes_max, 10 * 1024 * 1024);
        assert_eq!(config.log_level, Some(Level::Warn));
        for (index, name) in VARIABLES.iter().enumerate() {
            for wrong in ["?", "0", "-1", "ten", "99999999999"] {
                let mut values = good.clone();
                values[index] = wrong.to_owned();
                let error = Config::from_values(&values).unwrap_err();
                assert!(error.contains(name), "{error}");
            }
        }
    }
}
