//! Chooses collectors by agent, payload type, network, method and number; what no rule names goes the tenant's way.

mod rules;

use hepgate_kit::{Collector, Config, Counter, Level, PacketFilter, PacketView, SKIPPED, SendError, Verdict, log};

use rules::{Facts, Rules, address};

/// Octets of each payload that are read if a rule asks for what stands in SIP: the headers of most messages.
const PREFIX: u32 = 2_048;

struct RouteBy {
    rules: Rules,
    /// In the order of the rules' collectors.
    ways: Vec<Way>,
    /// What a collector does not take goes to the tenant's.
    passes_what_is_not_taken: bool,
    routed: Counter,
    not_taken: Counter,
}

/// A collector, and what was sent there in the call at hand.
struct Way {
    name: String,
    collector: Collector,
    routed: u64,
    /// Packets that it did not take since the instance began.
    not_taken: u64,
}

impl PacketFilter for RouteBy {
    fn new(mut config: Config) -> Result<Self, String> {
        let rules = Rules::read(&config.numbered("rule_", "rule_N"));
        let passes_what_is_not_taken = config.choose("on_full", &[("pass", true), ("drop", false)]);
        config.finish()?;
        let rules = rules?;
        let open = |name: &String| {
            let collector = Collector::open(name)
                .map_err(|_| format!("a rule names {name:?}, which is not among this filter's collectors = [...]"))?;
            Ok(Way { name: name.clone(), collector, routed: 0, not_taken: 0 })
        };
        let ways = rules.collectors.iter().map(open).collect::<Result<_, String>>()?;
        let declare = |name: &str, help: &str, labels: &[&str]| {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            Counter::declare(name, help, &labels).map_err(|error| format!("no metric {name}: {error}"))
        };
        Ok(Self {
            rules,
            ways,
            passes_what_is_not_taken: passes_what_is_not_taken?,
            routed: declare("routed", "Packets that a rule sent to a collector", &["collector"])?,
            not_taken: declare("not_taken", "Packets that a collector did not take", &["collector", "reason"])?,
        })
    }

    fn prefix_octets(&self) -> u32 {
        if self.rules.want_methods || self.rules.want_numbers { PREFIX } else { 0 }
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        let scalars = packet.scalars();
        // An earlier filter wants it to go to no collector.
        if scalars.marks & SKIPPED != 0 {
            return Verdict::Pass;
        }
        let method = if self.rules.want_methods { packet.method() } else { None };
        let header = |name: &str| if self.rules.want_numbers { packet.header(name) } else { None };
        let (from, to) = (header("From"), header("To"));
        let facts = Facts {
            agent_id: scalars.agent_id,
            payload_type: scalars.payload_type,
            source: address(scalars.source),
            destination: address(scalars.destination),
            method: method.as_deref(),
            from: from.as_deref(),
            to: to.as_deref(),
        };
        let Some(rule) = self.rules.find(&facts) else { return Verdict::Pass };
        let (mut taken, mut not_taken) = (0, 0);
        for place in &rule.collectors {
            let Some(way) = self.ways.get_mut(*place) else { continue };
            match packet.relay(&way.collector) {
                Ok(()) => {
                    taken += 1;
                    way.routed += 1;
                }
                Err(error) => {
                    not_taken += 1;
                    way.complain(&error, &self.not_taken);
                }
            }
        }
        verdict(rule.passes, taken, not_taken, self.passes_what_is_not_taken)
    }

    fn after_batch(&mut self) {
        for way in self.ways.iter_mut().filter(|way| way.routed > 0) {
            // An error, such as a quota of series, is no reason to lose packets.
            let _ = self.routed.add(std::slice::from_ref(&way.name), std::mem::take(&mut way.routed));
        }
    }
}

impl Way {
    fn complain(&mut self, error: &SendError, counter: &Counter) {
        let reason = match error {
            SendError::Quota => "quota",
            SendError::TooLong(_) => "too-long",
            SendError::PostponedFull => "postponed-full",
            _ => "other",
        };
        let _ = counter.add(&[self.name.clone(), reason.to_owned()], 1);
        self.not_taken += 1;
        // At 1, 2, 4, 8 and so on: a collector that is away for long does not fill the log.
        if self.not_taken.is_power_of_two() {
            let (name, so_far) = (&self.name, self.not_taken);
            log(Level::Warn, &format!("collector {name} does not take a packet ({reason}), {so_far} so far"));
        }
    }
}

/// What becomes of a packet that so many collectors have taken, and so many not.
const fn verdict(passes: bool, taken: usize, not_taken: usize, passes_what_is_not_taken: bool) -> Verdict {
    if passes || not_taken > 0 && passes_what_is_not_taken {
        Verdict::Pass
    } else if taken > 0 {
        Verdict::Skip
    } else {
        Verdict::Drop
    }
}

hepgate_kit::packet_filter!(RouteBy);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn what_a_collector_did_not_take_goes_the_tenants_way_or_is_dropped() {
        for (passes, taken, not_taken, on_full, expected) in [
            (false, 2, 0, true, Verdict::Skip),
            (true, 2, 0, true, Verdict::Pass),
            (true, 0, 0, false, Verdict::Pass),
            (false, 1, 1, true, Verdict::Pass),
            (false, 1, 1, false, Verdict::Skip),
            (false, 0, 1, true, Verdict::Pass),
            (false, 0, 1, false, Verdict::Drop),
        ] {
            assert_eq!(verdict(passes, taken, not_taken, on_full), expected, "{passes} {taken} {not_taken} {on_full}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_before_all_else() {
        let error = RouteBy::new(Config::of([("rule", "x"), ("on_full", "y")])).err().unwrap();
        assert_eq!(error, "config key \"rule\" is unknown; known here: rule_N, on_full");
        let error = RouteBy::new(Config::of([("rule_1", "a")])).err().unwrap();
        assert_eq!(error, "config key \"rule_1\": \"a\" has no \"->\" before the collectors");
    }
}
