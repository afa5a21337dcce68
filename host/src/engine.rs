//! wasmtime set up as in Spin, components compiled and linked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::bindings::{key_value, postgres, sqlite, variables};
use crate::instances::InstanceState;
use crate::key_value::HasKeyValue;
use crate::postgres::HasPostgres;
use crate::sqlite::HasSqlite;
use crate::variables::HasVariables;

/// Instances alive at a time, in all. Further limits are multiples of it.
const INSTANCES_MAX: u32 = 1000;
const CORE_INSTANCES_MAX: u32 = 4 * INSTANCES_MAX;
const TABLES_MAX: u32 = 2 * INSTANCES_MAX;
const TABLE_ELEMENTS_MAX: usize = 100_000;
const INSTANCE_SIZE_BYTES_MAX: usize = 10 << 20;
const MEMORY_BYTES_MAX: usize = 4 << 30;
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 200;
const TABLES_PER_COMPONENT_MAX: u32 = 64;
const MEMORIES_PER_COMPONENT_MAX: u32 = 32;
const TABLES_PER_MODULE_MAX: u32 = 2;
const MEMORIES_PER_MODULE_MAX: u32 = 2;

/// Makes components ready to be instantiated. All of an application share the
/// engine, and with it the pool of instances.
pub(crate) struct Loader {
    engine: Engine,
    linker: Linker<InstanceState>,
    loaded: HashMap<PathBuf, ServicePre<InstanceState>>,
}

impl Loader {
    /// Nothing is loaded yet. What is compiled is kept in `cache`, and taken from there.
    pub(crate) fn new(cache: Option<Cache>) -> Result<Self> {
        let engine = engine(cache)?;
        let linker = linker(&engine)?;
        Ok(Self { engine, linker, loaded: HashMap::new() })
    }

    /// The component at `source`, which is compiled once however often it is
    /// asked for.
    pub(crate) fn load(&mut self, source: &Path) -> Result<ServicePre<InstanceState>> {
        if let Some(loaded) = self.loaded.get(source) {
            return Ok(loaded.clone());
        }
        let shown = source.display();
        let component = Component::from_file(&self.engine, source)
            .map_err(anyhow::Error::from)
            .with_context(|| format!("cannot load the component {shown}"))?;
        let pre =
            self.linker.instantiate_pre(&component).map_err(anyhow::Error::from).with_context(
                || format!("the component {shown} imports what this host does not have"),
            )?;
        let loaded = ServicePre::new(pre).map_err(anyhow::Error::from).with_context(|| {
            format!("the component {shown} does not handle HTTP the WASI 0.3 way")
        })?;
        self.loaded.insert(source.to_owned(), loaded.clone());
        Ok(loaded)
    }
}

/// With Spin's pool, or without one where its address space (some 6 TiB, of
/// which little is ever memory) cannot be had.
fn engine(cache: Option<Cache>) -> Result<Engine> {
    let mut config = Config::new();
    config.cache(cache);
    config.wasm_component_model_async(true);
    // Spin compiles guests with the checks of an epoch that never ends; without
    // them guest code would be faster here than there.
    config.epoch_interruption(true);
    let on_demand = config.clone();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    Engine::new(&config).or_else(|_| Engine::new(&on_demand)).map_err(anyhow::Error::from)
}

/// Spin's limits. Unlike there, what an instance had of memory is given back
/// when it goes: Spin keeps up to 2.5 MiB for each that ever lived at a time,
/// which after a burst of 128 requests is the larger part of the process, and
/// buys no speed here.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES_MAX)
        .total_memories(INSTANCES_MAX)
        .total_stacks(INSTANCES_MAX)
        .total_tables(TABLES_MAX)
        .total_core_instances(CORE_INSTANCES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(INSTANCE_SIZE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_SIZE_BYTES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_module(TABLES_PER_MODULE_MAX)
        .max_memories_per_module(MEMORIES_PER_MODULE_MAX)
        .max_memory_size(MEMORY_BYTES_MAX);
    pool
}

/// WASI 0.2 and 0.3 (the Rust standard library uses the one, the SDK the
/// other), and Spin's interfaces.
fn linker(engine: &Engine) -> Result<Linker<InstanceState>> {
    let mut linker = Linker::<InstanceState>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sqlite::add_to_linker::<_, HasSqlite>(&mut linker, |state| &mut state.sqlite)?;
    key_value::add_to_linker::<_, HasKeyValue>(&mut linker, |state| &mut state.key_value)?;
    postgres::add_to_linker::<_, HasPostgres>(&mut linker, |state| &mut state.postgres)?;
    variables::add_to_linker::<_, HasVariables>(&mut linker, |state| &mut state.variables)?;
    Ok(linker)
}
