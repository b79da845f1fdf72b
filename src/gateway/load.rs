//! The sandbox and the filters: loaded, checked, and each started once for trial, before anything else is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::GatewayError;
use crate::config::{Config, Filter as FilterConfig, FilterId, Tenant, TenantId};
use crate::filter::{Budget, Filter, Grant, Host, LogLevel, Size, Surroundings};
use crate::ledger::ids;
use crate::message::{Backlog, wall_clock};
use crate::tenant::TenantTable;

/// The filters of a configuration.
#[derive(Debug)]
pub struct LoadedFilters {
    /// In the order of the configuration.
    filters: Vec<Arc<Filter>>,
    /// Those that a tenant tells something of its own.
    of_tenants: BTreeMap<(TenantId, FilterId), Arc<Filter>>,
}

impl LoadedFilters {
    /// All of them, as they are for tenants that tell them nothing.
    #[must_use]
    pub fn all(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    /// A filter as it is for a tenant.
    pub(super) fn get(&self, tenant: TenantId, id: FilterId) -> Option<&Arc<Filter>> {
        self.of_tenants.get(&(tenant, id)).or_else(|| self.filters.get(id.0))
    }
}

/// Compiles and checks every filter, and starts each once within its `init_deadline`, also with what each tenant tells
/// it: a filter that does not like its configuration says so now.
///
/// # Errors
/// [`GatewayError`]: about the first filter that cannot be run.
pub fn load(config: &Config, workers: usize) -> Result<LoadedFilters, GatewayError> {
    let (loaded, mut errors) = try_load(config, workers)?;
    if errors.is_empty() { Ok(loaded) } else { Err(errors.swap_remove(0)) }
}

/// Everything that is wrong with the filters and the rules of a configuration, in sentences.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let mut complaints = match try_load(config, super::worker_count(config).get()) {
        Ok((_, errors)) => errors.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    };
    complaints.extend(TenantTable::new(&config.tenants).err().map(|error| error.to_string()));
    complaints.extend(super::worker::outgoing_keys(config).err().map(|error| error.to_string()));
    complaints
}

/// What can be loaded, and every reason why something else cannot.
fn try_load(config: &Config, workers: usize) -> Result<(LoadedFilters, Vec<GatewayError>), GatewayError> {
    let host = Host::new(&size(config, workers))?;
    let (mut filters, mut errors) = (Vec::new(), Vec::new());
    let mut by_id = BTreeMap::new();
    for (id, filter) in ids(&config.filters, FilterId) {
        match load_one(config, &host, filter) {
            Ok(loaded) => {
                by_id.insert(id, Arc::clone(&loaded));
                filters.push(loaded);
            }
            Err(error) => errors.push(error),
        }
    }
    let mut of_tenants = BTreeMap::new();
    for (tenant, settings) in ids(&config.tenants, TenantId) {
        for (id, more) in &settings.config {
            let (Some(loaded), Some(filter)) = (by_id.get(id), config.filters.get(id.0)) else { continue };
            let of_tenant = |error: GatewayError| GatewayError::OfTenant {
                tenant: settings.name.clone(),
                reason: error.to_string(),
            };
            let told = loaded.told(more).map_err(GatewayError::from);
            match told.and_then(|told| try_out(config, filter, &told).map(|()| told)) {
                Ok(told) => {
                    of_tenants.insert((tenant, *id), told);
                }
                Err(error) => errors.push(of_tenant(error)),
            }
        }
    }
    Ok((LoadedFilters { filters, of_tenants }, errors))
}

fn load_one(config: &Config, host: &Host, filter: &FilterConfig) -> Result<Arc<Filter>, GatewayError> {
    let listeners = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    let loaded = host.load(filter, &config.proto_hep, listeners)?;
    // A filter that needs what only tenants tell it is tried with that.
    let is_told = |tenant: &Tenant| tenant.config.keys().any(|id| config.filters.get(id.0) == Some(filter));
    let is_used_plain = |tenant: &Tenant| {
        let uses = |id: &FilterId| config.filters.get(id.0) == Some(filter) && !tenant.config.contains_key(id);
        tenant.filters.iter().any(uses)
    };
    if config.tenants.iter().any(is_used_plain) || !config.tenants.iter().any(is_told) {
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
    let seats: usize = config.tenants.iter().map(|tenant| tenant.filters.len()).sum();
    let limits = || config.filters.iter().map(|filter| &filter.limits);
    Size {
        // Twice: an instance may be started before the one that it replaces is gone.
        instances: seats * workers * 2,
        memory_octets_max: limits().map(|limits| limits.memory_octets_max).max().unwrap_or(0),
        table_elements_max: limits().map(|limits| limits.table_elements_max).max().unwrap_or(0),
        stack_octets_max: config.sandbox.stack_octets_max,
        cache: config.gateway.cache.clone().or_else(default_cache),
    }
}

/// `$XDG_CACHE_HOME/hepgate`, or `$HOME/.cache/hepgate`; without either, compiled components are not kept.
fn default_cache() -> Option<PathBuf> {
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
