//! What a gateway is made of that is no actor: all that a configuration says, opened, loaded and checked. Made beside the
//! parts that run, so that a reload that fails has changed nothing.

use std::collections::BTreeMap;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
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
    pub(super) sockets: BTreeMap<ListenerId, Bound>,
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
            match same.map_or_else(|| bind(listener, workers), Ok) {
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
        !self.config.gone.listeners.contains(&id) && self.config.listeners.get(id.0) == Some(listener)
    }

    /// Whether this collector runs as it is.
    pub(super) fn is_same_collector(&self, id: CollectorId, new: &Self) -> bool {
        let was_there = !self.config.gone.collectors.contains(&id) && !new.config.gone.collectors.contains(&id);
        let same_agent_id = self.config.proto_hep.hep_capture_id == new.config.proto_hep.hep_capture_id;
        let settings = |parts: &Self| parts.config.collectors.get(id.0).cloned();
        let key = |parts: &Self| parts.keys.get(id.0).cloned().flatten();
        was_there
            && same_agent_id
            && settings(self).is_some()
            && settings(self) == settings(new)
            && key(self) == key(new)
    }

    /// The sockets of a listener whose address did not change: what waits in them is not lost.
    fn same_sockets(&self, id: ListenerId, listener: &Listener) -> Option<Bound> {
        let old = self.config.listeners.get(id.0).filter(|_| !self.config.gone.listeners.contains(&id))?;
        let same = old.listen == listener.listen && old.receive_buffer_octets == listener.receive_buffer_octets;
        cloned(self.sockets.get(&id).filter(|_| same)?).ok()
    }

    /// The seat of a filter in a tenant's chain.
    pub(super) fn seat(&self, tenant: TenantId, filter: FilterId) -> Option<(SeatId, &Seated)> {
        let place = self.seats.iter().position(|seat| (seat.tenant, seat.filter) == (tenant, filter))?;
        Some((SeatId(place), self.seats.get(place)?))
    }

    /// Whether a chain can go on as it is: the same filters, on the same terms, with the same ways to send.
    pub(super) fn is_same_chain(&self, tenant: TenantId, new: &Self) -> bool {
        let settings = |parts: &Self| Some(parts.config.tenants.get(tenant.0)?.clone());
        let (Some(old), Some(now)) = (settings(self), settings(new)) else { return false };
        let is_gone = |parts: &Self| parts.config.gone.tenants.contains(&tenant);
        if (is_gone(self), &old.filters, old.on_error, old.lane) != (is_gone(new), &now.filters, now.on_error, now.lane)
        {
            return false;
        }
        now.filters.iter().all(|id| {
            let filter = |parts: &Self| parts.filters.get(tenant, *id).cloned();
            let standing = |parts: &Self| Some(Arc::clone(&parts.seat(tenant, *id)?.1.standing));
            let terms = |parts: &Self| {
                let filter = parts.config.filters.get(id.0)?;
                Some((filter.on_error, filter.collectors.clone()))
            };
            let same_arc = matches!((filter(self), filter(new)), (Some(a), Some(b)) if Arc::ptr_eq(&a, &b));
            let same_standing = matches!((standing(self), standing(new)), (Some(a), Some(b)) if Arc::ptr_eq(&a, &b));
            let grants = terms(new).map(|(_, grants)| grants).unwrap_or_default();
            let same_ways = grants.iter().all(|id| self.is_same_collector(*id, new));
            same_arc && same_standing && terms(self) == terms(new) && same_ways
        })
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
        let tenant =
            self.config.tenants.get(seat.tenant.0).filter(|_| !self.config.gone.tenants.contains(&seat.tenant));
        tenant.is_some_and(|tenant| tenant.filters.contains(&seat.filter))
    }
}

/// The authentication keys with which packets leave, by collector.
pub(super) fn outgoing_keys(config: &Config) -> Result<Vec<Option<Bytes>>, GatewayError> {
    let read = |(place, collector): (usize, &Collector)| {
        let is_gone = config.gone.collectors.contains(&CollectorId(place));
        let key = collector.authentication_key.as_ref().filter(|_| !is_gone).map(ConfigValue::read).transpose();
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
            seat.belongings.set_limits(&filter.limits);
        }
    }
    seats
}

/// Other handles of the same sockets.
pub(super) fn cloned(bound: &Bound) -> std::io::Result<Bound> {
    Ok(match bound {
        Bound::Udp(sockets, address) => {
            Bound::Udp(sockets.iter().map(StdUdpSocket::try_clone).collect::<Result<_, _>>()?, *address)
        }
        Bound::Tcp(sockets, address) => {
            Bound::Tcp(sockets.iter().map(StdTcpListener::try_clone).collect::<Result<_, _>>()?, *address)
        }
    })
}
