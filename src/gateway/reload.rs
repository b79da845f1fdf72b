//! What differs between two configurations: what a reload changes, and what it cannot.

use std::fmt;

use super::parts::Parts;
use crate::config::Config;

/// What a reload has changed, by what it is called.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// Names of what is new or changed.
    pub changed: Vec<String>,
    /// Names of what is gone.
    pub gone: Vec<String>,
}

impl Reloaded {
    pub(super) fn between(old: &Parts, new: &Parts) -> Self {
        let mut reloaded = Self::default();
        for (id, listener) in new.config.live_listeners() {
            if !old.is_same_listener(id, listener) {
                reloaded.changed.push(format!("listener {}", listener.name));
            }
        }
        for (id, collector) in new.config.live_collectors() {
            if !old.is_same_collector(id, new) {
                reloaded.changed.push(format!("collector {}", collector.name));
            }
        }
        for (id, filter) in new.config.live_filters() {
            if old.config.live_filter(id) != Some(filter) || !old.filters.is_same(&new.filters, id) {
                reloaded.changed.push(format!("filter {}", filter.name));
            }
        }
        for (id, tenant) in new.config.live_tenants() {
            if old.config.live_tenant(id) != Some(tenant) {
                reloaded.changed.push(format!("tenant {}", tenant.name));
            }
        }
        let (had, has) = (&old.config.gone, &new.config.gone);
        let mut gone = |what: &str, name: Option<&String>| {
            reloaded.gone.extend(name.map(|name| format!("{what} {name}")));
        };
        for id in has.listeners.difference(&had.listeners) {
            gone("listener", new.config.listeners.get(id.0).map(|listener| &listener.name));
        }
        for id in has.collectors.difference(&had.collectors) {
            gone("collector", new.config.collectors.get(id.0).map(|collector| &collector.name));
        }
        for id in has.filters.difference(&had.filters) {
            gone("filter", new.config.filters.get(id.0).map(|filter| &filter.name));
        }
        for id in has.tenants.difference(&had.tenants) {
            gone("tenant", new.config.tenants.get(id.0).map(|tenant| &tenant.name));
        }
        reloaded
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changed.is_empty() && self.gone.is_empty() {
            return f.write_str("nothing has changed");
        }
        let parts = [("new or changed", &self.changed), ("gone", &self.gone)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        f.write_str(&parts.join("; "))
    }
}

/// All that is wrong with a configuration that was to be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ReloadError(pub Vec<String>);

/// What a running gateway cannot change about itself.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (was, is) = (&old.gateway, &new.gateway);
    let changes = [
        ("gateway.workers", was.workers != is.workers),
        ("gateway.cache", was.cache != is.cache),
        ("gateway.evidence", was.evidence != is.evidence),
        ("gateway.summary", was.summary != is.summary),
        ("[log]", old.log != new.log),
        ("[admin]", old.admin != new.admin),
        ("[sandbox]", old.sandbox != new.sandbox),
    ];
    let changed = changes.iter().filter(|(_, changed)| *changed);
    changed.map(|(what, _)| format!("{what} cannot change while the gateway runs: restart it")).collect()
}
