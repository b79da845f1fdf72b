//! Drops packets by SIP method, payload type and agent id.

use hepgate_kit::{Config, PacketFilter, PacketView, Verdict};

/// Octets of each payload that are read, if methods are looked for: start line and CSeq stand there in most SIP.
const PREFIX: u32 = 1_024;

/// What is dropped: a packet that any of these names.
struct Discard {
    methods: Vec<String>,
    payload_types: Vec<u8>,
    agents: Vec<u32>,
}

impl PacketFilter for Discard {
    fn new(mut config: Config) -> Result<Self, String> {
        let methods: Vec<String> = config.list("methods", "a SIP method")?;
        if let Some(method) = methods.iter().find(|method| !method.bytes().all(is_token)) {
            return Err(format!("config key \"methods\": {method:?} is not a SIP method"));
        }
        let filter = Self {
            methods,
            payload_types: config.list("payload_types", "a payload type (0 to 255)")?,
            agents: config.list("agents", "an agent id (0 to 4294967295)")?,
        };
        config.finish()?;
        Ok(filter)
    }

    fn prefix_octets(&self) -> u32 {
        if self.methods.is_empty() { 0 } else { PREFIX }
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        let scalars = packet.scalars();
        let is_named = self.payload_types.contains(&scalars.payload_type)
            || self.agents.contains(&scalars.agent_id)
            || !self.methods.is_empty() && packet.method().is_some_and(|method| self.drops(&method));
        if is_named { Verdict::Drop } else { Verdict::Pass }
    }
}

impl Discard {
    /// Methods are case-sensitive (RFC 3261, 7.1).
    fn drops(&self, method: &[u8]) -> bool {
        self.methods.iter().any(|wanted| wanted.as_bytes() == method)
    }
}

/// What a SIP token is made of (RFC 3261, 25.1).
const fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(octet, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

hepgate_kit::packet_filter!(Discard);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn a_method_is_dropped_as_it_is_written() {
        let discard = Discard::new(Config::of([("methods", "OPTIONS, X-1")])).ok().unwrap();
        assert!(discard.drops(b"OPTIONS") && discard.drops(b"X-1"));
        assert!(!discard.drops(b"options") && !discard.drops(b"OPTION") && !discard.drops(b""));
        assert_eq!(discard.prefix_octets(), PREFIX);
        assert_eq!(Discard::new(Config::default()).ok().unwrap().prefix_octets(), 0, "nothing is read for nothing");
    }

    #[test]
    fn what_is_no_method_is_refused_with_key_and_value() {
        let error = Discard::new(Config::of([("methods", "OPTIONS, IN VITE")])).err().unwrap();
        assert_eq!(error, "config key \"methods\": \"IN VITE\" is not a SIP method");
        let error = Discard::new(Config::of([("agents", "-1")])).err().unwrap();
        assert_eq!(error, "config key \"agents\": \"-1\" is not an agent id (0 to 4294967295)");
    }
}
