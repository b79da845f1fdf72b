//! From a `.wasm` file to a filter that can be started: read, checked, compiled, its imports and exports looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, Linker, ResourceType};

use super::anatomy::{Anatomy, ImportClass, PACKAGE};
use super::belongings::Surroundings;
use super::bindings;
use super::cache;
use super::deadline::{Budget, Now};
use super::engine::Host;
use super::fault::Fault;
use super::instance::Instance;
use super::state::{LogLine, State};
use super::subscription::Wanted;
use crate::config::{ConfigValue, Limits, ProtoHep, SecretError, Subscription};

/// Octets of a page of WebAssembly's memory.
const PAGE_OCTETS: u64 = 65_536;
const CALLBACKS: &str = "hep:filter/callbacks@0.1.0";
const TICKER: &str = "hep:filter/ticker@0.1.0";
const LAST_CALL: &str = "hep:filter/last-call@0.1.0";

/// A component that can be started, and what its instances are told and may use.
pub struct Filter {
    host: Host,
    name: String,
    sha256: [u8; 32],
    octets: usize,
    stubs: Vec<String>,
    prepared: bindings::FilterPre<State>,
    tick: Option<ComponentExportIndex>,
    stop: Option<ComponentExportIndex>,
    /// What it wanted to see when it was last started.
    wanted: OnceLock<Arc<Wanted>>,
    settings: Settings,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("name", &self.name).field("sha256", &self.sha256_hex()).finish_non_exhaustive()
    }
}

/// What the instances of a filter are told and may use.
#[derive(Clone, PartialEq)]
struct Settings {
    limits: Limits,
    subscription: Subscription,
    config: Arc<BTreeMap<String, String>>,
    /// The same as it may be shown.
    shown_config: Arc<BTreeMap<String, String>>,
    proto_hep: Arc<ProtoHep>,
}

/// Why a file is not a filter that can be run here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("filter {filter:?}: {}: {reason}", .path.display())]
    Read {
        /// The filter.
        filter: String,
        /// Its file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A value of its configuration cannot be read.
    #[error("filter {filter:?}: config key {key:?}: {reason}")]
    Secret {
        /// The filter.
        filter: String,
        /// The key.
        key: String,
        /// Why.
        reason: SecretError,
    },
    /// It is not a filter, or not one for us.
    #[error("filter {filter:?}: {}: {reason}", .path.display())]
    Unfit {
        /// The filter.
        filter: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: Unfit,
    },
}

/// Why a component is not a filter that can be run here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Longer than `component_octets_max`.
    #[error("has {octets} octets; component_octets_max is {octets_max}")]
    TooLarge {
        /// Octets of the file.
        octets: u64,
        /// Octets that it may have.
        octets_max: usize,
    },
    /// Not WebAssembly at all.
    #[error("is not WebAssembly: it begins with {0:02x?}")]
    NotWasm(Vec<u8>),
    /// Another one than the operator has pinned.
    #[error("has sha256 {actual}; the configuration pins {pinned}")]
    Pinned {
        /// What it has.
        actual: String,
        /// What it should have.
        pinned: String,
    },
    /// More to compile than it may have.
    #[error("has {actual} {what}; {limit} is {allowed}")]
    TooComplex {
        /// Functions, or octets in one function.
        what: &'static str,
        /// The limit's key.
        limit: &'static str,
        /// What it has.
        actual: usize,
        /// What it may have.
        allowed: usize,
    },
    /// A core module.
    #[error("is a WebAssembly core module, not a component; see filters/README.md for how to make one of it")]
    CoreModule,
    /// The compiler refused it.
    #[error("cannot be compiled: {0}")]
    Invalid(String),
    /// It needs what filters do not have.
    #[error("imports what filters do not have: {}", .0.join(", "))]
    Imports(Vec<String>),
    /// It is for another world.
    #[error("does not export {CALLBACKS}; it exports {}", list_or_nothing(.0))]
    Exports(Vec<String>),
    /// An import or export of ours has another type than here.
    #[error("does not fit the interface {PACKAGE}…@0.1.0: {0}")]
    Types(String),
    /// It begins with more memory or table than it may have.
    #[error("begins with {actual} {what}; {limit} is {allowed}")]
    Resources {
        /// Octets of memory, or elements of tables.
        what: &'static str,
        /// The limit's key.
        limit: &'static str,
        /// What it begins with.
        actual: u64,
        /// What it may have.
        allowed: usize,
    },
}

impl Host {
    /// Reads, checks and compiles the filter's component. Nothing of it runs yet.
    ///
    /// `proto_hep` is how what the filter makes is packed.
    ///
    /// # Errors
    /// [`LoadError`], in one sentence.
    pub fn load(&self, filter: &crate::config::Filter, proto_hep: &ProtoHep) -> Result<Arc<Filter>, LoadError> {
        let (wasm, sha256, settings) = prepare(filter, proto_hep)?;
        self.load_prepared(filter, &wasm, sha256, settings)
    }

    /// The same for a component that is no file.
    ///
    /// # Errors
    /// [`LoadError`], in one sentence.
    pub fn load_octets(
        &self,
        filter: &crate::config::Filter,
        proto_hep: &ProtoHep,
        wasm: &[u8],
    ) -> Result<Arc<Filter>, LoadError> {
        let settings = settings_of(filter, proto_hep)?;
        self.load_prepared(filter, wasm, Sha256::digest(wasm).into(), settings)
    }

    fn load_prepared(
        &self,
        filter: &crate::config::Filter,
        wasm: &[u8],
        sha256: [u8; 32],
        settings: Settings,
    ) -> Result<Arc<Filter>, LoadError> {
        let name = filter.name.clone();
        let unfit = |reason| LoadError::Unfit { filter: name.clone(), path: filter.component.clone(), reason };
        if let Some(pinned) = filter.sha256.filter(|pinned| *pinned != sha256) {
            return Err(unfit(Unfit::Pinned { actual: hex(&sha256), pinned: hex(&pinned) }));
        }
        check_complexity(wasm, &filter.limits).map_err(unfit)?;
        let component = self.compile(wasm, &sha256, self.cache.as_deref()).map_err(unfit)?;
        let stubs = check_imports(&component).map_err(unfit)?;
        check_exports(&component).map_err(unfit)?;
        check_resources(&component, &filter.limits).map_err(unfit)?;
        let prepared = self.prepare(&component, !stubs.is_empty()).map_err(unfit)?;
        let optional = |interface: &str, function: &str| {
            let interface = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&interface), function)
        };
        let (tick, stop) = (optional(TICKER, "on-tick"), optional(LAST_CALL, "on-stop"));
        let octets = wasm.len();
        let (host, wanted) = (self.clone(), OnceLock::new());
        Ok(Arc::new(Filter { host, name, sha256, octets, stubs, prepared, tick, stop, wanted, settings }))
    }

    fn compile(&self, wasm: &[u8], sha256: &[u8; 32], folder: Option<&Path>) -> Result<Component, Unfit> {
        cache::compiled(&self.engine, wasm, sha256, folder).map_err(|error| Unfit::Invalid(format!("{error:#}")))
    }

    fn prepare(&self, component: &Component, with_stubs: bool) -> Result<bindings::FilterPre<State>, Unfit> {
        let mut linker = Linker::clone(&self.linker);
        if with_stubs {
            stub(&mut linker, component).map_err(types)?;
        }
        let prepared = linker.instantiate_pre(component).map_err(types)?;
        bindings::FilterPre::new(prepared).map_err(types)
    }
}

impl Filter {
    /// The filter's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Octets of the component's file.
    #[must_use]
    pub const fn octets(&self) -> usize {
        self.octets
    }

    /// The component's sha256 in hexadecimal.
    #[must_use]
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }

    /// The `wasi:*` interfaces that it imports, of which it gets empty stubs.
    #[must_use]
    pub fn stubs(&self) -> &[String] {
        &self.stubs
    }

    /// Whether it wants to be called without packets.
    #[must_use]
    pub const fn has_tick(&self) -> bool {
        self.tick.is_some()
    }

    /// What its instances are told, as it may be shown: values that stand elsewhere are not.
    #[must_use]
    pub fn shown_config(&self) -> &BTreeMap<String, String> {
        &self.settings.shown_config
    }

    /// What its instances may use.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// Whether loading this now would give the same filter again.
    #[must_use]
    pub fn is_still(&self, filter: &crate::config::Filter, proto_hep: &ProtoHep) -> bool {
        prepare(filter, proto_hep).is_ok_and(|(_, sha256, settings)| {
            self.name == filter.name && self.sha256 == sha256 && self.settings == settings
        })
    }

    /// Whether the other one is the same component, told the same things and with the same limits.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.name == other.name && self.sha256 == other.sha256 && self.settings == other.settings
    }

    /// The same component, but told these things beside or instead of what it is told.
    ///
    /// # Errors
    /// [`LoadError::Secret`].
    pub fn told(&self, more: &BTreeMap<String, ConfigValue>) -> Result<Arc<Self>, LoadError> {
        let mut config = BTreeMap::clone(&self.settings.config);
        config.extend(read_values(&self.name, more)?);
        let mut shown_config = BTreeMap::clone(&self.settings.shown_config);
        shown_config.extend(more.iter().map(shown));
        let (config, shown_config) = (Arc::new(config), Arc::new(shown_config));
        let settings = Settings { config, shown_config, ..self.settings.clone() };
        Ok(Arc::new(Self {
            host: self.host.clone(),
            name: self.name.clone(),
            sha256: self.sha256,
            octets: self.octets,
            stubs: self.stubs.clone(),
            prepared: self.prepared.clone(),
            tick: self.tick,
            stop: self.stop,
            wanted: OnceLock::new(),
            settings,
        }))
    }

    /// Whether it wants a last call.
    #[must_use]
    pub const fn has_last_call(&self) -> bool {
        self.stop.is_some()
    }

    /// What it wanted to see when it was first started; before that, what the operator lets it see.
    #[must_use]
    pub fn wanted(&self) -> Arc<Wanted> {
        let operator = || Arc::new(Wanted { operator: self.settings.subscription.clone(), ..Wanted::default() });
        self.wanted.get().cloned().unwrap_or_else(operator)
    }

    pub(super) fn set_wanted(&self, filter: Subscription) -> Arc<Wanted> {
        let wanted = Arc::new(Wanted { filter, operator: self.settings.subscription.clone() });
        self.wanted.get_or_init(|| Arc::clone(&wanted));
        wanted
    }

    /// Makes an instance, with a store of its own, and runs its `init`; all within `budget`.
    ///
    /// `log` takes the lines that `init` writes, also if it fails.
    ///
    /// # Errors
    /// [`Fault`]: there is no instance.
    pub fn start(
        self: &Arc<Self>,
        surroundings: Surroundings,
        budget: Budget,
        now: impl Into<Now>,
        log: &mut Vec<LogLine>,
    ) -> Result<Instance, Fault> {
        Instance::start(self, surroundings, budget, now.into(), log)
    }

    pub(super) const fn host(&self) -> &Host {
        &self.host
    }

    pub(super) const fn prepared(&self) -> &bindings::FilterPre<State> {
        &self.prepared
    }

    pub(super) const fn tick_export(&self) -> Option<&ComponentExportIndex> {
        self.tick.as_ref()
    }

    pub(super) const fn stop_export(&self) -> Option<&ComponentExportIndex> {
        self.stop.as_ref()
    }

    pub(super) fn new_state(&self, surroundings: Surroundings) -> State {
        let Settings { limits, config, proto_hep, .. } = self.settings.clone();
        let listeners = Arc::clone(&self.host.listeners);
        State::new(limits, config, surroundings, proto_hep, listeners, Arc::clone(&self.host.ticker))
    }
}

/// A value that stands elsewhere is a secret.
fn shown((key, value): (&String, &ConfigValue)) -> (String, String) {
    let value = match value {
        ConfigValue::Text(text) => text.clone(),
        ConfigValue::File(path) => format!("(from the file {})", path.display()),
        ConfigValue::Environment(name) => format!("(from the environment variable {name})"),
    };
    (key.clone(), value)
}

/// What the operator wrote, with what stands elsewhere read.
fn read_values(filter: &str, values: &BTreeMap<String, ConfigValue>) -> Result<BTreeMap<String, String>, LoadError> {
    let read = |(key, value): (&String, &ConfigValue)| match value.read() {
        Ok(value) => Ok((key.clone(), value)),
        Err(reason) => Err(LoadError::Secret { filter: filter.to_owned(), key: key.clone(), reason }),
    };
    values.iter().map(read).collect()
}

/// What loading begins with: the octets, their sha256, and what the instances will be told.
fn prepare(filter: &crate::config::Filter, proto_hep: &ProtoHep) -> Result<(Vec<u8>, [u8; 32], Settings), LoadError> {
    let name = filter.name.clone();
    let wasm = read(filter).map_err(|error| match error {
        ReadError::System(reason) => LoadError::Read { filter: name.clone(), path: filter.component.clone(), reason },
        ReadError::TooLarge(reason) => {
            LoadError::Unfit { filter: name.clone(), path: filter.component.clone(), reason }
        }
    })?;
    let sha256 = Sha256::digest(&wasm).into();
    Ok((wasm, sha256, settings_of(filter, proto_hep)?))
}

fn settings_of(filter: &crate::config::Filter, proto_hep: &ProtoHep) -> Result<Settings, LoadError> {
    Ok(Settings {
        limits: filter.limits.clone(),
        subscription: filter.subscription.clone(),
        config: Arc::new(read_values(&filter.name, &filter.config)?),
        shown_config: Arc::new(filter.config.iter().map(shown).collect()),
        proto_hep: Arc::new(proto_hep.clone()),
    })
}

enum ReadError {
    System(std::io::Error),
    TooLarge(Unfit),
}

fn read(filter: &crate::config::Filter) -> Result<Vec<u8>, ReadError> {
    let octets = std::fs::metadata(&filter.component).map_err(ReadError::System)?.len();
    let octets_max = filter.limits.component_octets_max;
    if usize::try_from(octets).map_or(true, |octets| octets > octets_max) {
        return Err(ReadError::TooLarge(Unfit::TooLarge { octets, octets_max }));
    }
    std::fs::read(&filter.component).map_err(ReadError::System)
}

/// To compile takes time and memory that grow with these: they are bounded before it is begun.
fn check_complexity(wasm: &[u8], limits: &Limits) -> Result<(), Unfit> {
    match wasm {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => {}
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => return Err(Unfit::CoreModule),
        _ => return Err(Unfit::NotWasm(wasm.get(..8).unwrap_or(wasm).to_vec())),
    }
    let anatomy = Anatomy::read(wasm).map_err(Unfit::Invalid)?;
    for (what, limit, actual, allowed) in [
        ("functions", "functions_max", anatomy.functions, limits.functions_max),
        ("octets in one function", "function_octets_max", anatomy.longest_function, limits.function_octets_max),
    ] {
        if actual > allowed {
            return Err(Unfit::TooComplex { what, limit, actual, allowed });
        }
    }
    Ok(())
}

/// The `wasi:*` imports; everything else must be ours.
fn check_imports(component: &Component) -> Result<Vec<String>, Unfit> {
    let (mut stubs, mut refused) = (Vec::new(), Vec::new());
    for (name, _) in component.component_type().imports(component.engine()) {
        match ImportClass::of(name) {
            ImportClass::Ours => {}
            ImportClass::Stub => stubs.push(name.to_owned()),
            ImportClass::Refused => refused.push(name.to_owned()),
        }
    }
    if refused.is_empty() { Ok(stubs) } else { Err(Unfit::Imports(refused)) }
}

/// Gives it stubs of the `wasi:*` interfaces: to call a function of one is a trap that names it. Only of these: what all
/// unknown imports would get makes a resource anew where an interface of ours uses that of another (`sending` those of
/// `packets` and `packing`), and then nothing fits.
fn stub(linker: &mut Linker<State>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (interface, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        if ImportClass::of(interface) != ImportClass::Stub {
            continue;
        }
        let mut stubs = linker.instance(interface)?;
        for (name, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    let function = format!("{interface}#{name}");
                    stubs.func_new(name, move |_, _, _, _| {
                        Err(wasmtime::format_err!("unknown import: `{function}` has not been defined"))
                    })?;
                }
                ComponentItem::Resource(_) => stubs.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_exports(component: &Component) -> Result<(), Unfit> {
    if component.get_export_index(None, CALLBACKS).is_some() {
        return Ok(());
    }
    let exports = component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect();
    Err(Unfit::Exports(exports))
}

fn check_resources(component: &Component, limits: &Limits) -> Result<(), Unfit> {
    let Some(required) = component.resources_required() else { return Ok(()) };
    // wasmtime counts memory in pages here.
    let memory = required.max_initial_memory_size.map(|pages| pages.saturating_mul(PAGE_OCTETS));
    let table = required.max_initial_table_size;
    for (what, limit, actual, allowed) in [
        ("octets of memory", "memory_octets_max", memory, limits.memory_octets_max),
        ("table elements", "table_elements_max", table, limits.table_elements_max),
    ] {
        let actual = actual.unwrap_or(0);
        if usize::try_from(actual).map_or(true, |actual| actual > allowed) {
            return Err(Unfit::Resources { what, limit, actual, allowed });
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn types(error: wasmtime::Error) -> Unfit {
    Unfit::Types(format!("{error:#}"))
}

fn list_or_nothing(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The sha256 of a component in hexadecimal.
#[must_use]
pub fn sha256_hex(wasm: &[u8]) -> String {
    hex(&Sha256::digest(wasm))
}

/// Octets in hexadecimal.
pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
