//! `spin:postgres@4.2.0`, as Spin has it.
//!
//! - An address is let through if `allowed_outbound_hosts` allow each host in it,
//!   which is found out when a connection is opened; Unix sockets never are.
//! - A connection comes from a pool: see [`pools`]. The guest has it for as long
//!   as it keeps its handle.
//! - A synchronous call holds the whole instance until it is done, also while it
//!   waits for a connection.
//!
//! Unlike in Spin, what an address says with `hostaddr` must be allowed too, and
//! `connection-builder.build` looks whether an address is allowed, as all other
//! ways to open a connection do.
#![expect(clippy::result_large_err, reason = "the interface has errors of that size")]

pub(crate) mod pools;
mod sql_types;
mod statements;
mod tls;
mod values;

use std::sync::Arc;

use tokio_postgres::Config;
use tokio_postgres::config::Host as ServerHost;
use wasmtime::component::{Accessor, FutureReader, HasData, Resource, ResourceTable, StreamReader};

use crate::allowed_hosts::AllowedHosts;
use crate::bindings::postgres::{
    Column, DbValue, Error, Host, HostConnection, HostConnectionBuilder,
    HostConnectionBuilderWithStore, HostConnectionWithStore, ParameterValue, RowSet,
};
use crate::guest_stream;
use crate::postgres::pools::{Client, Connection, ConnectionBuilder, Permits, Pools};
use crate::postgres::tls::RootCertificate;

/// Connections that one instance may have open at a time, and builders.
const HANDLES_MAX: usize = 1024;

/// The servers that a component may connect to.
#[derive(Debug)]
pub(crate) struct Servers {
    allowed: Arc<AllowedHosts>,
    pools: Pools,
    permits: Permits,
}

impl Servers {
    /// Those that `allowed` allow, with as many connections as there are permits.
    pub(crate) fn new(allowed: Arc<AllowedHosts>, permits: Permits) -> Self {
        Self { allowed, pools: Pools::new(), permits }
    }

    async fn open(
        &self,
        address: &str,
        root: Option<&RootCertificate>,
    ) -> Result<Connection, Error> {
        self.check(address)?;
        let permit = self.permits.acquire().await.map_err(|_| too_many())?;
        let client = self.pools.client(address, root).await;
        let client = client.map_err(|error| Error::ConnectionFailed(format!("{error:?}")))?;
        Ok(Connection { client, _permit: permit })
    }

    fn check(&self, address: &str) -> Result<(), Error> {
        let config: Config =
            address.parse().map_err(|error: tokio_postgres::Error| failed(&error.to_string()))?;
        let ports = config.get_ports();
        let check = |index: usize, host: &str| {
            let only = if ports.len() == 1 { ports.first() } else { None };
            let host = match ports.get(index).or(only) {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            };
            if self.allowed.allow_postgres(&host) {
                return Ok(());
            }
            let denied = format!("postgres://{host}");
            self.allowed.say_that_it_is_denied(&denied);
            Err(failed(&format!("address {denied} is not permitted")))
        };
        for (index, host) in config.get_hosts().iter().enumerate() {
            match host {
                ServerHost::Tcp(host) => check(index, host)?,
                #[cfg(unix)]
                ServerHost::Unix(_) => {
                    return Err(failed("Unix sockets are not supported on WebAssembly"));
                }
            }
        }
        let mut given = config.get_hostaddrs().iter().enumerate();
        given.try_for_each(|(index, host)| check(index, &host.to_string()))
    }
}

fn failed(reason: &str) -> Error {
    Error::ConnectionFailed(reason.to_owned())
}

fn too_many() -> Error {
    failed("too many connections")
}

/// The connections of one instance.
pub(crate) struct PostgresState {
    servers: Arc<Servers>,
    connections: ResourceTable,
    builders: ResourceTable,
}

impl PostgresState {
    /// State of a new instance: no connection is open.
    pub(crate) fn new(servers: Arc<Servers>) -> Self {
        let table = || {
            let mut table = ResourceTable::new();
            table.set_max_capacity(HANDLES_MAX);
            table
        };
        Self { servers, connections: table(), builders: table() }
    }

    fn client(&self, connection: &Resource<Connection>) -> Result<Client, Error> {
        let connection = self.connections.get(connection);
        connection.map(|open| open.client.clone()).map_err(|_| failed("no connection found"))
    }

    fn push(&mut self, connection: Connection) -> Result<Resource<Connection>, Error> {
        self.connections.push(connection).map_err(|_| too_many())
    }

    fn builder(
        &self,
        builder: &Resource<ConnectionBuilder>,
    ) -> Result<(String, Option<RootCertificate>), Error> {
        let builder = self.builders.get(builder).map_err(|_| failed("no builder found"))?;
        Ok((builder.address.clone(), builder.root.clone()))
    }
}

impl Host for PostgresState {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<Error> {
        Ok(error)
    }
}

impl HostConnection for PostgresState {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, Error> {
        let connection = self.servers.open(&address, None).await?;
        self.push(connection)
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<RowSet, Error> {
        statements::query(&self.client(&connection)?, &statement, parameters).await
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        statements::execute(&self.client(&connection)?, &statement, parameters).await
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.connections.delete(connection)?;
        Ok(())
    }
}

impl HostConnectionBuilder for PostgresState {
    async fn new(&mut self, address: String) -> wasmtime::Result<Resource<ConnectionBuilder>> {
        Ok(self.builders.push(ConnectionBuilder { address, root: None })?)
    }

    async fn set_ca_root(
        &mut self,
        builder: Resource<ConnectionBuilder>,
        certificate: String,
    ) -> Result<(), Error> {
        let root = RootCertificate::from_pem(certificate)
            .map_err(|error| Error::Other(format!("invalid root certificate: {error:#}")))?;
        let builder = self.builders.get_mut(&builder).map_err(|_| failed("no builder found"))?;
        builder.root = Some(root);
        Ok(())
    }

    async fn build(
        &mut self,
        builder: Resource<ConnectionBuilder>,
    ) -> Result<Resource<Connection>, Error> {
        let (address, root) = self.builder(&builder)?;
        let connection = self.servers.open(&address, root.as_ref()).await?;
        self.push(connection)
    }

    async fn drop(&mut self, builder: Resource<ConnectionBuilder>) -> wasmtime::Result<()> {
        self.builders.delete(builder)?;
        Ok(())
    }
}

/// Names [`PostgresState`] as the data behind the interface.
pub(crate) struct HasPostgres;

impl HasData for HasPostgres {
    type Data<'a> = &'a mut PostgresState;
}

/// Opens a connection while other tasks of the instance go on.
async fn open<T>(
    accessor: &Accessor<T, HasPostgres>,
    address: &str,
    root: Option<&RootCertificate>,
) -> Result<Resource<Connection>, Error> {
    let servers = accessor.with(|mut access| access.get().servers.clone());
    let connection = servers.open(address, root).await?;
    accessor.with(|mut access| access.get().push(connection))
}

/// The connection behind a handle that a concurrent call was given.
fn client<T>(
    accessor: &Accessor<T, HasPostgres>,
    connection: &Resource<Connection>,
) -> Result<Client, Error> {
    accessor.with(|mut access| access.get().client(connection))
}

impl<T: Send> HostConnectionWithStore<T> for HasPostgres {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> Result<Resource<Connection>, Error> {
        open(accessor, &address, None).await
    }

    async fn query_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<(Vec<Column>, StreamReader<Vec<DbValue>>, FutureReader<Result<(), Error>>), Error>
    {
        let client = client(accessor, &connection)?;
        let under_way = statements::query_rows(&client, &statement, parameters).await?;
        let (rows, outcome) =
            guest_stream::from_channels(accessor, under_way.rows, under_way.outcome)
                .map_err(|error| Error::Other(error.to_string()))?;
        Ok((under_way.columns, rows, outcome))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        statements::execute(&client(accessor, &connection)?, &statement, parameters).await
    }
}

impl<T: Send> HostConnectionBuilderWithStore<T> for HasPostgres {
    async fn build_async(
        accessor: &Accessor<T, Self>,
        builder: Resource<ConnectionBuilder>,
    ) -> Result<Resource<Connection>, Error> {
        let (address, root) = accessor.with(|mut access| access.get().builder(&builder))?;
        open(accessor, &address, root.as_ref()).await
    }
}
