//! What happened since the last line, in one line.

use std::fmt;

use crate::config::{CollectorId, ListenerId, TenantId};
use crate::ledger::{CollectorCount, ListenerCount, TenantCount, Totals, at_least_nothing, ids};

/// What happened between two states of the counters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "as in the ledger, for all listeners and tenants together")]
pub struct Summary {
    pub received: u64,
    pub rejected: u64,
    pub dropped: u64,
    pub skipped: u64,
    pub filter_dropped: u64,
    pub routed: u64,
    /// Now, not since.
    pub in_flight: u64,
    pub kernel_dropped: u64,
    /// Name, sent, dropped; and waiting now.
    pub collectors: Vec<(String, u64, u64, u64)>,
}

impl Summary {
    /// What happened from `before` to `now`.
    #[must_use]
    pub fn between(before: &Totals, now: &Totals) -> Self {
        let mut summary = Self::default();
        for (id, _) in ids(&now.rows().listeners, ListenerId) {
            let since = |value: &dyn Fn(&Totals) -> u64| value(now).saturating_sub(value(before));
            summary.received += since(&|totals| totals.listener(id, ListenerCount::Received));
            summary.rejected += since(&|totals| totals.listener_rejected(id));
            summary.dropped += since(&|totals| totals.listener_dropped(id));
            summary.kernel_dropped += since(&|totals| totals.listener(id, ListenerCount::KernelDropped));
            summary.in_flight = summary.in_flight.wrapping_add(now.listener(id, ListenerCount::Queued));
        }
        for (id, _) in ids(&now.rows().tenants, TenantId) {
            let since = |value: &dyn Fn(&Totals) -> u64| value(now).saturating_sub(value(before));
            summary.dropped += since(&|totals| totals.tenant_dropped(id));
            summary.skipped += since(&|totals| totals.tenant(id, TenantCount::Skipped));
            summary.filter_dropped += since(&|totals| totals.tenant(id, TenantCount::FilterDropped));
            summary.routed += since(&|totals| totals.tenant(id, TenantCount::Routed));
            summary.in_flight = summary.in_flight.wrapping_add(now.tenant(id, TenantCount::InFlight));
        }
        for (id, name) in ids(&now.rows().collectors, CollectorId) {
            let since = |value: &dyn Fn(&Totals) -> u64| value(now).saturating_sub(value(before));
            let sent = since(&|totals| totals.collector(id, CollectorCount::Sent));
            let dropped = since(&|totals| totals.collector_dropped(id));
            let waiting = now.collector(id, CollectorCount::Waiting);
            summary.collectors.push((name.clone(), sent, dropped, at_least_nothing(waiting)));
        }
        summary.in_flight = at_least_nothing(summary.in_flight);
        summary
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, rejected, dropped, skipped, filter_dropped, routed, in_flight, .. } = self;
        write!(
            f,
            "{received} received = {rejected} rejected + {dropped} dropped + {filter_dropped} dropped by filters"
        )?;
        write!(f, " + {skipped} skipped + {routed} routed; {in_flight} in flight")?;
        if self.kernel_dropped > 0 {
            write!(f, "; the kernel dropped {}", self.kernel_dropped)?;
        }
        for (name, sent, dropped, waiting) in &self.collectors {
            write!(f, "; {name}: {sent} sent")?;
            if *dropped > 0 {
                write!(f, ", {dropped} dropped")?;
            }
            if *waiting > 0 {
                write!(f, ", {waiting} waiting")?;
            }
        }
        Ok(())
    }
}
