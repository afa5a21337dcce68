//! The machine code of components, kept from one start to the next.
//!
//! It is wasmtime's cache, by the flags and variables of Spin, and in the same place: what
//! either has compiled with the same release of wasmtime and for the same settings is there
//! for the next start. To compile the component takes more than a second, for which a
//! service that was ended is not there again.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::BoolishValueParser;
use wasmtime::Cache;

use crate::console;

/// How compiled code is kept.
#[derive(Debug, Args)]
pub(crate) struct CodeCache {
    /// Compile the components at each start, and keep no compiled code
    #[arg(
        long,
        env = "DISABLE_WASMTIME_CACHE",
        value_parser = BoolishValueParser::new(),
        conflicts_with = "cache"
    )]
    disable_cache: bool,

    /// How compiled code is kept: wasmtime's TOML [default: in the user's directory of caches]
    #[arg(long, value_name = "FILE", env = "WASMTIME_CACHE_FILE")]
    cache: Option<PathBuf>,
}

impl CodeCache {
    /// The cache, if there is to be one. Without a directory where it could be there is
    /// none, which is said: unlike Spin, this host is run as a service that has no home.
    ///
    /// # Errors
    ///
    /// A file that was named and cannot be used.
    pub(crate) fn open(&self) -> Result<Option<Cache>> {
        if self.disable_cache {
            return Ok(None);
        }
        match (Cache::from_file(self.cache.as_deref()), &self.cache) {
            (Ok(cache), _) => Ok(Some(cache)),
            (Err(error), Some(file)) => Err(anyhow::Error::from(error))
                .with_context(|| format!("cannot keep compiled code as {} says", file.display())),
            (Err(error), None) => {
                console::message(format_args!("Compiling at each start: {error:#}"));
                Ok(None)
            }
        }
    }
}
