//! How long a call may take, and by which clock.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::ticker::TICK;
use crate::wire::CapturedAt;

/// The time that a call may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    time: Duration,
    clock: Clock,
}

/// Which time counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Clock {
    /// That on the wall: somebody waits for the thread.
    Wall,
    /// That in which the thread computed. A machine that has no processor to spare is not the filter's fault.
    Thread,
}

impl Budget {
    /// So much time by the clock on the wall: for calls on a thread that a socket waits for.
    #[must_use]
    pub const fn wall(time: Duration) -> Self {
        Self { time, clock: Clock::Wall }
    }

    /// So much time of computing: for calls on a thread that only runs guests.
    #[must_use]
    pub const fn computing(time: Duration) -> Self {
        Self { time, clock: Clock::Thread }
    }

    /// How much it is.
    pub(super) const fn time(self) -> Duration {
        self.time
    }
}

/// When a call begins, as the guest may know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// By the calendar.
    pub wall: CapturedAt,
    /// Since some moment; never goes back.
    pub monotonic: Duration,
}

impl From<CapturedAt> for Now {
    /// For a replay, in which the packets' time is all the time there is.
    fn from(wall: CapturedAt) -> Self {
        Self { wall, monotonic: Duration::from_micros(wall.as_micros()) }
    }
}

/// What a call gets whose time on the wall is over, once: so much time of computing. Who was kept from the processor gets
/// through with what little it still had to do; who really computes ends this much later.
const GRACE: Duration = TICK;

/// When the call at hand must end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deadline {
    Wall(Instant),
    /// When the thread has computed for so long.
    Thread(Duration),
}

impl Deadline {
    /// The budget's end for a call that begins now, on this thread.
    pub(super) fn begin(budget: Budget, now: Instant) -> Self {
        match budget.clock {
            Clock::Wall => Self::Wall(now + budget.time),
            Clock::Thread => Self::Thread(computed().saturating_add(budget.time)),
        }
    }

    /// For a call whose time is over: when it must end after all. `None`: now.
    pub(super) fn extended(self) -> Option<Self> {
        match self {
            Self::Wall(_) => Some(Self::Thread(computed().saturating_add(GRACE))),
            Self::Thread(_) => None,
        }
    }

    /// What is left; nothing when it is over.
    pub(super) fn left(self) -> Duration {
        match self {
            Self::Wall(end) => end.saturating_duration_since(Instant::now()),
            Self::Thread(end) => end.saturating_sub(computed()),
        }
    }
}

/// How long this thread has computed.
fn computed() -> Duration {
    // Linux has had this clock since 2.6.12; without it no call could ever end by time, so it is over at once.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::MAX, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_thread_sleeps_is_no_time_of_computing() {
        let (wall, computing) = (Duration::from_millis(20), Duration::from_millis(20));
        let (wall, computing) = (
            Deadline::begin(Budget::wall(wall), Instant::now()),
            Deadline::begin(Budget::computing(computing), Instant::now()),
        );
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(wall.left(), Duration::ZERO);
        assert!(computing.left() > Duration::from_millis(10), "{:?}", computing.left());
    }

    #[test]
    fn who_was_kept_from_the_processor_may_go_on_once() {
        let deadline = Deadline::begin(Budget::wall(Duration::from_millis(2)), Instant::now());
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(deadline.left(), Duration::ZERO);
        let extended = deadline.extended().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(extended.left() > GRACE / 2, "{:?}", extended.left());
        assert!(extended.extended().is_none());
        assert!(Deadline::begin(Budget::computing(Duration::ZERO), Instant::now()).extended().is_none());
    }

    #[test]
    fn computing_uses_the_budget_up() {
        // Before the budget begins: no thread computes more than time goes by.
        let begun = Instant::now();
        let deadline = Deadline::begin(Budget::computing(Duration::from_millis(5)), Instant::now());
        while deadline.left() > Duration::ZERO {
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
        assert!(begun.elapsed() >= Duration::from_millis(5));
    }
}
