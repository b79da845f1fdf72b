//! What is wrong with a time, and what it should be: of times in microseconds since the epoch, and no clock.

use std::time::Duration;

use hepgate_kit::recent::Recent;

const SECOND: u64 = 1_000_000;
/// Packets in a row that must speak for milliseconds. Of microseconds that are anything at all, one in a thousand is
/// below 1000.
const SAMPLES: u32 = 32;
/// Agents whose habits are known at a time; the one that is known longest is forgotten first, and learnt again.
const AGENTS_MAX: usize = 4_096;

/// What is wrong with a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// None, or one in the first second of 1970.
    Zero,
    Future,
    Past,
    /// Milliseconds stand where microseconds belong.
    Milliseconds,
    /// Nanoseconds stand there.
    Nanoseconds,
}

impl Wrong {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Future => "future",
            Self::Past => "past",
            Self::Milliseconds => "milliseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }
}

/// How an agent writes what is beyond the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Fractions {
    #[default]
    Microseconds,
    Milliseconds,
    Nanoseconds,
}

/// What is known of an agent.
#[derive(Clone, Debug, Default)]
struct Habit {
    fractions: Fractions,
    /// Packets in a row with 1 to 999 in the microseconds.
    samples: u32,
    /// How long they took to us, if they are microseconds, and if they are milliseconds.
    plain: Spread,
    scaled: Spread,
}

/// The least and the greatest of some differences.
#[derive(Clone, Copy, Debug)]
struct Spread(i64, i64);

impl Default for Spread {
    fn default() -> Self {
        Self(i64::MAX, i64::MIN)
    }
}

impl Spread {
    fn add(&mut self, difference: i64) {
        *self = Self(self.0.min(difference), self.1.max(difference));
    }

    const fn width(self) -> i64 {
        self.1.saturating_sub(self.0)
    }
}

/// Finds wrong times.
#[derive(Debug)]
pub(crate) struct Judge {
    max_future: u64,
    max_past: u64,
    /// Whether fractions of the second are looked at.
    scales: bool,
    habits: Recent<u32, Habit>,
}

/// A time as it should be, and what was wrong with it. What agent's habits turn out to be other than was known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verdict {
    /// What the packet said, in microseconds, whatever it was written in.
    pub(crate) time: u64,
    pub(crate) wrong: Option<Wrong>,
    pub(crate) learnt: Option<Fractions>,
}

/// A packet's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub(crate) agent_id: u32,
    pub(crate) captured_at: u64,
    /// When it came to us.
    pub(crate) now: u64,
}

impl Judge {
    pub(crate) fn new(max_future: Duration, max_past: Duration, scales: bool) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self { max_future: micros(max_future), max_past: micros(max_past), scales, habits: Recent::new(AGENTS_MAX) }
    }

    /// `remembered` says what was learnt of an agent before, and is asked when it is new here. `fraction` says what
    /// stands in the packet's microseconds, and is asked only if that could be more than a second.
    pub(crate) fn judge(
        &mut self,
        stamp: Stamp,
        remembered: impl FnOnce() -> Fractions,
        fraction: impl Fn() -> Option<u32>,
    ) -> Verdict {
        if stamp.captured_at < SECOND {
            return Verdict { time: stamp.captured_at, wrong: Some(Wrong::Zero), learnt: None };
        }
        let scaled = if self.scales { self.scale(stamp, remembered, &fraction) } else { Verdict::default() };
        if scaled.wrong.is_some() {
            // Scaled or not, it can be far away.
            return Verdict { wrong: self.far(scaled.time, stamp.now).or(scaled.wrong), ..scaled };
        }
        let wrong = self.far(stamp.captured_at, stamp.now);
        if wrong == Some(Wrong::Future)
            && self.scales
            && let Some(time) = without_nanoseconds(stamp.captured_at, &fraction)
        {
            let learnt = self.habits.get_mut(&stamp.agent_id).map(|habit| habit.turn_to(Fractions::Nanoseconds));
            let wrong = self.far(time, stamp.now).or(Some(Wrong::Nanoseconds));
            return Verdict { time, wrong, learnt };
        }
        Verdict { time: stamp.captured_at, wrong, learnt: scaled.learnt }
    }

    fn far(&self, time: u64, now: u64) -> Option<Wrong> {
        if time > now.saturating_add(self.max_future) {
            Some(Wrong::Future)
        } else if time < now.saturating_sub(self.max_past) {
            Some(Wrong::Past)
        } else {
            None
        }
    }

    /// The time by the agent's habit, which is learnt on the way.
    fn scale(
        &mut self,
        stamp: Stamp,
        remembered: impl FnOnce() -> Fractions,
        fraction: &impl Fn() -> Option<u32>,
    ) -> Verdict {
        if self.habits.get(&stamp.agent_id).is_none() {
            let habit = Habit { fractions: remembered(), ..Habit::default() };
            self.habits.insert(stamp.agent_id, habit);
        }
        let Some(habit) = self.habits.get_mut(&stamp.agent_id) else { return Verdict::default() };
        let beyond = stamp.captured_at % SECOND;
        let scaled = (stamp.captured_at - beyond).saturating_add(beyond * 1_000);
        match habit.fractions {
            Fractions::Milliseconds if beyond < 1_000 => {
                Verdict { time: scaled, wrong: Some(Wrong::Milliseconds), learnt: None }
            }
            // It does not write milliseconds any more, or another agent has the same id.
            Fractions::Milliseconds => {
                Verdict { learnt: Some(habit.turn_to(Fractions::Microseconds)), ..Verdict::default() }
            }
            Fractions::Nanoseconds => match without_nanoseconds(stamp.captured_at, fraction) {
                Some(time) => Verdict { time, wrong: Some(Wrong::Nanoseconds), learnt: None },
                None => Verdict::default(),
            },
            Fractions::Microseconds => {
                let learnt = habit.sample(stamp, beyond, scaled);
                Verdict { learnt, ..Verdict::default() }
            }
        }
    }
}

impl Habit {
    fn turn_to(&mut self, fractions: Fractions) -> Fractions {
        *self = Self { fractions, ..Self::default() };
        fractions
    }

    /// Looks at one more packet of an agent that is taken to write microseconds.
    fn sample(&mut self, stamp: Stamp, beyond: u64, scaled: u64) -> Option<Fractions> {
        match beyond {
            // Says nothing: an agent that knows whole seconds only, for example.
            0 => return None,
            1..1_000 => {}
            _ => {
                self.turn_to(Fractions::Microseconds);
                return None;
            }
        }
        let since = |time: u64| i64::try_from(i128::from(stamp.now) - i128::from(time)).unwrap_or(0);
        self.plain.add(since(stamp.captured_at));
        self.scaled.add(since(scaled));
        self.samples += 1;
        if self.samples < SAMPLES {
            return None;
        }
        // An agent that sends on the stroke of the second looks the same, but then its packets take equally long to us
        // if they are not scaled; those of the other, if they are.
        let fractions = match self.scaled.width() < self.plain.width() {
            true => Fractions::Milliseconds,
            false => Fractions::Microseconds,
        };
        self.turn_to(fractions);
        (fractions == Fractions::Milliseconds).then_some(fractions)
    }
}

/// The time, if it was more than a second that stood in the microseconds, and less than 10^9.
fn without_nanoseconds(captured_at: u64, fraction: &impl Fn() -> Option<u32>) -> Option<u64> {
    let fraction = u64::from(fraction()?);
    (SECOND..1_000_000_000).contains(&fraction).then_some(())?;
    Some(captured_at.checked_sub(fraction)? + fraction / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000 * SECOND;

    fn judge() -> Judge {
        Judge::new(Duration::from_secs(60), Duration::from_secs(86_400), true)
    }

    fn see(judge: &mut Judge, captured_at: u64, now: u64) -> Verdict {
        judge.judge(Stamp { agent_id: 7, captured_at, now }, Fractions::default, || None)
    }

    /// What the agent writes of a time, and when it comes to us: 2 to 5 ms later.
    fn stream(write: impl Fn(u64) -> u64) -> impl Iterator<Item = (u64, u64)> {
        (0..200).map(move |n| {
            let at = NOW + n * 137_911;
            (write(at), at + 2_000 + n % 4 * 1_000)
        })
    }

    #[test]
    fn times_that_are_none_or_far_away_are_named() {
        let mut judge = judge();
        for (captured_at, wrong) in [
            (0, Some(Wrong::Zero)),
            (999_999, Some(Wrong::Zero)),
            (SECOND, Some(Wrong::Past)),
            (NOW - 86_400 * SECOND, None),
            (NOW - 86_400 * SECOND - 1, Some(Wrong::Past)),
            (NOW, None),
            (NOW + 60 * SECOND, None),
            (NOW + 60 * SECOND + 1, Some(Wrong::Future)),
            (u64::MAX, Some(Wrong::Future)),
        ] {
            assert_eq!(see(&mut judge, captured_at, NOW), Verdict { time: captured_at, wrong, learnt: None });
        }
    }

    #[test]
    fn milliseconds_are_scaled_once_so_many_packets_speak_for_them() {
        let mut judge = judge();
        let milliseconds = |at: u64| at - at % SECOND + at % SECOND / 1_000;
        let mut first = None;
        for (n, (captured_at, now)) in stream(milliseconds).enumerate() {
            let verdict = see(&mut judge, captured_at, now);
            if verdict.wrong.is_some() {
                first.get_or_insert(n);
                assert!(now - verdict.time < 6_000, "{}", now - verdict.time);
            }
        }
        assert_eq!(first, Some(usize::try_from(SAMPLES).unwrap_or(0) + 1), "the first has 0 ms and says nothing");
        let verdict = see(&mut judge, NOW + 500_000, NOW + 500_100);
        assert_eq!(verdict, Verdict { time: NOW + 500_000, wrong: None, learnt: Some(Fractions::Microseconds) });
    }

    #[test]
    fn microseconds_are_left_alone() {
        let mut judge = judge();
        assert!(stream(|at| at).all(|(at, now)| see(&mut judge, at, now).wrong.is_none()));
        assert!(stream(|at| at - at % SECOND).all(|(at, now)| see(&mut judge, at, now).wrong.is_none()), "seconds");
        assert!(stream(|at| at - at % 1_000).all(|(at, now)| see(&mut judge, at, now).wrong.is_none()), "whole ms");
    }

    #[test]
    fn an_agent_that_sends_on_the_stroke_of_the_second_is_left_alone() {
        let mut judge = judge();
        for n in 0..500 {
            let at = NOW + n * SECOND + 1 + n * 37 % 900;
            let verdict = see(&mut judge, at, at + 300 + n % 5 * 100);
            assert_eq!(verdict, Verdict { time: at, wrong: None, learnt: None });
        }
    }

    #[test]
    fn nanoseconds_are_found_by_a_time_that_lies_ahead_and_known_from_then_on() {
        let mut judge = judge();
        let mut nanoseconds = |nanos: u32| {
            let captured_at = NOW + u64::from(nanos);
            judge.judge(Stamp { agent_id: 7, captured_at, now: NOW + SECOND }, Fractions::default, || Some(nanos))
        };
        assert_eq!(nanoseconds(20_000_000), Verdict { time: NOW + 20_000_000, wrong: None, learnt: None });
        let found =
            Verdict { time: NOW + 500_000, wrong: Some(Wrong::Nanoseconds), learnt: Some(Fractions::Nanoseconds) };
        assert_eq!(nanoseconds(500_000_000), found);
        let known = Verdict { time: NOW + 20_000, wrong: Some(Wrong::Nanoseconds), learnt: None };
        assert_eq!(nanoseconds(20_000_000), known);
        assert_eq!(nanoseconds(400_000), Verdict { time: NOW + 400_000, wrong: None, learnt: None });
    }

    #[test]
    fn what_was_learnt_before_holds_at_once() {
        let mut judge = judge();
        let stamp = Stamp { agent_id: 9, captured_at: NOW + 250, now: NOW + 251_000 };
        let verdict = judge.judge(stamp, || Fractions::Milliseconds, || None);
        assert_eq!(verdict, Verdict { time: NOW + 250_000, wrong: Some(Wrong::Milliseconds), learnt: None });
    }
}
