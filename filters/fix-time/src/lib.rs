//! Puts times of capture right: none, far away, or with other fractions of the second than microseconds.

mod judge;

use std::time::Duration;

use hepgate_kit::{
    ChunkForm, ChunkId, ChunkValue, Config, Counter, Level, PacketFilter, PacketView, Verdict, log, state,
};

use judge::{Fractions, Judge, Stamp, Wrong};

/// The chunk that holds microseconds.
const MICROSECONDS: ChunkId = ChunkId { vendor: 0, kind: 0x0a };
/// How long what was learnt of an agent is remembered for other instances, in milliseconds: a day.
const REMEMBERED_MS: u64 = 86_400_000;
/// How far times of receipt may run ahead of the clock, in microseconds, to keep an order: the clock stands still in a
/// call and between calls that follow soon, and may be set back.
const AHEAD_MAX: u64 = 60_000_000;

struct FixTime {
    judge: Judge,
    zero: Action,
    future: Action,
    past: Action,
    /// Packets of HEP1 have no time to be wrong.
    hep1: Action,
    /// The last time of receipt that a packet was given.
    given: u64,
    found: Counter,
}

/// What is done about a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// It becomes the time at which the packet came.
    Received,
    Leave,
    Drop,
}

impl PacketFilter for FixTime {
    fn new(mut config: Config) -> Result<Self, String> {
        const RECEIVED: [(&str, Action); 3] =
            [("received", Action::Received), ("leave", Action::Leave), ("drop", Action::Drop)];
        const LEAVE: [(&str, Action); 3] =
            [("leave", Action::Leave), ("received", Action::Received), ("drop", Action::Drop)];
        let zero = config.choose("zero", &RECEIVED);
        let future = config.choose("future", &RECEIVED);
        let past = config.choose("past", &LEAVE);
        let hep1 = config.choose("hep1", &LEAVE);
        let max_future = config.duration("max_future", Duration::from_secs(60));
        let max_past = config.duration("max_past", Duration::from_secs(86_400));
        let scales = config.choose("fractions", &[("scale", true), ("leave", false)]);
        config.finish()?;
        let judge = Judge::new(max_future?, max_past?, scales?);
        let (zero, future, past, hep1) = (zero?, future?, past?, hep1?);
        let found = Counter::declare("found", "Wrong times, whatever was done about them", &["kind".to_owned()])
            .map_err(|error| format!("no metric found: {error}"))?;
        Ok(Self { judge, zero, future, past, hep1, given: 0, found })
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        let scalars = packet.scalars();
        if scalars.version == 1 {
            return self.act(packet, self.hep1, 0);
        }
        let agent_id = scalars.agent_id;
        let stamp = Stamp { agent_id, captured_at: scalars.captured_at, now: packet.now() };
        let fraction = || match packet.chunk_value(MICROSECONDS, ChunkForm::Uint32) {
            Ok(Some(ChunkValue::Uint32(fraction))) => Some(fraction),
            _ => None,
        };
        let judged = self.judge.judge(stamp, || remembered(agent_id), fraction);
        if let Some(fractions) = judged.learnt {
            remember(agent_id, fractions);
        }
        let Some(wrong) = judged.wrong else { return Verdict::Pass };
        // An error, such as a quota of series, is no reason to fail.
        let _ = self.found.add(&[wrong.as_str().to_owned()], 1);
        match wrong {
            Wrong::Zero => self.act(packet, self.zero, judged.time),
            Wrong::Future => self.act(packet, self.future, judged.time),
            Wrong::Past => self.act(packet, self.past, judged.time),
            Wrong::Milliseconds | Wrong::Nanoseconds => self.act(packet, Action::Leave, judged.time),
        }
    }
}

impl FixTime {
    /// `time` is what the packet says, in microseconds whatever it was written in.
    fn act(&mut self, packet: &PacketView<'_>, action: Action, time: u64) -> Verdict {
        let time = match action {
            Action::Drop => return Verdict::Drop,
            Action::Leave => time,
            Action::Received => {
                self.given = received(packet.now(), self.given);
                self.given
            }
        };
        if time != packet.scalars().captured_at
            && let Err(error) = packet.set_captured_at(time)
        {
            log(Level::Warn, &format!("a packet keeps its time: {error}"));
        }
        Verdict::Pass
    }
}

/// The time that a packet is given which came `now`, after one that was given `last`: the clock may not have moved, and
/// their order is to be seen nevertheless.
fn received(now: u64, last: u64) -> u64 {
    if (now..now.saturating_add(AHEAD_MAX)).contains(&last) { last.saturating_add(1) } else { now }
}

/// What instances before this one, or beside it, have learnt of an agent.
fn remembered(agent_id: u32) -> Fractions {
    match state::get(&key(agent_id)).as_deref() {
        Some(b"ms") => Fractions::Milliseconds,
        Some(b"ns") => Fractions::Nanoseconds,
        _ => Fractions::Microseconds,
    }
}

fn remember(agent_id: u32, fractions: Fractions) {
    let (value, text) = match fractions {
        Fractions::Microseconds => (None, "microseconds again"),
        Fractions::Milliseconds => (Some(b"ms"), "milliseconds for microseconds"),
        Fractions::Nanoseconds => (Some(b"ns"), "nanoseconds for microseconds"),
    };
    log(Level::Info, &format!("agent {agent_id} sends {text}"));
    match value {
        // Without room, the next instance learns it for itself.
        Some(value) => drop(state::set(&key(agent_id), value, Some(REMEMBERED_MS))),
        None => drop(state::remove(&key(agent_id))),
    }
}

fn key(agent_id: u32) -> String {
    format!("fractions {agent_id}")
}

hepgate_kit::packet_filter!(FixTime);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    /// Each call began with the time of its beginning, so the packets of two calls of one millisecond changed places.
    #[test]
    fn times_of_receipt_go_on_while_the_clock_stands_still_and_follow_it_when_it_is_set() {
        let mut last = 0;
        let mut given = |now: u64| {
            last = received(now, last);
            last
        };
        assert_eq!([7_000, 7_000, 7_000].map(&mut given), [7_000, 7_001, 7_002]);
        assert_eq!([8_000, 8_000].map(&mut given), [8_000, 8_001]);
        assert_eq!(given(7_999), 8_002, "set back by a little");
        let later = AHEAD_MAX * 3;
        assert_eq!([later, AHEAD_MAX].map(&mut given), [later, AHEAD_MAX], "and by much");
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_a_sentence() {
        for (key, value, error) in [
            (
                "futur",
                "drop",
                "config key \"futur\" is unknown; known here: zero, future, past, hep1, max_future, \
                max_past, fractions",
            ),
            ("past", "now", "config key \"past\": \"now\" is not leave, received or drop"),
            (
                "max_past",
                "10",
                "config key \"max_past\": \"10\" is not a time, as \"250ms\", \"10s\", \"5m\", \"1h\" \
                or \"1d\"",
            ),
            ("fractions", "1", "config key \"fractions\": \"1\" is not scale or leave"),
        ] {
            assert_eq!(FixTime::new(Config::of([(key, value)])).err().unwrap(), error);
        }
    }
}
