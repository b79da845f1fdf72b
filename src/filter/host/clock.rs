//! `clock`: when the call began, as coarse as the operator wants it.

use std::time::Duration;

use super::super::bindings::hep::filter::clock::Host;
use super::super::state::State;

impl Host for State {
    fn wall(&mut self) -> wasmtime::Result<u64> {
        self.charge(0)?;
        Ok(rounded(self.call.now.wall.as_micros(), self.limits.clock_grain))
    }

    fn monotonic(&mut self) -> wasmtime::Result<u64> {
        self.charge(0)?;
        Ok(rounded(micros(self.call.now.monotonic), self.limits.clock_grain))
    }
}

fn rounded(micros_since: u64, grain: Duration) -> u64 {
    let grain = micros(grain).max(1);
    micros_since - micros_since % grain
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rounded_down_to_the_grain() {
        let grain = Duration::from_millis(10);
        for (time, shown) in [(0, 0), (9_999, 0), (10_000, 10_000), (19_999, 10_000), (u64::MAX, u64::MAX - 1_615)] {
            assert_eq!(rounded(time, grain), shown, "{time}");
        }
    }
}
