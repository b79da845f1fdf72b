//! Finds SIP of known agents by its User-Agent, and gives packets without a correlation id one:
//! their Call-ID.

use hepgate_kit::{
    ChunkId, Config, Counter, Level, PacketFilter, PacketView, SIP, Verdict, log, subscription,
};

/// Where a scanner's packet is marked: the agent's name.
const AGENT_NAME: ChunkId = ChunkId {
    vendor: 0,
    kind: 0x13,
};

struct Scanners {
    settings: Settings,
    found: Counter,
    /// Which agents were found before, so that each is logged once.
    seen: Vec<bool>,
}

/// What the operator says in the filter's `config` table.
#[derive(Debug)]
struct Settings {
    /// Beginnings of the User-Agent.
    agents: Vec<String>,
    action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Drop,
    Skip,
    Mark,
}

impl PacketFilter for Scanners {
    // The payloads of all packets of a call come over together, of each so many octets: enough for
    // the headers of most messages. In a longer one `packet.header` asks the host when it must.
    const PREFIX_OCTETS: u32 = 2_048;

    fn new(config: Config) -> Result<Self, String> {
        let settings = Settings::read(config)?;
        // Packets that are not SIP then pass by without a call.
        subscription::payload_types(&[SIP]).map_err(|_| "cannot subscribe")?;
        let found = Counter::declare("found", "SIP of scanning programs", &["agent".to_owned()])
            .map_err(|_| "cannot declare a metric")?;
        let seen = vec![false; settings.agents.len()];
        Ok(Self {
            settings,
            found,
            seen,
        })
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        let agent = packet
            .header("User-Agent")
            .or_else(|| packet.header("Server"));
        if let Some(place) = agent.and_then(|agent| self.settings.find(&agent)) {
            self.note(place, packet.scalars().agent_id);
            match self.settings.action {
                Action::Drop => return Verdict::Drop,
                Action::Skip => return Verdict::Skip,
                Action::Mark => {
                    if packet.set_chunk(AGENT_NAME, b"scanner").is_err() {
                        log(Level::Warn, "cannot mark a packet");
                    }
                }
            }
        }
        if packet.correlation_id().is_none()
            && let Some(call_id) = packet
                .header("Call-ID")
                .filter(|call_id| !call_id.is_empty())
            && packet.set_correlation_id(&call_id).is_err()
        {
            log(Level::Warn, "cannot set a correlation id");
        }
        Verdict::Pass
    }
}

impl Scanners {
    fn note(&mut self, place: usize, agent_id: u32) {
        let (Some(agent), Some(seen)) = (self.settings.agents.get(place), self.seen.get_mut(place))
        else {
            return;
        };
        // An error, such as a quota of metrics, is no reason to fail.
        let _ = self.found.add(std::slice::from_ref(agent), 1);
        if !std::mem::replace(seen, true) {
            log(Level::Info, &format!("found {agent}, agent id {agent_id}"));
        }
    }
}

impl Settings {
    fn read(mut config: Config) -> Result<Self, String> {
        let agents = config.take("agents");
        let agents = agents
            .as_deref()
            .unwrap_or("friendly-scanner, sipvicious, sipcli, pplsip");
        let agents = agents
            .split(',')
            .map(str::trim)
            .filter(|agent| !agent.is_empty())
            .map(str::to_owned)
            .collect();
        let action = config.take("action");
        // A key that nobody took is misspelt: better to say so than to run without it.
        config.finish()?;
        let action = match action.as_deref() {
            None | Some("drop") => Action::Drop,
            Some("skip") => Action::Skip,
            Some("mark") => Action::Mark,
            Some(other) => {
                return Err(format!(
                    "config key \"action\": {other:?} is not drop, skip or mark"
                ));
            }
        };
        Ok(Self { agents, action })
    }

    /// The place of the first prefix that begins a User-Agent, whatever the case.
    fn find(&self, agent: &[u8]) -> Option<usize> {
        let begins = |prefix: &String| {
            agent
                .get(..prefix.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        self.agents.iter().position(begins)
    }
}

hepgate_kit::packet_filter!(Scanners);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(Config::of(values.iter().copied()))
    }

    #[test]
    fn the_first_prefix_that_fits_decides_whatever_the_case() {
        let settings = read(&[("agents", " SIPp, sip ,,")]).unwrap();
        assert_eq!(settings.agents, ["SIPp", "sip"]);
        assert_eq!(settings.find(b"sipP 3.6"), Some(0));
        assert_eq!(settings.find(b"SIPvicious"), Some(1));
        assert_eq!(settings.find(b"si"), None);
        assert_eq!(settings.find(b"\xff\xff\xff\xff\xff"), None);
    }

    #[test]
    fn without_keys_known_agents_are_dropped() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.action, Action::Drop);
        assert_eq!(settings.find(b"friendly-scanner"), Some(0));
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_a_sentence() {
        let error = read(&[("action", "x"), ("agent", "y")]).unwrap_err();
        assert_eq!(
            error,
            "config key \"agent\" is unknown; known here: agents, action"
        );
        let error = read(&[("action", "x")]).unwrap_err();
        assert_eq!(
            error,
            "config key \"action\": \"x\" is not drop, skip or mark"
        );
    }
}
