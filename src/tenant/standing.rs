//! How a filter stands with a tenant: its strikes, and whether it is in quarantine. Shared by the workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Quarantine;
use crate::filter::Peaks;

/// How a filter stands with a tenant.
#[derive(Debug)]
pub struct Standing {
    policy: Quarantine,
    /// The most that it has used.
    peaks: Peaks,
    /// So that a filter in service costs no lock.
    is_out: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    strikes: VecDeque<Instant>,
    last_fault: Option<String>,
    out: Option<(Instant, String)>,
}

/// What there is to say of a filter's standing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Faults that count now.
    pub strikes: usize,
    /// As many take it out; 0: any number may happen.
    pub strikes_max: usize,
    /// What the last fault was.
    pub last_fault: Option<String>,
    /// Why it is out of service, since when, and how long it will be; `None` for the last: until it is released.
    pub quarantine: Option<(String, Duration, Option<Duration>)>,
}

impl Standing {
    /// In service, without a strike.
    #[must_use]
    pub fn new(policy: Quarantine) -> Arc<Self> {
        let peaks = Peaks::default();
        Arc::new(Self { policy, peaks, is_out: AtomicBool::new(false), record: Mutex::default() })
    }

    /// Whether it is out of service. Its cool-down being over, it is in service again.
    #[must_use]
    pub fn is_out(&self, now: Instant) -> bool {
        if !self.is_out.load(Ordering::Relaxed) {
            return false;
        }
        let mut record = self.lock();
        let over =
            |since: Instant| self.policy.cool_down.is_some_and(|wait| now.saturating_duration_since(since) >= wait);
        if record.out.as_ref().is_some_and(|(since, _)| over(*since)) {
            self.let_in(&mut record);
        }
        record.out.is_some()
    }

    /// Holds a fault against it. `true`: it was one too many, and it is out of service from now on.
    pub fn strike(&self, fault: &str, now: Instant) -> bool {
        let mut record = self.lock();
        record.last_fault = Some(fault.to_owned());
        record.strikes.push_back(now);
        self.forget(&mut record, now);
        let (strikes, strikes_max) = (record.strikes.len(), self.policy.strikes_max);
        if strikes_max == 0 {
            // Nobody counts them; the list must not grow.
            record.strikes.clear();
            return false;
        }
        if strikes < strikes_max || record.out.is_some() {
            return false;
        }
        let reason =
            format!("{strikes} faults within {:?} (strikes_max); the last: {fault}", self.policy.strikes_window);
        self.put_out(&mut record, reason, now)
    }

    /// Looks at how much it drops. `true`: it was too much, and it is out of service from now on.
    pub fn judge_drops(&self, packets: u64, dropped: u64, now: Instant) -> bool {
        let (percent, window) = (self.policy.drop_percent_max, self.policy.drop_window);
        if dropped.saturating_mul(100) <= packets.saturating_mul(percent) {
            return false;
        }
        let mut record = self.lock();
        if record.out.is_some() {
            return false;
        }
        let reason = format!("dropped {dropped} of {packets} packets within {window:?}; drop_percent_max is {percent}");
        self.put_out(&mut record, reason, now)
    }

    /// Puts it in service again, with no strike. `false`: it was not out.
    pub fn release(&self) -> bool {
        let mut record = self.lock();
        let was_out = record.out.is_some();
        self.let_in(&mut record);
        was_out
    }

    /// The most that it has used of each limit.
    #[must_use]
    pub const fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    /// When it is taken out.
    #[must_use]
    pub const fn policy(&self) -> &Quarantine {
        &self.policy
    }

    /// What there is to say.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let out = self.is_out(now);
        let mut record = self.lock();
        self.forget(&mut record, now);
        let left = |since: Duration| self.policy.cool_down.map(|wait| wait.saturating_sub(since));
        let quarantine = record.out.as_ref().filter(|_| out).map(|(at, reason)| {
            let since = now.saturating_duration_since(*at);
            (reason.clone(), since, left(since))
        });
        let (strikes, last_fault) = (record.strikes.len(), record.last_fault.clone());
        Report { strikes, strikes_max: self.policy.strikes_max, last_fault, quarantine }
    }

    /// Strikes that are older than the window count no longer.
    fn forget(&self, record: &mut Record, now: Instant) {
        let counts = |at: &Instant| now.saturating_duration_since(*at) <= self.policy.strikes_window;
        while record.strikes.front().is_some_and(|at| !counts(at)) {
            record.strikes.pop_front();
        }
    }

    fn put_out(&self, record: &mut Record, reason: String, now: Instant) -> bool {
        record.out = Some((now, reason));
        self.is_out.store(true, Ordering::Relaxed);
        true
    }

    fn let_in(&self, record: &mut Record) {
        record.out = None;
        record.strikes.clear();
        self.is_out.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a filter drops, counted from window to window. Of fewer packets than this nothing is said.
const JUDGED_PACKETS_MIN: u64 = 100;

/// What a filter has dropped in the present window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drops {
    since: Instant,
    packets: u64,
    dropped: u64,
}

impl Drops {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, packets: 0, dropped: 0 }
    }

    /// Counts, and asks for a judgement as soon as there is enough to judge.
    pub(super) fn add(&mut self, packets: u64, dropped: u64, standing: &Standing, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= standing.policy.drop_window {
            *self = Self::new(now);
        }
        self.packets += packets;
        self.dropped += dropped;
        self.packets >= JUDGED_PACKETS_MIN && standing.judge_drops(self.packets, self.dropped, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn standing(change: impl FnOnce(&mut Quarantine)) -> Arc<Standing> {
        let mut policy = Quarantine {
            strikes_max: 3,
            strikes_window: 10 * SECOND,
            cool_down: Some(60 * SECOND),
            drop_percent_max: 50,
            drop_window: 10 * SECOND,
        };
        change(&mut policy);
        Standing::new(policy)
    }

    #[test]
    fn so_many_strikes_within_the_window_take_a_filter_out_and_old_ones_do_not_count() {
        let start = Instant::now();
        let filter = standing(|_| {});
        assert!(!filter.strike("a", start));
        assert!(!filter.strike("b", start + 9 * SECOND));
        // The first is forgotten.
        assert!(!filter.strike("c", start + 11 * SECOND));
        assert!(!filter.is_out(start + 11 * SECOND));
        assert!(filter.strike("d", start + 12 * SECOND));
        assert!(filter.is_out(start + 12 * SECOND));
        let report = filter.report(start + 13 * SECOND);
        let (reason, since, left) = report.quarantine.unwrap();
        assert_eq!((since, left), (SECOND, Some(59 * SECOND)));
        assert_eq!(reason, "3 faults within 10s (strikes_max); the last: d");
        assert!(!filter.strike("late", start + 13 * SECOND), "it is out already");
    }

    #[test]
    fn after_its_cool_down_a_filter_is_in_service_with_a_clean_record() {
        let start = Instant::now();
        let filter = standing(|_| {});
        assert_eq!((0..3).filter(|_| filter.strike("a", start)).count(), 1);
        assert!(filter.is_out(start + 59 * SECOND));
        assert!(!filter.is_out(start + 60 * SECOND));
        assert_eq!(filter.report(start + 60 * SECOND).strikes, 0);
    }

    #[test]
    fn without_a_cool_down_only_a_release_lets_it_in() {
        let start = Instant::now();
        let filter = standing(|policy| policy.cool_down = None);
        assert_eq!((0..3).filter(|_| filter.strike("a", start)).count(), 1);
        assert!(filter.is_out(start + 1_000_000 * SECOND));
        assert!(filter.release());
        assert!(!filter.is_out(start + 1_000_000 * SECOND));
        assert!(!filter.release(), "it was in service");
    }

    #[test]
    fn no_strikes_max_is_no_quarantine() {
        let start = Instant::now();
        let filter = standing(|policy| policy.strikes_max = 0);
        assert!((0..1_000).all(|_| !filter.strike("a", start)));
        assert!(!filter.is_out(start));
    }

    #[test]
    fn a_filter_that_drops_too_much_is_taken_out_but_not_for_a_few_packets() {
        let start = Instant::now();
        let filter = standing(|_| {});
        let mut drops = Drops::new(start);
        assert!(!drops.add(99, 99, &filter, start), "too few to say");
        assert!(drops.add(1, 1, &filter, start));
        let (reason, ..) = filter.report(start).quarantine.unwrap();
        assert_eq!(reason, "dropped 100 of 100 packets within 10s; drop_percent_max is 50");
        let half = standing(|_| {});
        let mut drops = Drops::new(start);
        assert!(!drops.add(1_000, 500, &half, start), "as much as it may");
        assert!(drops.add(1, 1, &half, start));
        // A new window begins at nothing.
        let calm = standing(|_| {});
        let mut drops = Drops::new(start);
        assert!(!drops.add(1_000, 500, &calm, start));
        assert!(!drops.add(1, 1, &calm, start + 10 * SECOND));
    }
}
