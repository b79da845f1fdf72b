//! The ledger in the Prometheus text format.

use std::fmt;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{SeatInfo, View, guests};
use crate::config::{CollectorId, Limit, ListenerId, TenantId};
use crate::ledger::{
    CloseReason, CollectorCount, DropReason, FaultKind, ListenerCount, SeatCount, SeatId, TOOK_BUCKETS, TenantCount,
    Totals, ids, took_within,
};
use crate::wire::RejectReason;

/// What [`text`] is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics.
pub(super) fn text(view: &View) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let shown = view.shown();
    let filters = shown.filters.iter().map(|filter| (filter.name.clone(), filter.sha256.clone())).collect();
    let snapshot = Snapshot { totals: view.ledger.totals(), filters, seats: shown.seats.clone() };
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The ledger at one moment.
#[derive(Debug)]
struct Snapshot {
    totals: Totals,
    filters: Vec<(String, String)>,
    seats: Vec<SeatInfo>,
}

/// Name and value of a label.
type Label<'a> = (&'a str, &'a str);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let version = [[("version", env!("CARGO_PKG_VERSION"))].as_slice()];
        gauge(&mut encoder, "hepgate_build_info", "What runs here", version.map(|labels| (labels, 1)))?;
        let filters: Vec<[Label<'_>; 2]> = self
            .filters
            .iter()
            .map(|(name, sha256)| [("filter", name.as_str()), ("sha256", sha256.as_str())])
            .collect();
        let filters = filters.iter().map(|labels| (labels.as_slice(), 1));
        gauge(&mut encoder, "hepgate_filter_info", "Filters and their components", filters)?;
        self.listeners(&mut encoder)?;
        self.tenants(&mut encoder)?;
        self.collectors(&mut encoder)?;
        self.seats(&mut encoder)?;
        guests::encode(&mut encoder, &self.guests())
    }
}

impl Snapshot {
    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use ListenerCount as Count;
        for (name, help, count) in [
            ("received_packets", "Packets that came, HEP or not", Count::Received),
            ("received_octets", "Octets of them", Count::ReceivedOctets),
            ("accepted_packets", "Packets handed on to a tenant", Count::Accepted),
            ("trimmed_octets", "Octets behind the stated length of datagrams' packets", Count::TrimmedOctets),
            ("kernel_dropped_datagrams", "Datagrams that the kernel had no room for", Count::KernelDropped),
            ("opened_connections", "Connections taken", Count::Opened),
        ] {
            let rows = self.of_listeners(|id| self.totals.listener(id, count));
            counter(encoder, &format!("hepgate_listener_{name}"), help, &rows)?;
        }
        for (name, help, count) in [
            ("queued_packets", "Packets that wait for the worker's chains", Count::Queued),
            ("open_connections", "Connections open now", Count::Open),
        ] {
            let rows = self.of_listeners(|id| self.totals.listener(id, count));
            gauges(encoder, &format!("hepgate_listener_{name}"), help, &rows)?;
        }
        let of = |reason: RejectReason| (reason.as_str(), Count::Rejected(reason));
        let rows = self.of_listeners_by_reason(&RejectReason::ALL.map(of));
        counter(encoder, "hepgate_listener_rejected_packets", "Packets that are not HEP, by reason", &rows)?;
        let reasons: Vec<_> = DropReason::ALL.iter().map(|reason| (reason.as_str(), Count::Dropped(*reason))).collect();
        let rows = self.of_listeners_by_reason(&reasons);
        counter(encoder, "hepgate_listener_dropped_packets", "HEP packets not kept, by reason", &rows)?;
        let reasons: Vec<_> = CloseReason::ALL.iter().map(|reason| (reason.as_str(), Count::Closed(*reason))).collect();
        let rows = self.of_listeners_by_reason(&reasons);
        counter(encoder, "hepgate_listener_closed_connections", "Connections closed or refused, by reason", &rows)
    }

    fn tenants(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use TenantCount as Count;
        for (name, help, count) in [
            ("received_packets", "Packets that are the tenant's", Count::Received),
            ("received_octets", "Octets of them", Count::ReceivedOctets),
            ("skipped_packets", "Packets kept from the route by a filter", Count::Skipped),
            ("filter_dropped_packets", "Packets ended by a filter", Count::FilterDropped),
            ("routed_packets", "Packets given to the route's collectors", Count::Routed),
        ] {
            let rows = self.of_tenants(|id| self.totals.tenant(id, count));
            counter(encoder, &format!("hepgate_tenant_{name}"), help, &rows)?;
        }
        let rows = self.of_tenants(|id| self.totals.tenant(id, Count::InFlight));
        gauges(encoder, "hepgate_tenant_in_flight_packets", "Packets that are in the chain or wait for it", &rows)?;
        let mut rows = Vec::new();
        for (id, tenant) in ids(&self.totals.rows().tenants, TenantId) {
            for reason in DropReason::ALL {
                let labels = vec![("tenant", tenant.as_str()), ("reason", reason.as_str())];
                rows.push((labels, self.totals.tenant(id, Count::Dropped(*reason))));
            }
        }
        counter(encoder, "hepgate_tenant_dropped_packets", "Packets not kept for another reason", &rows)
    }

    fn collectors(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use CollectorCount as Count;
        for (name, help, count) in [
            ("accepted_packets", "Packets given by a route or a filter", Count::Accepted),
            ("filter_sent_packets", "Those of them that a filter sent or relayed", Count::FromFilters),
            ("sent_packets", "Packets that left", Count::Sent),
            ("sent_octets", "Octets of them", Count::SentOctets),
            ("connected", "Connections made, or files begun", Count::Connected),
            ("connect_failures", "Connections that could not be made", Count::ConnectFailed),
            ("broken", "Connections that broke or were broken; for UDP, refusals heard of", Count::Broken),
            ("cool_downs", "Times that no attempt was made for hep_retry_cooldown", Count::CoolDowns),
        ] {
            let rows = self.of_collectors(|id| self.totals.collector(id, count));
            counter(encoder, &format!("hepgate_collector_{name}"), help, &rows)?;
        }
        let rows = self.of_collectors(|id| self.totals.collector(id, Count::Waiting));
        gauges(encoder, "hepgate_collector_waiting_packets", "Packets in the mailbox or postponed", &rows)?;
        let mut rows = Vec::new();
        for (id, collector) in ids(&self.totals.rows().collectors, CollectorId) {
            for reason in DropReason::ALL {
                let labels = vec![("collector", collector.as_str()), ("reason", reason.as_str())];
                rows.push((labels, self.totals.collector(id, Count::Dropped(*reason))));
            }
        }
        counter(encoder, "hepgate_collector_dropped_packets", "Packets not sent, by reason", &rows)
    }

    fn seats(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use SeatCount as Count;
        for (name, help, count) in [
            ("calls", "Calls that ended well", Count::Calls),
            ("packets", "Packets in them", Count::Packets),
            ("failed_packets", "Packets that the filter never answered", Count::Failed),
            ("edited_packets", "Packets that it changed", Count::Edited),
            ("sent_packets", "Packets that it sent or relayed", Count::Sent),
            ("log_lines", "Log lines that it wrote", Count::LogLines),
            ("log_lines_unwritten", "Log lines above its rate", Count::LogLinesUnwritten),
            ("call_nanoseconds", "Time of its calls", Count::Nanoseconds),
            ("started_instances", "Instances started", Count::Started),
            ("slow_lane_moves", "Times it moved its chain to the slow lane", Count::MovedToSlowLane),
            ("recycled_instances", "Instances replaced because they had grown", Count::Recycled),
            ("state_lost_changes", "Changes of what it remembers that found no room after all", Count::StateLost),
            ("strikes", "Faults held against it", Count::Strikes),
            ("quarantines", "Times it was taken out of service", Count::Quarantines),
            ("evidence_cases", "Faults of which evidence was kept", Count::Evidence),
            ("evidence_lost_cases", "Faults of which it could not be kept", Count::EvidenceLost),
        ] {
            let rows = self.of_seats(&[("", "", count)]);
            counter(encoder, &format!("hepgate_filter_{name}"), help, &rows)?;
        }
        let verdicts = [
            ("verdict", "pass", Count::Passed),
            ("verdict", "skip", Count::Skipped),
            ("verdict", "drop", Count::Dropped),
        ];
        counter(encoder, "hepgate_filter_verdicts", "Packets by the filter's verdict", &self.of_seats(&verdicts))?;
        let kinds: Vec<_> = FaultKind::ALL.iter().map(|kind| ("kind", kind.as_str(), Count::Faults(*kind))).collect();
        counter(encoder, "hepgate_filter_faults", "Calls that failed, by kind", &self.of_seats(&kinds))?;
        let within: Vec<(String, Count)> = (0..TOOK_BUCKETS).map(|n| (shown_bound(n), Count::Took(n))).collect();
        let within: Vec<_> = within.iter().map(|(bound, count)| ("within", bound.as_str(), *count)).collect();
        let help = "Calls by the time that they took, to the bound in microseconds and above the one before";
        counter(encoder, "hepgate_filter_calls_took", help, &self.of_seats(&within))?;
        self.standings(encoder)
    }

    /// The filters' own metrics.
    fn guests(&self) -> Vec<guests::Guest> {
        let seats = ids(&self.totals.rows().seats, SeatId).zip(&self.seats);
        let guest = |((_, (tenant, filter)), seat): ((_, &(TenantId, String)), &SeatInfo)| guests::Guest {
            tenant: self.totals.rows().tenants.get(tenant.0).cloned().unwrap_or_default(),
            filter: filter.clone(),
            samples: seat.belongings.metrics.samples(),
        };
        seats.map(guest).collect()
    }

    /// What filters have used of their limits, and whether they are in service.
    fn standings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let now = Instant::now();
        let (mut out, mut peaks, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        for ((_, (tenant, filter)), seat) in ids(&self.totals.rows().seats, SeatId).zip(&self.seats) {
            let tenant = self.totals.rows().tenants.get(tenant.0).map_or("", String::as_str);
            let labels = vec![("tenant", tenant), ("filter", filter.as_str())];
            out.push((labels.clone(), u64::from(seat.standing.is_out(now))));
            for limit in Limit::ALL {
                let mut labels = labels.clone();
                labels.push(("limit", limit.key()));
                peaks.push((labels.clone(), seat.standing.peaks().get(limit)));
                limits.extend(seat.limits.as_ref().map(|limits| (labels, limits.get(limit))));
            }
        }
        gauges(encoder, "hepgate_filter_quarantined", "Whether the filter is out of the tenant's service", &out)?;
        let help = "The most that one instance or call has used of a limit; times in microseconds";
        gauges(encoder, "hepgate_filter_peak_use", help, &peaks)?;
        gauges(encoder, "hepgate_filter_limit", "How much that may be; times in microseconds", &limits)
    }

    fn of_listeners(&self, value: impl Fn(ListenerId) -> u64) -> Vec<Row<'_>> {
        let rows = ids(&self.totals.rows().listeners, ListenerId);
        rows.map(|(id, listener)| (vec![("listener", listener.as_str())], value(id))).collect()
    }

    fn of_listeners_by_reason(&self, reasons: &[(&'static str, ListenerCount)]) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for (id, listener) in ids(&self.totals.rows().listeners, ListenerId) {
            for (reason, count) in reasons {
                let labels = vec![("listener", listener.as_str()), ("reason", *reason)];
                rows.push((labels, self.totals.listener(id, *count)));
            }
        }
        rows
    }

    fn of_tenants(&self, value: impl Fn(TenantId) -> u64) -> Vec<Row<'_>> {
        let rows = ids(&self.totals.rows().tenants, TenantId);
        rows.map(|(id, tenant)| (vec![("tenant", tenant.as_str())], value(id))).collect()
    }

    fn of_collectors(&self, value: impl Fn(CollectorId) -> u64) -> Vec<Row<'_>> {
        let rows = ids(&self.totals.rows().collectors, CollectorId);
        rows.map(|(id, collector)| (vec![("collector", collector.as_str())], value(id))).collect()
    }

    /// For each filter in a chain and each of these counts a row, with one more label if that has a name.
    fn of_seats<'a>(&'a self, counts: &[(&'a str, &'a str, SeatCount)]) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        for (id, (tenant, filter)) in ids(&self.totals.rows().seats, SeatId) {
            let tenant = self.totals.rows().tenants.get(tenant.0).map_or("", String::as_str);
            for (label, value, count) in counts {
                let mut labels = vec![("tenant", tenant), ("filter", filter.as_str())];
                if !label.is_empty() {
                    labels.push((label, value));
                }
                rows.push((labels, self.totals.seat(id, *count)));
            }
        }
        rows
    }
}

/// A bucket's bound in microseconds.
fn shown_bound(bucket: usize) -> String {
    match took_within(bucket) {
        Duration::MAX => "any".to_owned(),
        within => within.as_micros().to_string(),
    }
}

type Row<'a> = (Vec<Label<'a>>, u64);

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, rows: &[Row<'_>]) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        metric.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(value, None)?;
    }
    Ok(())
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, rows: &[Row<'_>]) -> fmt::Result {
    gauge(encoder, name, help, rows.iter().map(|(labels, value)| (labels.as_slice(), *value)))
}

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (&'a [Label<'a>], u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        // One thread may have taken what another is about to add: below nothing is nothing.
        let value = i64::from_ne_bytes(value.to_ne_bytes()).max(0);
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
