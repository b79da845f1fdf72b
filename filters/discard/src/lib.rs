//! Drops packets by SIP method, payload type and agent id.

use hepgate_filter::{Batch, COMPRESSED, Config, Filter, Payloads, SIP, Scalars, Verdict};

/// Octets of each payload that are read at first: start line and CSeq stand there in most SIP.
const PREFIX: u32 = 1_024;
/// Octets of a payload in which a response's CSeq is looked for.
const HEADERS_MAX: u32 = 16_384;

/// What is dropped: a packet that any of these names.
struct Discard {
    methods: Vec<String>,
    payload_types: Vec<u8>,
    agents: Vec<u32>,
}

impl Filter for Discard {
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

    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        let packets = batch.scalars();
        let wanted = |packet: &Scalars| packet.payload_type == SIP && packet.marks & COMPRESSED == 0;
        let payloads =
            (!self.methods.is_empty() && packets.iter().any(wanted)).then(|| Payloads::read(batch, &packets, PREFIX));
        let verdict = |(place, packet): (usize, &Scalars)| {
            if self.payload_types.contains(&packet.payload_type) || self.agents.contains(&packet.agent_id) {
                return Verdict::Drop;
            }
            let Some(payloads) = payloads.as_ref().filter(|_| wanted(packet)) else { return Verdict::Pass };
            let mut sip = method(payloads.of(place)).map(|method| self.drops(method));
            if sip.is_none() && packet.payload_length > PREFIX && is_response(payloads.of(place)) {
                let index = u32::try_from(place).unwrap_or(u32::MAX);
                sip = method(&batch.payload(index, 0, HEADERS_MAX)).map(|method| self.drops(method));
            }
            if sip == Some(true) { Verdict::Drop } else { Verdict::Pass }
        };
        packets.iter().enumerate().map(verdict).collect()
    }
}

impl Discard {
    /// Methods are case-sensitive (RFC 3261, 7.1).
    fn drops(&self, method: &[u8]) -> bool {
        self.methods.iter().any(|wanted| wanted.as_bytes() == method)
    }
}

/// The method of a request, or of the request that a response (by its CSeq) answers.
fn method(sip: &[u8]) -> Option<&[u8]> {
    // Empty lines before the message are allowed.
    let start = sip.iter().position(|octet| !matches!(octet, b'\r' | b'\n'))?;
    let sip = sip.get(start..)?;
    if is_response(sip) {
        return cseq_method(sip);
    }
    let end = sip.iter().position(|octet| *octet == b' ')?;
    sip.get(..end).filter(|method| !method.is_empty() && method.iter().copied().all(is_token))
}

fn is_response(sip: &[u8]) -> bool {
    sip.get(..8).is_some_and(|version| version.eq_ignore_ascii_case(b"SIP/2.0 "))
}

fn cseq_method(sip: &[u8]) -> Option<&[u8]> {
    let lines = sip.split(|octet| *octet == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    for line in lines {
        let Some(colon) = line.iter().position(|octet| *octet == b':') else { continue };
        let (name, value) = line.split_at_checked(colon)?;
        if name.trim_ascii().eq_ignore_ascii_case(b"CSeq") {
            let value = value.get(1..)?.trim_ascii();
            let method = value.rsplit(u8::is_ascii_whitespace).next()?;
            return (method.len() < value.len()).then_some(method);
        }
    }
    None
}

/// What a SIP token is made of (RFC 3261, 25.1).
const fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(octet, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

hepgate_filter::filter!(Discard);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn the_method_is_that_of_the_request_or_of_the_one_answered() {
        for (sip, expected) in [
            (&b"OPTIONS sip:a SIP/2.0\r\n"[..], Some(&b"OPTIONS"[..])),
            (b"\r\n\r\nINVITE sip:a SIP/2.0\r\n", Some(b"INVITE")),
            (b"SIP/2.0 200 OK\r\nVia: x\r\nCSeq: 1 OPTIONS\r\n\r\n", Some(b"OPTIONS")),
            (b"SIP/2.0 200 OK\r\ncseq  :  1   BYE  \r\n\r\n", Some(b"BYE")),
            (b"sip/2.0 200 OK\nCSeq: 1\tBYE\n\n", Some(b"BYE")),
            (b"SIP/2.0 200 OK\r\n\r\nCSeq: 1 OPTIONS\r\n", None),
            (b"SIP/2.0 200 OK\r\nCSeq: 1\r\n\r\n", None),
            (b"SIP/2.0 200 OK\r\nVia: cut he", None),
            (b"\x16\x03\x01 binary", None),
            (b" OPTIONS", None),
            (b"OPTIONS", None),
            (b"", None),
            (b"\r\n\r\n", None),
        ] {
            assert_eq!(method(sip), expected, "{}", sip.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_method_is_refused_with_key_and_value() {
        let error = Discard::new(Config::of([("methods", "OPTIONS, IN VITE")])).err().unwrap();
        assert_eq!(error, "config key \"methods\": \"IN VITE\" is not a SIP method");
        let error = Discard::new(Config::of([("agents", "-1")])).err().unwrap();
        assert_eq!(error, "config key \"agents\": \"-1\" is not an agent id (0 to 4294967295)");
    }
}
