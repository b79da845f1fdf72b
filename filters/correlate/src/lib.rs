//! Brings the legs of a call together whose later ones say in a header which was the one before.

mod legs;

use std::time::Duration;

use hepgate_kit::recent::Recent;
use hepgate_kit::{Collector, Config, Counter, Level, PacketFilter, PacketView, SendError, Verdict, log};

use legs::{Legs, Memory, Names, is_id};

/// Entries take about 200 octets: these fit the memory that a filter has unless it is told otherwise.
const ENTRIES: usize = 16_384;
const ENTRIES_MAX: usize = 1_000_000;
const REMEMBER_MIN: Duration = Duration::from_secs(1);
const REMEMBER_MAX: Duration = Duration::from_secs(7 * 86_400);

struct Correlate {
    headers: Vec<Names>,
    sets: bool,
    sends: Option<Pairs>,
    legs: Legs,
    joined: Counter,
    forgotten_early: Counter,
    /// Of the call at hand.
    packets_joined: u64,
    /// Whether the log says that memory is too small.
    has_complained: bool,
}

/// Where pairs are sent.
struct Pairs {
    collector: Collector,
    /// What the id of the leg before is called, and that of the leg at hand.
    types: [String; 2],
    sent: Counter,
    not_sent: Counter,
}

impl PacketFilter for Correlate {
    const PREFIX_OCTETS: u32 = 2_048;

    fn new(mut config: Config) -> Result<Self, String> {
        let headers = config.list("headers", "a header, or a header and a parameter of it");
        let mode = config.choose("mode", &[("set", (true, false)), ("send", (false, true)), ("both", (true, true))]);
        let collector = config.take("collector");
        let types: Result<Vec<String>, String> = config.list("types", "a name");
        let remember = config.duration("remember", Duration::from_secs(3_600));
        let is_shared = config.choose("memory", &[("shared", true), ("instance", false)]);
        let entries_max: Result<usize, String> = config.parse("entries_max", ENTRIES, "a number (1 to 1000000)");
        config.finish()?;
        let mut headers: Vec<Names> = headers?;
        if headers.is_empty() {
            headers.extend("X-CID".parse::<Names>());
        }
        let (sets, sends) = mode?;
        let mut types = types?;
        if types.is_empty() {
            types = vec!["sip".to_owned(), "sip-leg".to_owned()];
        }
        let types = <[String; 2]>::try_from(types).ok().filter(|[first, second]| first != second);
        let types = types.ok_or("config key \"types\": two different names are wanted, as \"sip, sip-leg\"")?;
        let remember = remember?;
        if !(REMEMBER_MIN..=REMEMBER_MAX).contains(&remember) {
            return Err(format!("config key \"remember\": {remember:?} is not 1s to 7d"));
        }
        let memory = match (is_shared?, entries_max?) {
            (true, _) => Memory::Shared,
            (false, entries_max @ 1..=ENTRIES_MAX) => Memory::Instance(Recent::new(entries_max)),
            (false, other) => return Err(format!("config key \"entries_max\": {other} is not 1 to {ENTRIES_MAX}")),
        };
        Ok(Self {
            headers,
            sets,
            sends: if sends { Some(Pairs::open(collector, types)?) } else { None },
            legs: Legs::new(memory, remember),
            joined: declare("joined", "Packets that go by the id of another leg", &[])?,
            forgotten_early: declare("forgotten_early", "Legs that were not remembered as long as they should", &[])?,
            packets_joined: 0,
            has_complained: false,
        })
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        let is_sip = packet.is_sip();
        // What is no SIP, but of a call, says so in its correlation id: RTCP, for example.
        let own = if is_sip { packet.header("Call-ID") } else { packet.correlation_id().map(Into::into) };
        let Some(own) = own.filter(|own| is_id(own)) else { return Verdict::Pass };
        let named = if is_sip { self.named(packet) } else { None };
        let now = packet.now();
        let Some(found) = self.legs.find(&own, named.as_deref(), now) else { return Verdict::Pass };
        if let Some(other) = named.filter(|_| found.is_new) {
            let is_told = self.sends.as_ref().is_none_or(|pairs| pairs.send(&other, &own));
            // What could not be told is new again with the next packet that names it.
            self.legs.set(&own, other, now, is_told);
        }
        if self.sets {
            match packet.set_correlation_id(&found.id) {
                Ok(()) => self.packets_joined += 1,
                Err(error) => log(Level::Warn, &format!("a packet keeps its correlation id: {error}")),
            }
        }
        Verdict::Pass
    }

    fn after_batch(&mut self) {
        if self.legs.forgotten_early > 0 && !std::mem::replace(&mut self.has_complained, true) {
            log(Level::Warn, &format!("legs are forgotten before their time: see {}", self.legs.limits()));
        }
        let counts = [
            (&self.joined, std::mem::take(&mut self.packets_joined)),
            (&self.forgotten_early, std::mem::take(&mut self.legs.forgotten_early)),
        ];
        for (counter, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            // An error, such as a quota of series, is no reason to fail.
            let _ = counter.add(&[], count);
        }
    }
}

impl Correlate {
    /// The id that the first of the headers names that is there.
    fn named(&self, packet: &PacketView<'_>) -> Option<Vec<u8>> {
        self.headers.iter().find_map(|names| {
            let value = packet.header(&names.header)?;
            names.id(&value).map(<[u8]>::to_vec)
        })
    }
}

impl Pairs {
    fn open(collector: Option<String>, types: [String; 2]) -> Result<Self, String> {
        let name = collector.ok_or("config key \"collector\" is missing: where pairs are sent")?;
        let collector = Collector::open(&name)
            .map_err(|_| format!("config key \"collector\": {name:?} is not among this filter's collectors = [...]"))?;
        Ok(Self {
            collector,
            types,
            sent: declare("sent", "Pairs of legs that were sent", &[])?,
            not_sent: declare("not_sent", "Pairs of legs that could not be sent", &["reason"])?,
        })
    }

    /// Sends a pair of ids. Whether that is done, or cannot be done at all.
    fn send(&self, other: &[u8], own: &[u8]) -> bool {
        let (Ok(other), Ok(own)) = (std::str::from_utf8(other), std::str::from_utf8(own)) else {
            self.complain("not-text");
            return true;
        };
        let [first, second] = &self.types;
        match self.collector.correlate(first, other, second, own) {
            Ok(()) => {
                let _ = self.sent.add(&[], 1);
                true
            }
            Err(error) => {
                self.complain(match error {
                    SendError::Quota => "quota",
                    SendError::PostponedFull => "postponed-full",
                    _ => "other",
                });
                false
            }
        }
    }

    fn complain(&self, reason: &str) {
        let _ = self.not_sent.add(&[reason.to_owned()], 1);
    }
}

fn declare(name: &str, help: &str, labels: &[&str]) -> Result<Counter, String> {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    Counter::declare(name, help, &labels).map_err(|error| format!("no metric {name}: {error}"))
}

hepgate_kit::packet_filter!(Correlate);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn wrong_keys_and_values_are_refused_with_a_sentence() {
        for (values, error) in [
            (
                &[("header", "X-CID")][..],
                "config key \"header\" is unknown; known here: headers, mode, collector, types, remember, memory, \
                 entries_max",
            ),
            (
                &[("headers", "X-CID, X:Y")],
                "config key \"headers\": \"X:Y\" is not a header, or a header and a parameter of it",
            ),
            (&[("mode", "x")], "config key \"mode\": \"x\" is not set, send or both"),
            (&[("mode", "send")], "config key \"collector\" is missing: where pairs are sent"),
            (&[("types", "sip, sip")], "config key \"types\": two different names are wanted, as \"sip, sip-leg\""),
            (&[("remember", "8d")], "config key \"remember\": 691200s is not 1s to 7d"),
            (&[("memory", "instance"), ("entries_max", "0")], "config key \"entries_max\": 0 is not 1 to 1000000"),
        ] {
            assert_eq!(Correlate::new(Config::of(values.iter().copied())).err().unwrap(), error);
        }
    }
}
