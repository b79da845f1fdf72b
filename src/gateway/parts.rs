//! What a gateway is made of that is no actor: all that a configuration says, opened, loaded and checked. Made beside the
//! parts that run, so that a reload that fails has changed nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::load::{LoadedFilters, load_beside};
use super::{GatewayError, worker_count};
use crate::collector::{FileCollector, UdpCollector};
use crate::config::{
    Collector, CollectorId, Config, ConfigValue, Destination, Filter, FilterId, Listener, ListenerId, TenantId,
};
use crate::filter::Belongings;
use crate::ledger::{Rows, SeatId};
use crate::listener::{Bound, bind};
use crate::tenant::{Quota, Standing, TenantTable};
use crate::tls::{Acceptor, Connector};

/// All that a configuration says, opened, loaded and checked.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) filters: LoadedFilters,
    /// TLS of the listeners that have it.
    pub(super) acceptors: BTreeMap<ListenerId, Arc<Acceptor>>,
    /// TLS of the collectors that have it.
    pub(super) connectors: BTreeMap<CollectorId, Arc<Connector>>,
    pub(super) table: TenantTable,
    /// With which packets leave, by collector.
    pub(super) keys: Vec<Option<Bytes>>,
    /// What the tenants may have, for all workers together, by tenant.
    pub(super) quotas: Vec<Option<Arc<Quota>>>,
    /// The filters in chains. A seat keeps its place as long as the gateway runs.
    pub(super) seats: Vec<Seated>,
    /// The sockets of the listeners, one for each worker.
    pub(super) sockets: BTreeMap<ListenerId, Arc<Bound>>,
}

/// A filter in a tenant's chain.
#[derive(Clone, Debug)]
pub(super) struct Seated {
    pub(super) tenant: TenantId,
    pub(super) filter: FilterId,
    pub(super) standing: Arc<Standing>,
    pub(super) belongings: Belongings,
}

impl Parts {
    /// What this configuration says. `old` is what runs: what did not change is taken from it.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn prepare(config: Config, old: Option<&Self>) -> Result<Self, Vec<GatewayError>> {
        let workers = worker_count(&config).get();
        let mut errors = Vec::new();
        let filters = match load_beside(&config, workers, old.map(|old| &old.filters)) {
            Ok((filters, more)) => {
                errors.extend(more);
                Some(filters)
            }
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let mut keep = |error: GatewayError| errors.push(error);
        let table = TenantTable::new(config.live_tenants()).map_err(|error| keep(error.into())).ok();
        let keys = outgoing_keys(&config).map_err(&mut keep).ok();
        let mut acceptors = BTreeMap::new();
        for (id, listener) in config.live_listeners() {
            let same = old.filter(|old| old.is_same_listener(id, listener)).and_then(|old| old.acceptors.get(&id));
            match same.map_or_else(|| acceptor(listener), |same| Ok(Some(Arc::clone(same)))) {
                Ok(acceptor) => acceptors.extend(acceptor.map(|acceptor| (id, acceptor))),
                Err(error) => keep(error),
            }
        }
        let mut connectors = BTreeMap::new();
        for (id, collector) in config.live_collectors() {
            let is_same = |old: &&Self| old.config.collectors.get(id.0) == Some(collector);
            let same = old.filter(is_same).and_then(|old| old.connectors.get(&id));
            match same.map_or_else(|| connector(collector), |same| Ok(Some(Arc::clone(same)))) {
                Ok(connector) => connectors.extend(connector.map(|connector| (id, connector))),
                Err(error) => keep(error),
            }
            if let Err(error) = check_collector(collector) {
                keep(error);
            }
        }
        // At last, as somebody may send to a socket as soon as it is bound.
        let mut sockets = BTreeMap::new();
        for (id, listener) in config.live_listeners() {
            let same = old.and_then(|old| old.same_sockets(id, listener));
            match same.map_or_else(|| bind(listener, workers).map(Arc::new), |same| Ok(Arc::clone(same))) {
                Ok(bound) => {
                    sockets.insert(id, bound);
                }
                Err(error) => keep(error.into()),
            }
        }
        let (Some(filters), Some(table), Some(keys), true) = (filters, table, keys, errors.is_empty()) else {
            return Err(errors);
        };
        let quotas = quotas(&config, old);
        let seats = seats(&config, &filters, old);
        Ok(Self { config, filters, acceptors, connectors, table, keys, quotas, seats, sockets })
    }

    /// Whether this listener runs as it is.
    pub(super) fn is_same_listener(&self, id: ListenerId, listener: &Listener) -> bool {
        self.config.live_listener(id) == Some(listener)
    }

    /// Whether this collector runs as it is.
    pub(super) fn is_same_collector(&self, id: CollectorId, new: &Self) -> bool {
        let collector = self.config.live_collector(id);
        collector.is_some()
            && collector == new.config.live_collector(id)
            && self.keys.get(id.0) == new.keys.get(id.0)
            && self.config.proto_hep.hep_capture_id == new.config.proto_hep.hep_capture_id
    }

    /// The sockets of a listener whose address did not change: what waits in them is not lost.
    fn same_sockets(&self, id: ListenerId, listener: &Listener) -> Option<&Arc<Bound>> {
        self.config.live_listener(id).filter(|old| old.listen == listener.listen)?;
        self.sockets.get(&id)
    }

    /// Puts in force what other parts share with these: they were made without a change of anything that runs.
    pub(super) fn take_over(&self, old: &Self) {
        for seat in self.seats.iter().filter(|seat| self.is_seated(seat)) {
            if let Some(filter) = self.settings_of(seat) {
                seat.belongings.set_limits(&filter.limits);
            }
        }
        for (id, listener) in self.config.live_listeners() {
            let had = old.config.live_listener(id).map(|old| old.receive_buffer_octets);
            if let Some(bound) = self.sockets.get(&id).filter(|_| had != Some(listener.receive_buffer_octets)) {
                bound.set_receive_buffer(listener);
            }
        }
        self.filters.name_listeners(&self.config);
    }

    /// The seat of a filter in a tenant's chain.
    pub(super) fn seat(&self, tenant: TenantId, filter: FilterId) -> Option<(SeatId, &Seated)> {
        let place = self.seats.iter().position(|seat| (seat.tenant, seat.filter) == (tenant, filter))?;
        Some((SeatId(place), self.seats.get(place)?))
    }

    /// Whether a chain can go on as it is: the same filters, on the same terms, with the same ways to send.
    pub(super) fn is_same_chain(&self, tenant: TenantId, new: &Self) -> bool {
        let (Some(old), Some(now)) = (self.config.live_tenant(tenant), new.config.live_tenant(tenant)) else {
            return false;
        };
        (&old.filters, old.on_error, old.lane) == (&now.filters, now.on_error, now.lane)
            && now.filters.iter().all(|id| self.is_same_seat(tenant, *id, new))
    }

    fn is_same_seat(&self, tenant: TenantId, id: FilterId, new: &Self) -> bool {
        let of = |parts: &Self| {
            let filter = parts.filters.get(tenant, id).map(Arc::as_ptr);
            let standing = parts.seat(tenant, id).map(|(_, seat)| Arc::as_ptr(&seat.standing));
            (filter, standing)
        };
        let (Some(old), Some(now)) = (self.config.live_filter(id), new.config.live_filter(id)) else { return false };
        of(self) == of(new)
            && (old.on_error, &old.collectors) == (now.on_error, &now.collectors)
            && now.collectors.iter().all(|id| self.is_same_collector(*id, new))
    }

    /// The rows that the ledger needs.
    pub(super) fn rows(&self) -> Rows {
        let config = &self.config;
        let filter = |id: FilterId| config.filters.get(id.0).map_or_else(String::new, |filter| filter.name.clone());
        Rows {
            listeners: config.listeners.iter().map(|listener| listener.name.clone()).collect(),
            tenants: config.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
            collectors: config.collectors.iter().map(|collector| collector.name.clone()).collect(),
            seats: self.seats.iter().map(|seat| (seat.tenant, filter(seat.filter))).collect(),
        }
    }

    /// Settings of the filter in a seat.
    pub(super) fn settings_of(&self, seat: &Seated) -> Option<&Filter> {
        self.config.filters.get(seat.filter.0)
    }

    /// Whether a seat is still in a chain.
    pub(super) fn is_seated(&self, seat: &Seated) -> bool {
        self.config.live_tenant(seat.tenant).is_some_and(|tenant| tenant.filters.contains(&seat.filter))
    }
}

/// The authentication keys with which packets leave, by collector.
pub(super) fn outgoing_keys(config: &Config) -> Result<Vec<Option<Bytes>>, GatewayError> {
    let read = |(place, collector): (usize, &Collector)| {
        let live = config.live_collector(CollectorId(place));
        let key = live.and_then(|live| live.authentication_key.as_ref()).map(ConfigValue::read).transpose();
        let error = |reason| GatewayError::CollectorKey { collector: collector.name.clone(), reason };
        Ok(key.map_err(error)?.map(Bytes::from))
    };
    config.collectors.iter().enumerate().map(read).collect()
}

fn acceptor(listener: &Listener) -> Result<Option<Arc<Acceptor>>, GatewayError> {
    let Some(settings) = &listener.tls else { return Ok(None) };
    let tls = |reason| GatewayError::ListenerTls { listener: listener.name.clone(), reason };
    Acceptor::new(settings.clone()).map_err(tls).map(|acceptor| Some(Arc::new(acceptor)))
}

fn connector(collector: &Collector) -> Result<Option<Arc<Connector>>, GatewayError> {
    let Destination::Tcp { tls: Some(settings), .. } = &collector.destination else { return Ok(None) };
    let tls = |reason| GatewayError::CollectorTls { collector: collector.name.clone(), reason };
    Connector::new((**settings).clone()).map_err(tls).map(|connector| Some(Arc::new(connector)))
}

/// All that can be wrong with a collector, before it begins a file.
fn check_collector(collector: &Collector) -> Result<(), GatewayError> {
    match &collector.destination {
        Destination::Udp { to, .. } => drop(UdpCollector::connect(&collector.name, to)?),
        Destination::File(settings) => FileCollector::check(&collector.name, settings)?,
        // It may come later.
        Destination::Tcp { .. } => {}
    }
    Ok(())
}

/// Quotas go on where they are if they did not change.
fn quotas(config: &Config, old: Option<&Parts>) -> Vec<Option<Arc<Quota>>> {
    let now = Instant::now();
    let quota = |(place, tenant): (usize, &crate::config::Tenant)| {
        let same = |old: &&Parts| old.config.tenants.get(place).is_some_and(|old| old.quotas == tenant.quotas);
        match old.filter(same) {
            Some(old) => old.quotas.get(place).cloned().flatten(),
            None => Quota::new(&tenant.quotas, now),
        }
    };
    config.tenants.iter().enumerate().map(quota).collect()
}

/// Old seats keep their places; new ones come behind them. A filter that changed has a clean record, and keeps what it
/// remembers and counts.
fn seats(config: &Config, filters: &LoadedFilters, old: Option<&Parts>) -> Vec<Seated> {
    let mut seats: Vec<Seated> = old.map(|old| old.seats.clone()).unwrap_or_default();
    for (tenant, settings) in config.live_tenants() {
        for id in &settings.filters {
            let Some(filter) = config.filters.get(id.0) else { continue };
            let known = seats.iter_mut().find(|seat| (seat.tenant, seat.filter) == (tenant, *id));
            let Some(seat) = known else {
                let standing = Standing::new(filter.quarantine);
                let belongings = Belongings::new(&filter.limits);
                seats.push(Seated { tenant, filter: *id, standing, belongings });
                continue;
            };
            let same = match (old.and_then(|old| old.filters.get(tenant, *id)), filters.get(tenant, *id)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                _ => false,
            };
            if !same || *seat.standing.policy() != filter.quarantine {
                seat.standing = Standing::new(filter.quarantine);
            }
        }
    }
    seats
}
