//! When each packet is due. Has no clock: it is told what the capture says and answers how long after the start.

use std::str::FromStr;
use std::time::Duration;

/// How fast packets are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// As they were captured.
    Capture,
    /// As fast as it goes.
    Max,
    /// So many a second.
    PerSecond(f64),
}

/// Why a text is no pace.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("write capture, max, or a rate such as 500/s")]
pub struct PaceError;

impl FromStr for Pace {
    type Err = PaceError;

    fn from_str(text: &str) -> Result<Self, PaceError> {
        match text {
            "capture" => Ok(Self::Capture),
            "max" => Ok(Self::Max),
            _ => {
                let rate: f64 = text.strip_suffix("/s").and_then(|rate| rate.parse().ok()).ok_or(PaceError)?;
                if rate.is_finite() && rate > 0.0 { Ok(Self::PerSecond(rate)) } else { Err(PaceError) }
            }
        }
    }
}

/// Says when packets are due.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    packets: u64,
    /// When this turn through the capture began.
    turn_begun: Duration,
    /// Captured time of the first packet of this turn, in microseconds.
    first_micros: Option<u64>,
    latest: Duration,
}

impl Pacer {
    pub(super) const fn new(pace: Pace) -> Self {
        Self { pace, packets: 0, turn_begun: Duration::ZERO, first_micros: None, latest: Duration::ZERO }
    }

    /// How long after the start the next packet is due, which was captured at `micros`. Never before the last one.
    pub(super) fn due(&mut self, micros: Option<u64>) -> Duration {
        let due = match self.pace {
            Pace::Max => Duration::ZERO,
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 packets")]
            Pace::PerSecond(rate) => Duration::try_from_secs_f64(self.packets as f64 / rate).unwrap_or(Duration::MAX),
            Pace::Capture => micros.map_or(self.latest, |micros| {
                let first = *self.first_micros.get_or_insert(micros);
                self.turn_begun.saturating_add(Duration::from_micros(micros.saturating_sub(first)))
            }),
        };
        self.packets += 1;
        self.latest = self.latest.max(due);
        self.latest
    }

    /// The capture begins again.
    pub(super) const fn next_turn(&mut self) {
        self.turn_begun = self.latest;
        self.first_micros = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_capture_max_or_a_rate() {
        assert_eq!("capture".parse(), Ok(Pace::Capture));
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("0.5/s".parse(), Ok(Pace::PerSecond(0.5)));
        for text in ["", "fast", "100", "0/s", "-1/s", "inf/s", "NaN/s", "/s"] {
            assert_eq!(text.parse::<Pace>(), Err(PaceError), "{text}");
        }
    }

    #[test]
    fn the_capture_gives_the_time_between_packets_and_turns_follow_at_once() {
        let mut pacer = Pacer::new(Pace::Capture);
        let mut due = |micros| pacer.due(micros).as_micros();
        assert_eq!(due(Some(5_000_000)), 0);
        assert_eq!(due(Some(5_000_250)), 250);
        assert_eq!(due(Some(5_000_100)), 250, "time does not run back");
        assert_eq!(due(None), 250, "a frame without time goes with the one before");
        assert_eq!(due(Some(5_001_000)), 1000);
        pacer.next_turn();
        assert_eq!(pacer.due(Some(5_000_000)).as_micros(), 1000);
        assert_eq!(pacer.due(Some(5_000_250)).as_micros(), 1250);
    }

    #[test]
    fn a_rate_spaces_packets_evenly() {
        let mut pacer = Pacer::new(Pace::PerSecond(4.0));
        let due: Vec<u128> = (0..4).map(|_| pacer.due(Some(7)).as_millis()).collect();
        assert_eq!(due, [0, 250, 500, 750]);
    }

    #[test]
    fn no_captured_time_is_too_long() {
        let mut pacer = Pacer::new(Pace::Capture);
        for micros in [0, u64::MAX, 1] {
            pacer.due(Some(micros));
            pacer.next_turn();
        }
        let mut pacer = Pacer::new(Pace::PerSecond(f64::MIN_POSITIVE));
        pacer.due(None);
        assert_eq!(pacer.due(None), Duration::MAX);
    }
}
