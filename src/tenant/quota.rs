//! How much of a tenant may come: rates with a burst, over all workers, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Quotas;
use crate::ledger::DropReason;
use crate::message::Slots;

/// What a tenant may have, shared by the workers.
#[derive(Debug)]
pub struct Quota {
    start: Instant,
    packets: Option<Rate>,
    octets: Option<Rate>,
    /// The connections that its packets come from.
    connections: Option<Arc<Slots>>,
}

/// A rate with a burst, as one number: the time until which everything is used up that came so far ("generic cell rate
/// algorithm"). Whoever is ahead of the clock by more than the burst waits.
#[derive(Debug)]
struct Rate {
    per_second: u64,
    burst_nanos: u64,
    /// Nanoseconds after the start.
    used_until: AtomicU64,
}

impl Quota {
    /// Nothing has come yet; `None` if there is nothing to count.
    #[must_use]
    pub fn new(quotas: &Quotas, now: Instant) -> Option<Arc<Self>> {
        let rate = |per_second: u64| {
            let burst_nanos = nanos(quotas.burst);
            (per_second > 0).then(|| Rate { per_second, burst_nanos, used_until: AtomicU64::new(0) })
        };
        let (packets, octets) = (rate(quotas.packets_per_second_max), rate(quotas.octets_per_second_max));
        let connections = (quotas.connections_max > 0).then(|| Slots::new(quotas.connections_max));
        let counts = packets.is_some() || octets.is_some() || connections.is_some();
        counts.then(|| Arc::new(Self { start: now, packets, octets, connections }))
    }

    /// The connections that its packets may come from, if they are bounded.
    pub(super) const fn connections(&self) -> Option<&Arc<Slots>> {
        self.connections.as_ref()
    }

    /// Takes a packet of so many octets, or says which quota it is beyond.
    pub(super) fn take(&self, octets: u64, now: Instant) -> Result<(), DropReason> {
        let now = nanos(now.saturating_duration_since(self.start));
        if self.octets.as_ref().is_some_and(|rate| !rate.take(octets, now)) {
            return Err(DropReason::OctetQuota);
        }
        if self.packets.as_ref().is_some_and(|rate| !rate.take(1, now)) {
            if let Some(rate) = &self.octets {
                rate.give_back(octets);
            }
            return Err(DropReason::PacketQuota);
        }
        Ok(())
    }
}

impl Rate {
    fn take(&self, n: u64, now: u64) -> bool {
        let cost = self.cost(n);
        let take = |used_until: u64| {
            let until = used_until.max(now).saturating_add(cost);
            // What is larger than a whole burst is taken by who has saved up one.
            (until - now <= self.burst_nanos || used_until <= now).then_some(until)
        };
        self.used_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, n: u64) {
        let cost = self.cost(n);
        // It took as much before, so it cannot fail.
        let _ = self.used_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| until.checked_sub(cost));
    }

    fn cost(&self, n: u64) -> u64 {
        let nanos = u128::from(n) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(packets: u64, octets: u64, burst: Duration, now: Instant) -> Arc<Quota> {
        let quotas =
            Quotas { packets_per_second_max: packets, octets_per_second_max: octets, burst, connections_max: 0 };
        Quota::new(&quotas, now).unwrap()
    }

    fn taken(quota: &Quota, packets: usize, now: Instant) -> usize {
        (0..packets).filter(|_| quota.take(100, now).is_ok()).count()
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_the_rate() {
        let start = Instant::now();
        let quota = quota(1_000, 0, Duration::from_secs(1), start);
        assert_eq!(taken(&quota, 2_000, start), 1_000);
        assert_eq!(quota.take(100, start), Err(DropReason::PacketQuota));
        assert_eq!(taken(&quota, 2_000, start + Duration::from_millis(10)), 10);
        // A rest saves up no more than one burst.
        assert_eq!(taken(&quota, 2_000, start + Duration::from_secs(100)), 1_000);
    }

    #[test]
    fn octets_have_a_quota_of_their_own_and_what_is_refused_costs_nothing() {
        let start = Instant::now();
        let both = quota(5, 1_000, Duration::from_secs(1), start);
        assert_eq!(taken(&both, 20, start), 5);
        assert_eq!(both.take(100, start), Err(DropReason::PacketQuota));
        let octets = quota(0, 1_000, Duration::from_secs(1), start);
        assert_eq!(taken(&octets, 20, start), 10);
        assert_eq!(octets.take(100, start), Err(DropReason::OctetQuota));
        // The 500 octets that the packet quota did not use are still there.
        assert!(both.octets.as_ref().unwrap().take(500, 0));
        assert!(!both.octets.as_ref().unwrap().take(1, 0));
    }

    #[test]
    fn a_packet_larger_than_a_burst_is_taken_by_who_has_rested() {
        let start = Instant::now();
        let quota = quota(0, 1_000, Duration::from_millis(10), start);
        assert!(quota.take(2_000, start).is_ok());
        assert_eq!(quota.take(1, start + Duration::from_millis(1_900)), Err(DropReason::OctetQuota));
        assert!(quota.take(1, start + Duration::from_millis(2_000)).is_ok());
    }

    #[test]
    fn no_quota_costs_nothing() {
        assert!(Quota::new(&Quotas::default(), Instant::now()).is_none());
    }
}
