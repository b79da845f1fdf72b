//! The sandbox and the filters: loaded, checked, and each started once for trial, before anything else is.

use std::path::PathBuf;
use std::sync::Arc;

use super::GatewayError;
use crate::config::{Config, Filter as FilterConfig, FilterId};
use crate::filter::{Budget, Filter, Grant, Host, LogLevel, Size};
use crate::message::{Backlog, wall_clock};

/// The filters of a configuration, in its order.
#[derive(Debug)]
pub struct LoadedFilters {
    filters: Vec<Arc<Filter>>,
}

impl LoadedFilters {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    pub(super) fn get(&self, id: FilterId) -> Option<&Arc<Filter>> {
        self.filters.get(id.0)
    }
}

/// Compiles and checks every filter, and starts each once within its `init_deadline`: a filter that does not like its
/// configuration says so now.
///
/// # Errors
/// [`GatewayError`]: about the first filter that cannot be run.
pub fn load(config: &Config, workers: usize) -> Result<LoadedFilters, GatewayError> {
    let host = Host::new(&size(config, workers))?;
    let filters = config.filters.iter().map(|filter| load_one(config, &host, filter)).collect::<Result<_, _>>()?;
    Ok(LoadedFilters { filters })
}

/// Everything that is wrong with the filters of a configuration, in sentences.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let host = match Host::new(&size(config, super::worker_count(config).get())) {
        Ok(host) => host,
        Err(error) => return vec![error.to_string()],
    };
    let results = config.filters.iter().map(|filter| load_one(config, &host, filter));
    results.filter_map(|result| Some(result.err()?.to_string())).collect()
}

fn load_one(config: &Config, host: &Host, filter: &FilterConfig) -> Result<Arc<Filter>, GatewayError> {
    let listeners = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    let loaded = host.load(filter, &config.proto_hep, listeners)?;
    try_out(config, filter, &loaded)?;
    Ok(loaded)
}

fn try_out(config: &Config, filter: &FilterConfig, loaded: &Arc<Filter>) -> Result<(), GatewayError> {
    let name = |id: &crate::config::CollectorId| config.collectors.get(id.0).map(|collector| collector.name.clone());
    let grants =
        filter.collectors.iter().filter_map(|id| Some(Grant { id: *id, name: name(id)?, backlog: Backlog::new(0) }));
    let mut lines = Vec::new();
    let started =
        loaded.start(grants.collect(), Budget::computing(filter.limits.init_deadline), wall_clock(), &mut lines);
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
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("hepgate"))
}
