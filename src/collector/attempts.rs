//! When to connect again. No clock in it.

use std::time::Duration;

use crate::config::StreamSettings;
use crate::pace::Backoff;

/// Attempts to connect to one collector: the waits between them double, and after `hep_max_retries` of them that failed
/// in a row the collector is left alone for `hep_retry_cooldown`.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    failed: u32,
    failed_max: u32,
    cooldown: Duration,
}

/// What comes after an attempt that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Another one, after that time.
    Again(Duration),
    /// None for a longer time.
    CoolDown(Duration),
}

impl Next {
    pub(super) const fn wait(self) -> Duration {
        match self {
            Self::Again(wait) | Self::CoolDown(wait) => wait,
        }
    }
}

impl Attempts {
    pub(super) const fn new(settings: &StreamSettings) -> Self {
        Self {
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            failed: 0,
            failed_max: settings.hep_max_retries,
            cooldown: settings.hep_retry_cooldown,
        }
    }

    /// No connection could be made. `dice`: as in [`Backoff::fail`].
    pub(super) fn fail(&mut self, dice: u32) -> Next {
        self.failed = self.failed.saturating_add(1);
        if self.failed_max > 0 && self.failed >= self.failed_max {
            self.failed = 0;
            self.backoff.succeed();
            return Next::CoolDown(self.cooldown);
        }
        Next::Again(self.backoff.fail(dice))
    }

    /// A connection was made.
    pub(super) const fn succeed(&mut self) {
        self.failed = 0;
    }

    /// A connection is gone. One that was there for a while is made again at once, as most of those that close it are
    /// back as soon; a collector that takes connections only to close them is asked ever more seldom.
    pub(super) fn lose(&mut self, was_there: Duration, dice: u32) -> Duration {
        if was_there >= FIRM_AFTER {
            self.backoff.succeed();
            return AT_ONCE.mul_f64(f64::from(dice % 1_000) / 1_000.0);
        }
        self.backoff.fail(dice)
    }
}

/// A connection that is there for so long is one to build on.
const FIRM_AFTER: Duration = Duration::from_secs(1);
/// Those who lost a collector together come back within that time, and not in the same moment.
const AT_ONCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempts(hep_max_retries: u32) -> Attempts {
        Attempts {
            backoff: Backoff::new(SECOND, 4 * SECOND),
            failed: 0,
            failed_max: hep_max_retries,
            cooldown: 3_600 * SECOND,
        }
    }

    #[test]
    fn after_as_many_failures_as_there_may_be_comes_the_cool_down_and_then_as_many_again() {
        let mut attempts = attempts(3);
        for _ in 0..3 {
            assert_eq!(attempts.fail(0), Next::Again(SECOND));
            assert_eq!(attempts.fail(0), Next::Again(2 * SECOND));
            assert_eq!(attempts.fail(0), Next::CoolDown(3_600 * SECOND));
        }
    }

    #[test]
    fn a_connection_in_between_begins_the_count_anew() {
        let mut attempts = attempts(2);
        for _ in 0..5 {
            assert!(matches!(attempts.fail(0), Next::Again(_)));
            attempts.succeed();
        }
    }

    #[test]
    fn with_0_retries_there_is_no_cool_down() {
        let mut attempts = attempts(0);
        for _ in 0..1_000 {
            assert!(matches!(attempts.fail(0), Next::Again(_)));
        }
    }

    /// The moments of the attempts, in seconds, until the first one at which the collector is back.
    fn attempts_until(back: Duration, mut attempts: Attempts) -> Vec<Duration> {
        let mut at = vec![Duration::ZERO];
        while let Some(now) = at.last().copied().filter(|now| *now < back) {
            at.push(now + attempts.fail(0).wait());
        }
        at
    }

    #[test]
    fn a_collector_that_is_back_after_minutes_is_connected_to_within_the_longest_wait_or_the_cool_down() {
        let back = 600 * SECOND;
        let at = attempts_until(back, attempts(0));
        assert_eq!(at[..5], [0, 1, 3, 7, 11].map(|n| n * SECOND));
        assert!(at.last().is_some_and(|now| *now - back <= 4 * SECOND), "{at:?}");
        // Five attempts in the first seconds, and then none until the hour is over.
        let at = attempts_until(back, attempts(5));
        assert_eq!(at, [0, 1, 3, 7, 11, 3_611].map(|n| n * SECOND));
    }

    #[test]
    fn a_connection_that_is_closed_at_once_is_made_ever_more_seldom() {
        let mut attempts = attempts(5);
        let brief = Duration::from_millis(999);
        assert_eq!([1, 2, 4, 4].map(|_| attempts.lose(brief, 0)), [1, 2, 4, 4].map(|n| n * SECOND));
        assert_eq!([0, 500, 999].map(|dice| attempts.lose(SECOND, dice).as_millis()), [0, 50, 99]);
        assert_eq!(attempts.lose(brief, 0), SECOND);
    }
}
