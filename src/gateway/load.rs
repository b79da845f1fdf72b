//! The sandbox and the filters: loaded, checked, and each started once for trial, before anything else is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::GatewayError;
use crate::config::{Config, Filter as FilterConfig, FilterId, Limits, Tenant, TenantId};
use crate::filter::{Budget, Filter, Grant, Host, LogLevel, Size, Surroundings};
use crate::message::{Backlog, wall_clock};
use crate::tenant::TenantTable;

/// The filters of a configuration.
#[derive(Clone, Debug)]
pub struct LoadedFilters {
    host: Host,
    filters: BTreeMap<FilterId, Arc<Filter>>,
    /// Those that a tenant tells something of its own.
    of_tenants: BTreeMap<(TenantId, FilterId), Arc<Filter>>,
}

impl LoadedFilters {
    /// All of them, as they are for tenants that tell them nothing.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Filter>> {
        self.filters.values()
    }

    /// A filter as it is for a tenant.
    pub(super) fn get(&self, tenant: TenantId, id: FilterId) -> Option<&Arc<Filter>> {
        self.of_tenants.get(&(tenant, id)).or_else(|| self.filters.get(&id))
    }

    /// Whether a filter was taken as it is.
    pub(super) fn is_same(&self, other: &Self, id: FilterId) -> bool {
        matches!((self.filters.get(&id), other.filters.get(&id)), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }

    /// Tells the filters what the listeners are called.
    pub(super) fn name_listeners(&self, config: &Config) {
        self.host.set_listeners(config.listeners.iter().map(|listener| listener.name.clone()).collect());
    }
}

/// Compiles and checks every filter, and starts each once within its `init_deadline`, also with what each tenant tells
/// it: a filter that does not like its configuration says so now.
///
/// # Errors
/// [`GatewayError`]: about the first filter that cannot be run.
pub fn load(config: &Config, workers: usize) -> Result<LoadedFilters, GatewayError> {
    let (loaded, mut errors) = load_beside(config, workers, None)?;
    if errors.is_empty() { Ok(loaded) } else { Err(errors.swap_remove(0)) }
}

/// Everything that is wrong with the filters and the rules of a configuration, in sentences.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let mut complaints = match load_beside(config, super::worker_count(config).get(), None) {
        Ok((_, errors)) => errors.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    };
    complaints.extend(TenantTable::new(config.live_tenants()).err().map(|error| error.to_string()));
    complaints.extend(super::parts::outgoing_keys(config).err().map(|error| error.to_string()));
    complaints
}

/// What can be loaded, and every reason why something else cannot. Of `old`, what is still the same is taken as it is.
///
/// # Errors
/// There is no sandbox for it at all.
pub(super) fn load_beside(
    config: &Config,
    workers: usize,
    old: Option<&LoadedFilters>,
) -> Result<(LoadedFilters, Vec<GatewayError>), GatewayError> {
    let wanted = size(config, workers);
    let host = match old {
        None => Host::new(&wanted)?,
        Some(old) => {
            old.host.has_room(&wanted).map_err(GatewayError::NoRoom)?;
            old.host.clone()
        }
    };
    let (mut filters, mut errors) = (BTreeMap::new(), Vec::new());
    for (id, filter) in config.live_filters() {
        let same = old.and_then(|old| old.filters.get(&id)).filter(|same| same.is_still(filter, &config.proto_hep));
        match same.map_or_else(|| load_one(config, &host, id, filter), |same| Ok(Arc::clone(same))) {
            Ok(loaded) => {
                filters.insert(id, loaded);
            }
            Err(error) => errors.push(error),
        }
    }
    let mut of_tenants = BTreeMap::new();
    for (tenant, settings) in config.live_tenants() {
        for (id, more) in &settings.config {
            let (Some(loaded), Some(filter)) = (filters.get(id), config.filters.get(id.0)) else { continue };
            let same = old.and_then(|old| old.of_tenants.get(&(tenant, *id)));
            match tell(config, filter, loaded, more, same) {
                Ok(told) => {
                    of_tenants.insert((tenant, *id), told);
                }
                Err(error) => {
                    errors.push(GatewayError::OfTenant { tenant: settings.name.clone(), reason: error.to_string() });
                }
            }
        }
    }
    Ok((LoadedFilters { host, filters, of_tenants }, errors))
}

/// A filter that is told more, or `old`, if that is the same.
fn tell(
    config: &Config,
    filter: &FilterConfig,
    loaded: &Arc<Filter>,
    more: &BTreeMap<String, crate::config::ConfigValue>,
    old: Option<&Arc<Filter>>,
) -> Result<Arc<Filter>, GatewayError> {
    let told = loaded.told(more)?;
    if let Some(same) = old.filter(|old| old.is_like(&told)) {
        return Ok(Arc::clone(same));
    }
    try_out(config, filter, &told)?;
    Ok(told)
}

fn load_one(config: &Config, host: &Host, id: FilterId, filter: &FilterConfig) -> Result<Arc<Filter>, GatewayError> {
    let loaded = host.load(filter, &config.proto_hep)?;
    // A filter that needs what only tenants tell it is tried with that, by each of them.
    let tenants = config.live_tenants().map(|(_, tenant)| tenant);
    let users: Vec<&Tenant> = tenants.filter(|tenant| tenant.filters.contains(&id)).collect();
    if users.is_empty() || users.iter().any(|tenant| !tenant.config.contains_key(&id)) {
        try_out(config, filter, &loaded)?;
    }
    Ok(loaded)
}

fn try_out(config: &Config, filter: &FilterConfig, loaded: &Arc<Filter>) -> Result<(), GatewayError> {
    let name = |id: &crate::config::CollectorId| config.collectors.get(id.0).map(|collector| collector.name.clone());
    let grants =
        filter.collectors.iter().filter_map(|id| Some(Grant { id: *id, name: name(id)?, backlog: Backlog::new(0) }));
    let surroundings = Surroundings::for_trial(grants.collect(), &filter.limits);
    let mut lines = Vec::new();
    let started = loaded.start(surroundings, Budget::computing(filter.limits.init_deadline), wall_clock(), &mut lines);
    for line in lines {
        // What it says when it starts well it says again in its first real start.
        if line.level == LogLevel::Error || started.is_err() {
            tracing::error!(filter = filter.name, "{}", line.text);
        }
    }
    match started {
        Ok(_) => Ok(()),
        Err(fault) => Err(GatewayError::Trial { filter: filter.name.clone(), reason: fault.text }),
    }
}

fn size(config: &Config, workers: usize) -> Size {
    let seats: usize = config.live_tenants().map(|(_, tenant)| tenant.filters.len()).sum();
    let limits = || config.live_filters().map(|(_, filter)| &filter.limits);
    Size {
        // Twice: an instance may be started before the one that it replaces is gone.
        instances: seats * workers * 2,
        // At least what a filter has that a reload may bring to a gateway which began without any.
        memory_octets_max: limits().map(|limits| limits.memory_octets_max).fold(Limits::MEMORY_OCTETS, usize::max),
        table_elements_max: limits().map(|limits| limits.table_elements_max).fold(Limits::TABLE_ELEMENTS, usize::max),
        stack_octets_max: config.sandbox.stack_octets_max,
        counts_fuel: limits().any(|limits| limits.fuel_per_packet_max > 0),
        cache: config.gateway.cache.clone().or_else(default_cache),
    }
}

/// `$XDG_CACHE_HOME/hepgate`, or `$HOME/.cache/hepgate`; without either, compiled components are not kept.
#[must_use]
pub fn default_cache() -> Option<PathBuf> {
    Some(user_folder("XDG_CACHE_HOME", ".cache")?.join("hepgate"))
}

/// `$XDG_STATE_HOME/hepgate/evidence`, or `$HOME/.local/state/hepgate/evidence`; without either, none is kept.
pub(super) fn default_evidence() -> Option<PathBuf> {
    Some(user_folder("XDG_STATE_HOME", ".local/state")?.join("hepgate/evidence"))
}

fn user_folder(variable: &str, at_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(at_home)))
}
