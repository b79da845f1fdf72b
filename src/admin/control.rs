//! What is going on, as JSON, and what can be asked of the gateway.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::View;
use crate::config::Limit;
use crate::ledger::{
    CollectorCount, DropReason, FaultKind, SeatCount, SeatId, TOOK_BUCKETS, TenantCount, Totals, at_least_nothing, ids,
    took_within,
};
use crate::tenant::Case;

/// A filter in a tenant's chain.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FilterReport {
    /// Whose chain.
    pub tenant: String,
    /// Which filter.
    pub filter: String,
    /// Its component.
    pub sha256: String,
    /// Why it is out of service, if it is.
    pub quarantine: Option<QuarantineReport>,
    /// Calls that ended well.
    pub calls: u64,
    /// Packets in them.
    pub packets: u64,
    /// Half of the calls took no longer, in microseconds; `None`: there was none, or it took longer than can be told.
    pub p50_us: Option<u64>,
    /// 99 of 100 calls took no longer.
    pub p99_us: Option<u64>,
    /// The most that was used of each limit, and how much that may be. Times in microseconds.
    pub limits: BTreeMap<String, Use>,
    /// Failed calls by kind, those that happened.
    pub faults: BTreeMap<String, u64>,
    /// Faults that count now, and how many take it out of service.
    pub strikes: usize,
    /// As many take it out of service; 0: any number may happen.
    pub strikes_max: usize,
    /// Packets that it dropped.
    pub dropped: u64,
    /// Packets that it never answered.
    pub failed: u64,
    /// What the last fault was.
    pub last_fault: Option<String>,
}

/// How much was used of how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Use {
    /// The most that was used.
    pub peak: u64,
    /// What may be used.
    pub limit: u64,
}

/// A filter that is out of service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuarantineReport {
    /// Why.
    pub reason: String,
    /// For how long it has been.
    pub since_seconds: u64,
    /// For how long it will be; `None`: until it is released.
    pub left_seconds: Option<u64>,
}

/// A tenant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TenantReport {
    /// Its name.
    pub tenant: String,
    /// Its chain.
    pub filters: Vec<String>,
    /// Where its packets go.
    pub route: Vec<String>,
    /// Packets that are its.
    pub received: u64,
    /// Packets given to the route.
    pub routed: u64,
    /// Packets kept from the route by a filter.
    pub skipped: u64,
    /// Packets ended by a filter.
    pub filter_dropped: u64,
    /// Packets not kept for another reason, by reason, those that happened.
    pub dropped: BTreeMap<String, u64>,
    /// Packets that are in the chain or wait for it.
    pub in_flight: u64,
}

/// A collector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectorReport {
    /// Its name.
    pub collector: String,
    /// Where it is.
    pub to: String,
    /// Packets given to it.
    pub accepted: u64,
    /// Packets that left.
    pub sent: u64,
    /// Packets that wait.
    pub waiting: u64,
    /// Packets not sent, by reason, those that happened.
    pub dropped: BTreeMap<String, u64>,
    /// Connections made, or files begun.
    pub connected: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Connections that broke.
    pub broken: u64,
}

/// A filter that is out of service, or of which there is evidence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Whose chain.
    pub tenant: String,
    /// Which filter.
    pub filter: String,
    /// Why it is out of service, if it is.
    pub quarantine: Option<QuarantineReport>,
    /// The names of the cases that were kept, the oldest first.
    pub evidence: Vec<String>,
}

/// A case of evidence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CaseReport {
    /// What is known of it.
    pub case: Case,
    /// The file with its packets.
    pub pcapng: String,
}

fn drops(count: impl Fn(DropReason) -> u64) -> BTreeMap<String, u64> {
    let all = DropReason::ALL.iter().map(|reason| (reason.as_str().to_owned(), count(*reason)));
    all.filter(|(_, packets)| *packets > 0).collect()
}

/// The filters in chains.
pub(super) fn filters(view: &View) -> Vec<FilterReport> {
    let (totals, shown, now) = (view.ledger.totals(), view.shown(), Instant::now());
    let seats = ids(&totals.rows().seats, SeatId).zip(&shown.seats).filter(|(_, seat)| seat.is_seated);
    let report = |((id, (tenant, filter)), seat): ((SeatId, &(crate::config::TenantId, String)), &super::SeatInfo)| {
        let of = |count| totals.seat(id, count);
        let standing = seat.standing.report(now);
        let limits = Limit::ALL.into_iter().filter_map(|limit| {
            let allowed = seat.limits.as_ref()?.get(limit);
            Some((limit.key().to_owned(), Use { peak: seat.standing.peaks().get(limit), limit: allowed }))
        });
        let faults = FaultKind::ALL.iter().map(|kind| (kind.as_str().to_owned(), of(SeatCount::Faults(*kind))));
        FilterReport {
            tenant: totals.rows().tenants.get(tenant.0).cloned().unwrap_or_default(),
            filter: filter.clone(),
            sha256: seat.sha256.clone(),
            quarantine: standing.quarantine.map(quarantine),
            calls: of(SeatCount::Calls),
            packets: of(SeatCount::Packets),
            p50_us: quantile(&totals, id, 50),
            p99_us: quantile(&totals, id, 99),
            limits: limits.collect(),
            faults: faults.filter(|(_, calls)| *calls > 0).collect(),
            strikes: standing.strikes,
            strikes_max: standing.strikes_max,
            dropped: of(SeatCount::Dropped),
            failed: of(SeatCount::Failed),
            last_fault: standing.last_fault,
        }
    };
    seats.map(report).collect()
}

/// The bound that so many percent of the calls kept to, in microseconds.
fn quantile(totals: &Totals, id: SeatId, percent: u64) -> Option<u64> {
    let counts: Vec<u64> = (0..TOOK_BUCKETS).map(|bucket| totals.seat(id, SeatCount::Took(bucket))).collect();
    let all: u64 = counts.iter().sum();
    let mut so_far = 0;
    let bucket = counts.iter().position(|count| {
        so_far += count;
        all > 0 && so_far * 100 >= all * percent
    })?;
    let within = took_within(bucket);
    (within < Duration::MAX).then(|| u64::try_from(within.as_micros()).unwrap_or(u64::MAX))
}

fn quarantine((reason, since, left): (String, Duration, Option<Duration>)) -> QuarantineReport {
    QuarantineReport { reason, since_seconds: since.as_secs(), left_seconds: left.map(|left| left.as_secs()) }
}

/// The tenants.
pub(super) fn tenants(view: &View) -> Vec<TenantReport> {
    let (totals, shown) = (view.ledger.totals(), view.shown());
    let report = |tenant: &super::TenantInfo| {
        let of = |count| totals.tenant(tenant.id, count);
        TenantReport {
            tenant: tenant.name.clone(),
            filters: tenant.filters.clone(),
            route: tenant.route.clone(),
            received: of(TenantCount::Received),
            routed: of(TenantCount::Routed),
            skipped: of(TenantCount::Skipped),
            filter_dropped: of(TenantCount::FilterDropped),
            dropped: drops(|reason| of(TenantCount::Dropped(reason))),
            in_flight: at_least_nothing(of(TenantCount::InFlight)),
        }
    };
    shown.tenants.iter().map(report).collect()
}

/// The collectors.
pub(super) fn collectors(view: &View) -> Vec<CollectorReport> {
    let (totals, shown) = (view.ledger.totals(), view.shown());
    let report = |collector: &super::CollectorInfo| {
        let of = |count| totals.collector(collector.id, count);
        CollectorReport {
            collector: collector.name.clone(),
            to: collector.to.clone(),
            accepted: of(CollectorCount::Accepted),
            sent: of(CollectorCount::Sent),
            waiting: at_least_nothing(of(CollectorCount::Waiting)),
            dropped: drops(|reason| of(CollectorCount::Dropped(reason))),
            connected: of(CollectorCount::Connected),
            connect_failures: of(CollectorCount::ConnectFailed),
            broken: of(CollectorCount::Broken),
        }
    };
    shown.collectors.iter().map(report).collect()
}

/// The filters that are out of service, and those of which there is evidence.
pub(super) fn quarantines(view: &View) -> Vec<QuarantineEntry> {
    let now = Instant::now();
    let mut entries = Vec::new();
    let mut cases = view.evidence.as_ref().map(|evidence| evidence.cases()).unwrap_or_default();
    for (tenant, filter, seat) in seated(view) {
        let evidence = cases.remove(&(tenant.clone(), filter.clone())).unwrap_or_default();
        let quarantine = seat.standing.report(now).quarantine.map(quarantine);
        if quarantine.is_some() || !evidence.is_empty() {
            entries.push(QuarantineEntry { tenant, filter, quarantine, evidence });
        }
    }
    entries
}

/// A case of evidence.
pub(super) fn case(view: &View, name: &str) -> Option<CaseReport> {
    let (case, pcapng) = view.evidence.as_ref()?.case(name)?;
    Some(CaseReport { case, pcapng: pcapng.display().to_string() })
}

/// Puts a filter in service again. `None`: there is no such filter; `Some(false)`: it was in service.
pub(super) fn release(view: &View, tenant: &str, filter: &str) -> Option<bool> {
    let seat = seated(view).into_iter().find(|(of, name, _)| of == tenant && name == filter)?.2;
    let released = seat.standing.release();
    if released {
        tracing::info!(tenant, filter, "released from quarantine");
    }
    Some(released)
}

fn seated(view: &View) -> Vec<(String, String, super::SeatInfo)> {
    let (rows, shown) = (view.ledger.rows(), view.shown());
    let seats = rows.seats.iter().zip(&shown.seats).filter(|(_, seat)| seat.is_seated);
    let name = |tenant: &crate::config::TenantId| rows.tenants.get(tenant.0).cloned().unwrap_or_default();
    seats.map(|((tenant, filter), seat)| (name(tenant), filter.clone(), seat.clone())).collect()
}
