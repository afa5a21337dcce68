//! Instances of a component: what each is given, how many requests it takes
//! in all and at a time, and when it goes.
//!
//! Instances are started, fed and dropped by wasmtime's `ProxyHandler`, as in
//! Spin: a new one whenever none is free. Nothing bounds the requests under way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime::{Store, StoreContextMut, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, Proxy, ShouldAccept, ViewFn, WorkerExpiration, WorkerState,
    WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiHttpCtx, p2, p3};

use crate::allowed_hosts::AllowedHosts;
use crate::chaining::{Chain, OutgoingRequests};
use crate::console;
use crate::key_value::{KeyValueState, Stores};
use crate::postgres::{PostgresState, Servers};
use crate::ranges::Range;
use crate::sqlite::{Databases, SqliteState};
use crate::stdio::Logs;
use crate::variables::Variables;

/// Spin's reading of "no deadline": a store must have one.
const EPOCH_DEADLINE_TICKS: u64 = u64::MAX / 2;

/// How instances are reused; each draws its own values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reuse {
    /// Requests that one instance takes in all.
    pub requests_max: Range<usize>,
    /// Requests that one instance takes at a time.
    pub concurrent_requests_max: Range<usize>,
    /// How long an instance without requests is kept.
    pub idle_timeout: Range<Duration>,
    /// How long a request may take to be answered, if there is a limit.
    pub request_timeout: Option<Range<Duration>>,
}

/// What every instance of a component is given.
#[derive(Debug)]
pub(crate) struct Grants {
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Application variables.
    pub variables: Arc<Variables>,
    /// What it may send requests to.
    pub allowed_hosts: Arc<AllowedHosts>,
    /// SQLite databases.
    pub databases: Arc<Databases>,
    /// Key-value stores.
    pub stores: Arc<Stores>,
    /// PostgreSQL servers.
    pub servers: Arc<Servers>,
    /// Where output goes.
    pub logs: Logs,
    /// Bytes of memory that an instance may have, if there is a limit. Whoever wants more
    /// gets none, which for most guests is the end.
    pub memory_bytes_max: Option<usize>,
}

/// The host's side of one instance.
pub(crate) struct InstanceState {
    /// Behind `spin:sqlite`.
    pub sqlite: SqliteState,
    /// Behind `spin:key-value`.
    pub key_value: KeyValueState,
    /// Behind `spin:postgres`.
    pub postgres: PostgresState,
    /// Behind `spin:variables`.
    pub variables: Arc<Variables>,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: OutgoingRequests,
    table: ResourceTable,
    limits: StoreLimits,
}

impl InstanceState {
    /// No arguments, no files, no network: what is not set here stays denied.
    fn new(grants: &Grants, chain: Weak<dyn Chain>) -> Self {
        let (stdout, stderr) = grants.logs.open();
        let mut wasi = WasiCtx::builder();
        wasi.stdout(stdout).stderr(stderr);
        for (name, value) in &grants.environment {
            wasi.env(name, value);
        }
        Self {
            sqlite: SqliteState::new(grants.databases.clone()),
            key_value: KeyValueState::new(grants.stores.clone()),
            postgres: PostgresState::new(grants.servers.clone()),
            variables: grants.variables.clone(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outgoing: OutgoingRequests::new(grants.allowed_hosts.clone(), chain),
            table: ResourceTable::new(),
            limits: match grants.memory_bytes_max {
                Some(bytes) => StoreLimitsBuilder::new().memory_size(bytes).build(),
                None => StoreLimits::default(),
            },
        }
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl p2::WasiHttpView for InstanceState {
    fn http(&mut self) -> p2::WasiHttpCtxView<'_> {
        p2::WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl p3::WasiHttpView for InstanceState {
    fn http(&mut self) -> p3::WasiHttpCtxView<'_> {
        p3::WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// Starts instances for the handler.
pub(crate) struct Instances {
    component: ServicePre<InstanceState>,
    grants: Grants,
    reuse: Reuse,
    chain: Weak<dyn Chain>,
    ended: Arc<AtomicBool>,
}

impl Instances {
    /// Instances of `component` with `grants`, reused as `reuse` says, that send
    /// requests to those of `chain`. Once `ended` is set, instances are dropped as they
    /// are, which is no failure.
    pub(crate) fn new(
        component: ServicePre<InstanceState>,
        grants: Grants,
        reuse: Reuse,
        chain: Weak<dyn Chain>,
        ended: Arc<AtomicBool>,
    ) -> Self {
        Self { component, grants, reuse, chain, ended }
    }
}

impl HandlerState for Instances {
    type StoreData = InstanceState;
    type WorkerExpiration = Expiration;
    type WorkerState = Limits;

    async fn instantiate(&self) -> wasmtime::Result<Instance<InstanceState, Expiration, Limits>> {
        let state = InstanceState::new(&self.grants, self.chain.clone());
        let mut store = Store::new(self.component.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(EPOCH_DEADLINE_TICKS);
        let proxy = self.component.instantiate_async(&mut store).await?;
        let request_timeout = self.reuse.request_timeout.map_or(Duration::MAX, Range::draw);
        Ok(Instance {
            store,
            proxy: Proxy::P3(proxy),
            view: ViewFn::P3(<InstanceState as p3::WasiHttpView>::http),
            expiration: Expiration {
                idle_timeout: self.reuse.idle_timeout.draw(),
                request_timeout,
                sleep: Box::pin(tokio::time::sleep(Duration::MAX)),
            },
            state: Limits {
                request_timeout,
                requests_max: self.reuse.requests_max.draw(),
                concurrent_requests_max: self.reuse.concurrent_requests_max.draw(),
                ended: self.ended.clone(),
            },
        })
    }
}

/// When an instance is dropped although it could go on.
pub(crate) struct Expiration {
    idle_timeout: Duration,
    request_timeout: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl WorkerExpiration for Expiration {
    fn poll(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        let this = self.get_mut();
        let timeout = match status {
            WorkerStatus::Idle => this.idle_timeout,
            WorkerStatus::Requests | WorkerStatus::PostReturn => this.request_timeout,
        };
        // What overflows an instant is no deadline.
        let Some(deadline) = start.checked_add(timeout) else {
            return Poll::Pending;
        };
        if this.sleep.deadline() != deadline.into() {
            this.sleep.as_mut().reset(deadline.into());
        }
        this.sleep.as_mut().poll(context)
    }
}

/// How many requests an instance takes, and how long each may take.
pub(crate) struct Limits {
    request_timeout: Duration,
    requests_max: usize,
    concurrent_requests_max: usize,
    ended: Arc<AtomicBool>,
}

impl WorkerState for Limits {
    type StoreData = InstanceState;
    type RequestId = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.requests_max {
            ShouldAccept::Never
        } else if concurrent >= self.concurrent_requests_max {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, InstanceState>,
        _request: (),
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync + 'static>> {
        Box::pin(tokio::time::sleep(self.request_timeout))
    }

    fn drop(&self, store: Store<InstanceState>, result: wasmtime::Result<()>) {
        if let Err(error) = result
            && !self.ended.load(Ordering::Relaxed)
        {
            console::message(format_args!("worker failed: {error:#}"));
        }
        drop(store);
    }
}
