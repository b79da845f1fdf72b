//! A new configuration beside the one that runs: what has the same name has the same place in both, so that whoever counts
//! or holds something by its id need not know of the change.

use std::collections::{BTreeMap, BTreeSet};

use super::{Collector, CollectorId, Config, Filter, FilterId, Listener, ListenerId, Tenant, TenantId};

/// What is no longer in the configuration. Its place stays, with its last settings, so that nobody else gets it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gone {
    /// Listeners.
    pub listeners: BTreeSet<ListenerId>,
    /// Collectors.
    pub collectors: BTreeSet<CollectorId>,
    /// Filters.
    pub filters: BTreeSet<FilterId>,
    /// Tenants.
    pub tenants: BTreeSet<TenantId>,
}

impl Config {
    /// This configuration with its tables in the places that those of the same name have in `old`.
    #[must_use]
    pub fn aligned(self, old: &Self) -> Self {
        let (listeners, listener_places) = align(self.listeners, &old.listeners, |listener| &listener.name);
        let (collectors, collector_places) = align(self.collectors, &old.collectors, |collector| &collector.name);
        let (mut filters, filter_places) = align(self.filters, &old.filters, |filter| &filter.name);
        let (mut tenants, tenant_places) = align(self.tenants, &old.tenants, |tenant| &tenant.name);
        let gone = Gone {
            listeners: rest(listeners.len(), &listener_places).map(ListenerId).collect(),
            collectors: rest(collectors.len(), &collector_places).map(CollectorId).collect(),
            filters: rest(filters.len(), &filter_places).map(FilterId).collect(),
            tenants: rest(tenants.len(), &tenant_places).map(TenantId).collect(),
        };
        let moved = Moved { listeners: listener_places, collectors: collector_places, filters: filter_places };
        for place in tenant_places.iter() {
            if let Some(tenant) = tenants.get_mut(*place) {
                moved.tenant(tenant);
            }
        }
        for place in &moved.filters {
            if let Some(filter) = filters.get_mut(*place) {
                moved.collectors(&mut filter.collectors);
            }
        }
        let tenant_order = tenant_places.into_iter().map(TenantId).collect();
        Self { listeners, collectors, filters, tenants, tenant_order, gone, ..self }
    }

    /// A listener, if it is there.
    #[must_use]
    pub fn live_listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(id.0).filter(|_| !self.gone.listeners.contains(&id))
    }

    /// A collector, if it is there.
    #[must_use]
    pub fn live_collector(&self, id: CollectorId) -> Option<&Collector> {
        self.collectors.get(id.0).filter(|_| !self.gone.collectors.contains(&id))
    }

    /// A filter, if it is there.
    #[must_use]
    pub fn live_filter(&self, id: FilterId) -> Option<&Filter> {
        self.filters.get(id.0).filter(|_| !self.gone.filters.contains(&id))
    }

    /// A tenant, if it is there.
    #[must_use]
    pub fn live_tenant(&self, id: TenantId) -> Option<&Tenant> {
        self.tenants.get(id.0).filter(|_| !self.gone.tenants.contains(&id))
    }

    /// The listeners that there are.
    pub fn live_listeners(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        let all = (0..self.listeners.len()).map(ListenerId);
        all.filter_map(|id| Some((id, self.live_listener(id)?)))
    }

    /// The collectors that there are.
    pub fn live_collectors(&self) -> impl Iterator<Item = (CollectorId, &Collector)> {
        let all = (0..self.collectors.len()).map(CollectorId);
        all.filter_map(|id| Some((id, self.live_collector(id)?)))
    }

    /// The filters that there are.
    pub fn live_filters(&self) -> impl Iterator<Item = (FilterId, &Filter)> {
        let all = (0..self.filters.len()).map(FilterId);
        all.filter_map(|id| Some((id, self.live_filter(id)?)))
    }

    /// The tenants that there are, in the order of their rules.
    pub fn live_tenants(&self) -> impl Iterator<Item = (TenantId, &Tenant)> {
        self.tenant_order.iter().filter_map(|id| Some((*id, self.tenants.get(id.0)?)))
    }
}

/// The old places of what has moved, by its place in the new file.
struct Moved {
    listeners: Vec<usize>,
    collectors: Vec<usize>,
    filters: Vec<usize>,
}

impl Moved {
    fn tenant(&self, tenant: &mut Tenant) {
        for rule in &mut tenant.matches {
            if let Some(id) = &mut rule.listener {
                id.0 = place(&self.listeners, id.0);
            }
        }
        for id in &mut tenant.filters {
            id.0 = place(&self.filters, id.0);
        }
        self.collectors(&mut tenant.route);
        let told = std::mem::take(&mut tenant.config);
        tenant.config = told.into_iter().map(|(id, told)| (FilterId(place(&self.filters, id.0)), told)).collect();
    }

    fn collectors(&self, ids: &mut [CollectorId]) {
        for id in ids {
            id.0 = place(&self.collectors, id.0);
        }
    }
}

fn place(places: &[usize], old: usize) -> usize {
    places.get(old).copied().unwrap_or(usize::MAX)
}

/// Puts new things into the places of old ones of the same name, and the others behind them. Gives the places as well, by
/// the order of the new things.
fn align<T: Clone>(new: Vec<T>, old: &[T], name: impl Fn(&T) -> &String) -> (Vec<T>, Vec<usize>) {
    let known: BTreeMap<&String, usize> = old.iter().enumerate().map(|(place, thing)| (name(thing), place)).collect();
    let mut aligned = old.to_vec();
    let mut places = Vec::with_capacity(new.len());
    for thing in new {
        match known.get(name(&thing)) {
            Some(place) => {
                places.push(*place);
                if let Some(slot) = aligned.get_mut(*place) {
                    *slot = thing;
                }
            }
            None => {
                places.push(aligned.len());
                aligned.push(thing);
            }
        }
    }
    (aligned, places)
}

/// The places that nothing new has.
fn rest(len: usize, places: &[usize]) -> impl Iterator<Item = usize> {
    let taken: BTreeSet<usize> = places.iter().copied().collect();
    (0..len).filter(move |place| !taken.contains(place))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(collectors: &[&str], tenants: &[(&str, &[&str])]) -> Config {
        let mut text = "[[listener]]\nname = \"l\"\nlisten = \"hep_udp:127.0.0.1:1\"\n".to_owned();
        for name in collectors {
            text += &format!("[[collector]]\nname = \"{name}\"\nto = \"hep_udp:{name}\"\n");
        }
        for (place, (name, route)) in tenants.iter().enumerate() {
            text += &format!("[[tenant]]\nname = \"{name}\"\nroute = {route:?}\n");
            text += &format!("[[tenant.match]]\nagent_id = {place}\n");
        }
        Config::parse(&text, Path::new(".")).unwrap()
    }

    fn routes(config: &Config) -> Vec<(String, Vec<String>)> {
        let route = |tenant: &Tenant| tenant.route.iter().map(|id| config.collectors[id.0].name.clone()).collect();
        config.live_tenants().map(|(_, tenant)| (tenant.name.clone(), route(tenant))).collect()
    }

    #[test]
    fn what_stays_keeps_its_place_and_everybody_still_means_the_same() {
        let old = config(&["a", "b", "c"], &[("t", &["a", "c"]), ("u", &["b"])]);
        let new = config(&["d", "c", "b"], &[("u", &["d", "b"]), ("v", &["c"])]);
        let aligned = new.clone().aligned(&old);
        let names: Vec<&str> = aligned.collectors.iter().map(|collector| collector.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(aligned.gone.collectors, BTreeSet::from([CollectorId(0)]));
        assert_eq!(aligned.gone.tenants, BTreeSet::from([TenantId(0)]));
        assert_eq!(routes(&aligned), routes(&new));
        assert_eq!(aligned.live_tenants().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2], "in the order of the rules");
        // Back again, everything is where it was at first.
        let back = old.clone().aligned(&aligned);
        assert_eq!(routes(&back), routes(&old));
        assert_eq!(back.gone.collectors, BTreeSet::from([CollectorId(3)]));
        assert_eq!(back.collectors[..3], old.collectors[..]);
    }

    #[test]
    fn beside_itself_a_configuration_is_the_same() {
        let config = config(&["a", "b"], &[("t", &["b", "a"])]);
        assert_eq!(config.clone().aligned(&config), config);
    }
}
