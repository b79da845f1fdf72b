//! Hides who talks and what they write: user parts of URIs, display names, headers that nobody vouches for, bodies.
//!
//! Everything is overwritten where it stands, octet for octet, so every length in the packet stays true. What cannot be
//! read (compressed, ambiguous, not SIP) is dropped. What is hidden and what is kept is in [`sip`]; how, in [`hide`].

mod body;
mod hide;
mod sip;
mod uri;

use hepgate_filter::{AMBIGUOUS, Batch, COMPRESSED, Config, Filter, Level, NO_PAYLOAD, SIP, Scalars, Verdict, log};

use hide::Hider;

/// Payloads that are read in one host call.
const WHOLE: u32 = u32::MAX;
/// RTCP as JSON: reports of quality, with addresses and no users.
const RTCP_JSON: u8 = 5;

struct Redact {
    hider: Hider,
    keep_bodies: bool,
    /// Payload types beside SIP that pass as they are.
    pass_types: Vec<u8>,
}

impl Filter for Redact {
    fn new(mut config: Config) -> Result<Self, String> {
        let hider = match config.take("key") {
            None => Hider::fill(),
            Some(key) => Hider::pseudonyms(key.trim().as_bytes())?,
        };
        let keep_bodies = match config.take("bodies").as_deref() {
            None | Some("hide") => false,
            Some("keep") => true,
            Some(other) => return Err(format!("config key \"bodies\": {other:?} is not \"hide\" or \"keep\"")),
        };
        let pass_types = match config.take("pass_types") {
            None => vec![RTCP_JSON],
            Some(list) => {
                Config::of([("pass_types", list.as_str())]).list("pass_types", "a payload type (0 to 255)")?
            }
        };
        config.finish()?;
        Ok(Self { hider, keep_bodies, pass_types })
    }

    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        let packets = batch.scalars();
        let payloads = hepgate_filter::Payloads::read(batch, &packets, WHOLE);
        let verdict = |(place, packet): (usize, &Scalars)| {
            if packet.marks & NO_PAYLOAD != 0 && packet.marks & AMBIGUOUS == 0 {
                return Verdict::Pass;
            }
            if packet.marks & (AMBIGUOUS | COMPRESSED) != 0 {
                return Verdict::Drop;
            }
            if packet.payload_type != SIP {
                return if self.pass_types.contains(&packet.payload_type) { Verdict::Pass } else { Verdict::Drop };
            }
            let payload = payloads.of(place);
            let Some(redacted) = self.redacted(payload) else { return Verdict::Drop };
            if redacted == payload {
                return Verdict::Pass;
            }
            let index = u32::try_from(place).unwrap_or(u32::MAX);
            match batch.set_payload(index, &redacted) {
                Ok(()) => Verdict::Pass,
                Err(error) => {
                    log(Level::Error, &format!("a packet cannot be changed and is dropped: {error}"));
                    Verdict::Drop
                }
            }
        };
        packets.iter().enumerate().map(verdict).collect()
    }
}

impl Redact {
    /// The payload with everything hidden, of the same length; `None` if it is not SIP.
    fn redacted(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut octets = payload.to_vec();
        sip::redact(&mut octets, &self.hider, self.keep_bodies).then_some(octets)
    }
}

hepgate_filter::filter!(Redact);

#[cfg(test)]
mod tests;
