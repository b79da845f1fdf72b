//! How often something may happen: back-off and repeated log lines. No clock in it: `now` is a parameter.

use std::time::{Duration, Instant};

/// Waiting times that double with every failure in a row.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first failure waits for `first`, no failure longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// How long to wait after one more failure: 75 to 100 % of the full time, so that many who failed together do not
    /// come back together. `dice` is any number that differs between them.
    pub fn fail(&mut self, dice: u32) -> Duration {
        let doublings = self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full - full.mul_f64(0.25 * f64::from(dice % 1_000) / 1_000.0)
    }

    /// The next failure is a first one again.
    pub const fn succeed(&mut self) {
        self.failures = 0;
    }
}

/// Lets a repeated log line through a few times in a window and counts the rest.
///
/// Events say themselves when they happen; a flood of them says itself once more, with its number, when the first
/// event after the window comes.
#[derive(Clone, Debug)]
pub struct Repeated {
    window: Duration,
    lines_max: u32,
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Repeated {
    /// At most `lines_max` lines in a `window`.
    #[must_use]
    pub const fn new(lines_max: u32, window: Duration) -> Self {
        Self { window, lines_max, since: None, said: 0, unsaid: 0 }
    }

    /// One event. `Some` if it may be said, with the number of events that were not said since the last line.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= self.window) {
            self.since = Some(now);
            self.said = 0;
        }
        if self.said >= self.lines_max {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_doubles_up_to_its_longest_and_starts_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.fail(0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        backoff.succeed();
        assert_eq!(backoff.fail(0), Duration::from_millis(100));
    }

    #[test]
    fn a_back_off_is_never_shorter_than_three_quarters() {
        for dice in [0, 1, 500, 999, 1_000, u32::MAX] {
            let wait = Backoff::new(Duration::from_secs(4), Duration::from_secs(4)).fail(dice);
            assert!((Duration::from_secs(3)..=Duration::from_secs(4)).contains(&wait), "{dice}: {wait:?}");
        }
    }

    #[test]
    fn a_back_off_survives_any_number_of_failures() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..100 {
            assert!(backoff.fail(7) <= Duration::from_secs(30));
        }
    }

    #[test]
    fn a_flood_is_said_a_few_times_and_then_with_its_number() {
        let start = Instant::now();
        let mut repeated = Repeated::new(2, Duration::from_secs(10));
        let said: Vec<Option<u64>> = (0..5).map(|_| repeated.say(start)).collect();
        assert_eq!(said, [Some(0), Some(0), None, None, None]);
        assert_eq!(repeated.say(start + Duration::from_millis(9_999)), None);
        assert_eq!(repeated.say(start + Duration::from_secs(10)), Some(4));
        assert_eq!(repeated.say(start + Duration::from_secs(10)), Some(0));
    }
}
