//! The engine that all filters share: how guests are compiled, where their memory comes from, what they may import.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::bindings;
use super::state::State;
use super::ticker::Ticker;

/// Core instances of one component: Rust and C need 3, QuickJS 5, Python 38.
pub(super) const CORE_INSTANCES_MAX: u32 = 48;
/// Memories of one component: Rust and C need 1, QuickJS 3.
pub(super) const MEMORIES_MAX: u32 = 4;
/// Tables of one component: most need 2, QuickJS 3.
pub(super) const TABLES_MAX: u32 = 8;
/// Instances that the pool can hold. Each memory reserves 4 GiB of addresses, of which there are 128 TiB.
const INSTANCES_MAX: u32 = 4_096;
/// Instances beside those that are configured at the start: for tenants and filters that come later.
const LATER_INSTANCES: usize = 256;
/// Instances beside those of the chains: for checks at the start.
const SPARE_INSTANCES: u32 = 8;

/// How large the engine must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Size {
    /// Instances that may live at a time, not counting the few of the checks at the start.
    pub instances: usize,
    /// The greatest `memory_octets_max` of any filter.
    pub memory_octets_max: usize,
    /// The greatest `table_elements_max` of any filter.
    pub table_elements_max: usize,
    /// A guest's stack.
    pub stack_octets_max: usize,
    /// Whether instructions are counted, because a filter has a limit on them.
    pub counts_fuel: bool,
    /// Where compiled components are kept; `None`: nowhere.
    pub cache: Option<PathBuf>,
}

/// The engine that all filters share.
#[derive(Clone)]
pub struct Host {
    pub(super) engine: Engine,
    pub(super) linker: Arc<Linker<State>>,
    pub(super) ticker: Arc<Ticker>,
    pub(super) cache: Option<PathBuf>,
    /// What was asked for, with more instances.
    size: Size,
    /// The names of the listeners, for `sender`.
    pub(super) listeners: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// More instances than the address space has room for.
    #[error(
        "{wanted} filter instances are wanted (tenants × filters × workers × 2); one process holds {INSTANCES_MAX}"
    )]
    TooMany {
        /// Instances wanted.
        wanted: usize,
    },
    /// wasmtime refused.
    #[error("the sandbox cannot be set up: {0}")]
    Engine(String),
    /// No thread for the ticker.
    #[error("the sandbox's ticker cannot be started: {0}")]
    Ticker(#[from] std::io::Error),
}

impl Host {
    /// Sets the engine up and starts its ticker.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn new(size: &Size) -> Result<Self, HostError> {
        let most = usize::try_from(INSTANCES_MAX).unwrap_or(usize::MAX);
        // Filters and tenants may be added later.
        let instances = size.instances.max((size.instances + LATER_INSTANCES).min(most));
        let size = Size { instances, ..size.clone() };
        let size = &size;
        let engine = Engine::new(&engine_config(size)?).map_err(refused)?;
        let mut linker = Linker::new(&engine);
        bindings::Filter::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(refused)?;
        let ticker = Arc::new(Ticker::start(engine.weak())?);
        let (linker, cache, listeners) = (Arc::new(linker), size.cache.clone(), Arc::default());
        Ok(Self { engine, linker, ticker, cache, size: size.clone(), listeners })
    }
}

impl Host {
    /// The listeners by their places, as filters are told of them.
    pub fn set_listeners(&self, names: Vec<String>) {
        *self.listeners.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Whether instructions are counted.
    pub(super) const fn counts_fuel(&self) -> bool {
        self.size.counts_fuel
    }

    /// Whether this host holds what is wanted now, or why not.
    ///
    /// # Errors
    /// What it lacks, with the figures. Only a new host can have more.
    pub fn has_room(&self, wanted: &Size) -> Result<(), String> {
        if self.size.counts_fuel != wanted.counts_fuel {
            return Err("to begin or end counting instructions (fuel_per_packet_max), restart the gateway".to_owned());
        }
        for (what, has, wants) in [
            ("filter instances", self.size.instances, wanted.instances),
            ("octets of memory for one filter", self.size.memory_octets_max, wanted.memory_octets_max),
            ("table elements for one filter", self.size.table_elements_max, wanted.table_elements_max),
        ] {
            if wants > has {
                return Err(format!(
                    "{wants} {what} are wanted; the sandbox was set up for {has}: restart the gateway"
                ));
            }
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: wasmtime::Error) -> HostError {
    HostError::Engine(format!("{error:#}"))
}

fn engine_config(size: &Size) -> Result<Config, HostError> {
    let instances = u32::try_from(size.instances).ok().filter(|instances| *instances <= INSTANCES_MAX);
    let instances = instances.ok_or(HostError::TooMany { wanted: size.instances })? + SPARE_INSTANCES;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(4))
        .max_memory_size(size.memory_octets_max)
        .table_elements(size.table_elements_max)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_component_instance_size(1 << 20)
        .max_unused_warm_slots(instances);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(size.counts_fuel)
        .max_wasm_stack(size.stack_octets_max)
        // A guest's debug information is the guest's word: its frames are named, but its DWARF is not read.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .native_unwind_info(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(config)
}
