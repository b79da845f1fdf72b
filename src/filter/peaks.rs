//! The most that a filter has used of each limit.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Limit;

/// The most that the instances of a filter have used of each limit, on all threads.
#[derive(Debug, Default)]
pub struct Peaks([AtomicU64; Limit::ALL.len()]);

impl Peaks {
    /// So much was used.
    pub fn raise(&self, limit: Limit, used: u64) {
        let peak = self.of(limit);
        // Nearly always it was more before, and then nothing is written.
        if peak.load(Ordering::Relaxed) < used {
            peak.fetch_max(used, Ordering::Relaxed);
        }
    }

    /// The most that was used; times in microseconds.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.of(limit).load(Ordering::Relaxed)
    }

    fn of(&self, limit: Limit) -> &AtomicU64 {
        let [first, ..] = &self.0;
        self.0.get(limit as usize).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_own_peak_and_it_only_rises() {
        let peaks = Peaks::default();
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place, "{limit:?}");
            assert_eq!(peaks.get(limit), 0);
            peaks.raise(limit, 7);
            peaks.raise(limit, 5);
            assert_eq!(peaks.get(limit), 7);
        }
    }
}
