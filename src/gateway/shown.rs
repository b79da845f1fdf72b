//! What can be seen of a gateway from outside.

use std::sync::Arc;

use actix::Recipient;

use super::parts::{Parts, Seated};
use crate::admin::{CollectorInfo, FilterInfo, SeatInfo, Shown, TenantInfo};
use crate::config::{Collector, CollectorId, Tenant, TenantId};
use crate::message::Drain;

/// What can be seen of a gateway that is made of these parts.
pub(super) fn shown(parts: &Parts, actors: Vec<(String, Recipient<Drain>)>) -> Shown {
    let config = &parts.config;
    let names = |ids: &[CollectorId]| {
        ids.iter().filter_map(|id| config.collectors.get(id.0)).map(|collector| collector.name.clone()).collect()
    };
    let seat = |seat: &Seated| SeatInfo {
        is_seated: parts.is_seated(seat),
        sha256: parts.filters.get(seat.tenant, seat.filter).map(|filter| filter.sha256_hex()).unwrap_or_default(),
        limits: parts.settings_of(seat).map(|filter| filter.limits.clone()),
        standing: Arc::clone(&seat.standing),
        belongings: seat.belongings.clone(),
    };
    let tenant = |(id, tenant): (TenantId, &Tenant)| TenantInfo {
        id,
        name: tenant.name.clone(),
        filters: tenant
            .filters
            .iter()
            .filter_map(|id| config.filters.get(id.0))
            .map(|filter| filter.name.clone())
            .collect(),
        route: names(&tenant.route),
    };
    let collector = |(id, collector): (CollectorId, &Collector)| CollectorInfo {
        id,
        name: collector.name.clone(),
        to: collector.destination.to_string(),
    };
    Shown {
        filters: parts
            .filters
            .all()
            .map(|filter| FilterInfo { name: filter.name().to_owned(), sha256: filter.sha256_hex() })
            .collect(),
        seats: parts.seats.iter().map(seat).collect(),
        tenants: config.live_tenants().map(tenant).collect(),
        collectors: config.live_collectors().map(collector).collect(),
        actors,
    }
}
