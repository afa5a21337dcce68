//! Pools of connections to PostgreSQL servers, and what limits how many are open.
//!
//! As in Spin: each component has a pool for each address and root certificate,
//! of [`CONNECTIONS_MAX`] connections. Who wants one more waits, without limit.
//! An idle connection is never closed, and is cleaned when it is taken again (no
//! cursors, locks, settings and temporary tables), but for a transaction that was
//! left open: nothing rolls it back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use anyhow::{Context, Result};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use crate::postgres::tls::{self, RootCertificate};

/// Connections of one pool.
const CONNECTIONS_MAX: usize = 64;
/// Pools that a component keeps; it is the least used that go.
const POOLS_MAX: u64 = 16;

/// The pools of one component.
pub(crate) struct Pools(Cache<(String, Option<String>), Pool>);

impl Pools {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(Cache::new(POOLS_MAX))
    }

    /// A connection to `address`, for which `root` may vouch too.
    ///
    /// # Errors
    ///
    /// An address that is none, and why there is no connection.
    pub(crate) async fn client(
        &self,
        address: &str,
        root: Option<&RootCertificate>,
    ) -> Result<Client> {
        let key = (address.to_owned(), root.map(|root| root.pem().to_owned()));
        let pool = self
            .0
            .try_get_with_by_ref(&key, || pool(address, root))
            // The error is shared by those who wait for the same pool.
            .map_err(|error| anyhow::anyhow!("{error:#}"))
            .context("establishing PostgreSQL connection pool")?;
        Ok(Client(Arc::new(pool.get().await?)))
    }
}

impl fmt::Debug for Pools {
    /// Addresses have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

fn pool(address: &str, root: Option<&RootCertificate>) -> Result<Pool> {
    let config: Config = address.parse().context("parsing Postgres connection string")?;
    let cleaned = ManagerConfig { recycling_method: RecyclingMethod::Clean };
    let manager = if config.get_ssl_mode() == SslMode::Disable {
        Manager::from_config(config, NoTls, cleaned)
    } else {
        Manager::from_config(config, tls::connector(root)?, cleaned)
    };
    Pool::builder(manager)
        .max_size(CONNECTIONS_MAX)
        .build()
        .context("building Postgres connection pool")
}

/// A connection out of a pool, into which it goes back with the last clone.
#[derive(Clone)]
pub(crate) struct Client(Arc<Object>);

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.0
    }
}

/// A connection that the guest has a handle to.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Connection {
    /// Statements under way hold it too.
    pub(crate) client: Client,
    /// Given back with the handle, whatever is under way.
    pub(crate) _permit: Permit,
}

/// What the guest says before it opens a connection.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct ConnectionBuilder {
    /// Where to.
    pub(crate) address: String,
    /// Who may vouch for the server, beside those whom the machine trusts.
    pub(crate) root: Option<RootCertificate>,
}

/// How many connections guests may have open at a time, in all components:
/// `max_connections` of `[outbound_pg]` and `max_total_connections` of
/// `[outbound_networking]` in the runtime configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Permits(Vec<Arc<Semaphore>>);

impl Permits {
    /// As many as each of `limits` that is set allows.
    pub(crate) fn new(limits: [Option<usize>; 2]) -> Self {
        let semaphore = |limit: usize| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self(limits.into_iter().flatten().map(semaphore).collect())
    }

    /// Waits until one more may be opened.
    pub(crate) async fn acquire(&self) -> Result<Permit> {
        let mut permits = Vec::with_capacity(self.0.len());
        for semaphore in &self.0 {
            permits.push(semaphore.clone().acquire_owned().await?);
        }
        Ok(Permit { _held: permits })
    }
}

/// Leave to have a connection open.
pub(crate) struct Permit {
    _held: Vec<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn both_limits_hold() {
        let waits = |permits: &Permits| {
            let mut context = Context::from_waker(Waker::noop());
            match pin!(permits.acquire()).poll(&mut context) {
                Poll::Ready(permit) => Some(permit.expect("never closed")),
                Poll::Pending => None,
            }
        };
        let unlimited = Permits::new([None, None]);
        assert!((0..100).all(|_| waits(&unlimited).is_some()));
        for limits in [[Some(2), None], [None, Some(2)], [Some(2), Some(3)], [Some(9), Some(2)]] {
            let permits = Permits::new(limits);
            let first = waits(&permits);
            let second = waits(&permits);
            assert!(first.is_some() && second.is_some(), "{limits:?}");
            assert!(waits(&permits).is_none(), "{limits:?}");
            drop(first);
            assert!(waits(&permits).is_some(), "{limits:?}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_said_to_be() {
        let error = Pools::new().client("postgres://a:b:c", None).await.err().expect("no address");
        let text = format!("{error:?}");
        assert!(text.starts_with("establishing PostgreSQL connection pool"), "{text}");
        assert!(text.contains("parsing Postgres connection string"), "{text}");
    }
}
