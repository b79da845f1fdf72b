//! Removes true copies: packets that several agents have captured on one and the same way. What is sent again stays.

mod copies;

use std::time::Duration;

use hepgate_kit::recent::Recent;
use hepgate_kit::{
    COMPRESSED, ChunkId, Config, Counter, Endpoint, IpAddress, Level, NO_PAYLOAD, PacketFilter, PacketView, SIP,
    SKIPPED, Verdict, log, state, subscription,
};

use xxhash_rust::xxh3::xxh3_64;

use copies::{Sightings, key};

/// Where a copy is marked: tags.
const TAGS: ChunkId = ChunkId { vendor: 0, kind: 0x26 };
/// Windows that make sense: below, clocks are too coarse; above, memory does not last.
const WINDOW_MIN: Duration = Duration::from_millis(1);
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// How much later than its original a copy may come to us, whatever the window says of when both were captured.
const LATE: Duration = Duration::from_secs(1);
/// Entries take about 150 octets: these fit the memory that a filter has unless it is told otherwise.
const ENTRIES: usize = 16_384;
const ENTRIES_MAX: usize = 1_000_000;

struct Dedup {
    /// In microseconds.
    window: u64,
    across: Across,
    action: Action,
    memory: Memory,
    removed: Counter,
    forgotten_early: Counter,
    /// Of the call at hand.
    copies: u64,
    forgotten: u64,
    /// Whether the log says that memory is too small.
    has_complained: bool,
}

/// Whose packets are copies of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Across {
    /// Those of different agent ids.
    Agents,
    /// Those of different agent ids, or that came from different addresses.
    Senders,
    /// All.
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Drop,
    Skip,
    Mark,
}

/// Where sightings are remembered.
enum Memory {
    /// For all instances, with the host.
    Shared,
    /// In this instance, with the time at which each was put there.
    Instance(Recent<u128, (Sightings, u64)>),
}

impl PacketFilter for Dedup {
    const PREFIX_OCTETS: u32 = u32::MAX;

    fn new(mut config: Config) -> Result<Self, String> {
        let window = config.duration("window", Duration::from_millis(500));
        let across =
            config.choose("across", &[("agents", Across::Agents), ("senders", Across::Senders), ("any", Across::Any)]);
        let action = config.choose("action", &[("drop", Action::Drop), ("skip", Action::Skip), ("mark", Action::Mark)]);
        let payload_types: Result<Vec<u8>, String> = config.list("payload_types", "a payload type (0 to 255)");
        let is_shared = config.choose("memory", &[("shared", true), ("instance", false)]);
        let entries_max: Result<usize, String> = config.parse("entries_max", ENTRIES, "a number (1 to 1000000)");
        config.finish()?;
        let window = window?;
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
            return Err(format!("config key \"window\": {window:?} is not 1ms to 60s"));
        }
        let entries_max = entries_max?;
        if !(1..=ENTRIES_MAX).contains(&entries_max) {
            return Err(format!("config key \"entries_max\": {entries_max} is not 1 to {ENTRIES_MAX}"));
        }
        let mut payload_types = payload_types?;
        if payload_types.is_empty() {
            payload_types.push(SIP);
        }
        let (across, action, is_shared) = (across?, action?, is_shared?);
        // The others pass by without a call.
        subscription::payload_types(&payload_types)
            .map_err(|error| format!("config key \"payload_types\": {error}"))?;
        let declare = |name: &str, help: &str| {
            Counter::declare(name, help, &[]).map_err(|error| format!("no metric {name}: {error}"))
        };
        Ok(Self {
            window: micros(window),
            across,
            action,
            memory: match is_shared {
                true => Memory::Shared,
                false => Memory::Instance(Recent::new(entries_max)),
            },
            removed: declare("removed", "Copies that were removed, or marked")?,
            forgotten_early: declare("forgotten_early", "Packets that were not remembered as long as they should")?,
            copies: 0,
            forgotten: 0,
            has_complained: false,
        })
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        let scalars = packet.scalars();
        // A copy of what an earlier filter has skipped must not go with it.
        if scalars.marks & (COMPRESSED | NO_PAYLOAD | SKIPPED) != 0 {
            return Verdict::Pass;
        }
        let Some(key) = key(scalars, packet.payload()) else { return Verdict::Pass };
        let agent = match self.across {
            Across::Agents | Across::Any => scalars.agent_id,
            Across::Senders => sender(scalars.agent_id, packet.sender().peer),
        };
        if !self.is_copy(key, agent, packet.captured_at(), packet.now()) {
            return Verdict::Pass;
        }
        self.copies += 1;
        match self.action {
            Action::Drop => Verdict::Drop,
            Action::Skip => Verdict::Skip,
            Action::Mark => {
                if let Err(error) = packet.set_chunk(TAGS, b"copy") {
                    log(Level::Warn, &format!("a copy stays unmarked: {error}"));
                }
                Verdict::Pass
            }
        }
    }

    fn after_batch(&mut self) {
        if self.forgotten > 0 && !std::mem::replace(&mut self.has_complained, true) {
            let limits = match self.memory {
                Memory::Shared => "state_keys_max and state_octets_max of [filter.limits]",
                Memory::Instance(_) => "entries_max",
            };
            log(Level::Warn, &format!("packets are forgotten within the window, so copies may stay: see {limits}"));
        }
        for (counter, count) in [(&self.removed, &mut self.copies), (&self.forgotten_early, &mut self.forgotten)] {
            if *count > 0 {
                // An error, such as a quota of series, is no reason to fail.
                let _ = counter.add(&[], std::mem::take(count));
            }
        }
    }
}

impl Dedup {
    /// `at` is when it was captured, `now` when it came to us.
    fn is_copy(&mut self, key: u128, agent: u32, at: u64, now: u64) -> bool {
        match &mut self.memory {
            Memory::Shared => {
                let name = format!("{key:032x}");
                let before = state::get(&name).as_deref().and_then(Sightings::read);
                let (sightings, is_copy) = seen(before, self.across, agent, at, self.window);
                let ttl = (self.window + micros(LATE)) / 1_000;
                if state::set(&name, &sightings.write(), Some(ttl)).is_err() {
                    self.forgotten += 1;
                }
                is_copy
            }
            Memory::Instance(recent) => {
                let before = recent.get(&key).map(|(sightings, _)| *sightings);
                let (sightings, is_copy) = seen(before, self.across, agent, at, self.window);
                if let Some((_, since)) = recent.insert(key, (sightings, now))
                    && now.saturating_sub(since) < self.window
                {
                    self.forgotten += 1;
                }
                is_copy
            }
        }
    }
}

/// What is known of a packet after one more sighting, and whether that is a copy.
fn seen(before: Option<Sightings>, across: Across, agent: u32, at: u64, window: u64) -> (Sightings, bool) {
    match before.filter(|sightings| sightings.at.abs_diff(at) <= window) {
        None => (Sightings::first(agent, at), false),
        Some(mut sightings) => {
            let is_copy = sightings.again(agent, at);
            (sightings, is_copy || across == Across::Any)
        }
    }
}

/// A number for an agent id and an address. Ports change when agents connect again.
fn sender(agent_id: u32, peer: Endpoint) -> u32 {
    let bits = match peer.address {
        IpAddress::None => 0,
        IpAddress::Ipv4(bits) => u128::from(bits),
        IpAddress::Ipv6((high, low)) => u128::from(high) << 64 | u128::from(low),
    };
    let mut octets = [0; 20];
    let (id, address) = octets.split_at_mut(4);
    id.copy_from_slice(&agent_id.to_be_bytes());
    address.copy_from_slice(&bits.to_be_bytes());
    u32::try_from(xxh3_64(&octets) >> 32).unwrap_or(0)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

hepgate_kit::packet_filter!(Dedup);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn only_what_was_captured_within_the_window_is_a_copy() {
        let before = Some(Sightings::first(1, 1_000_000));
        for (at, is_copy) in
            [(1_000_000, true), (1_500_000, true), (1_500_001, false), (500_000, true), (499_999, false)]
        {
            assert_eq!(seen(before, Across::Agents, 2, at, 500_000).1, is_copy, "{at}");
        }
        assert!(!seen(before, Across::Agents, 1, 1_000_000, 500_000).1, "the same agent");
        assert!(seen(before, Across::Any, 1, 1_000_000, 500_000).1, "if it is told so");
        assert!(!seen(None, Across::Any, 1, 0, 500_000).1);
    }

    #[test]
    fn senders_differ_by_agent_and_by_address_but_not_by_port() {
        let peer = |address, port| Endpoint { address: IpAddress::Ipv4(address), port };
        assert_eq!(sender(1, peer(1, 1)), sender(1, peer(1, 2)));
        assert_ne!(sender(1, peer(1, 1)), sender(1, peer(2, 1)));
        assert_ne!(sender(1, peer(1, 1)), sender(2, peer(1, 1)));
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_a_sentence() {
        for (key, value, error) in [
            (
                "windw",
                "1s",
                "config key \"windw\" is unknown; known here: window, across, action, payload_types, memory, entries_max",
            ),
            ("window", "0ms", "config key \"window\": 0ns is not 1ms to 60s"),
            ("window", "2m", "config key \"window\": 120s is not 1ms to 60s"),
            ("across", "all", "config key \"across\": \"all\" is not agents, senders or any"),
            ("action", "pass", "config key \"action\": \"pass\" is not drop, skip or mark"),
            ("payload_types", "256", "config key \"payload_types\": \"256\" is not a payload type (0 to 255)"),
            ("memory", "own", "config key \"memory\": \"own\" is not shared or instance"),
            ("entries_max", "0", "config key \"entries_max\": 0 is not 1 to 1000000"),
        ] {
            assert_eq!(Dedup::new(Config::of([(key, value)])).err().unwrap(), error);
        }
    }
}
