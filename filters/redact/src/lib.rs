//! Hides who talks and what they write: user parts of URIs, display names, headers that nobody vouches for, bodies; in
//! JSON, what no member's name vouches for; beside the payload, chunks that speak of people.
//!
//! Everything is overwritten where it stands, octet for octet, so every length in the packet stays true. What cannot be
//! read (compressed, ambiguous, not what it says it is) is dropped. What is hidden and what is kept is in [`sip`],
//! [`members`] and [`chunks`]; how, in [`hide`].

mod body;
mod chunks;
mod escapes;
mod headers;
mod hide;
mod ids;
mod json;
mod members;
mod settings;
mod sip;
mod uri;
mod value;

use hepgate_filter::{
    AMBIGUOUS, Batch, COMPRESSED, Config, Filter, Level, NO_PAYLOAD, SIP, Scalars, Verdict, log, scalars,
};

use members::Names;
use settings::Settings;

/// Payloads that are read in one host call.
const WHOLE: u32 = u32::MAX;
/// The first version that has chunks.
const WITH_CHUNKS: u8 = 3;

struct Redact(Settings);

/// What becomes of a payload.
#[derive(PartialEq, Eq, Debug)]
enum Masked {
    Untouched,
    Changed(Vec<u8>),
    /// It cannot be read.
    Dropped,
}

impl Filter for Redact {
    fn new(config: Config) -> Result<Self, String> {
        Settings::read(config).map(Self)
    }

    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        let packets = scalars(batch);
        let payloads = hepgate_filter::Payloads::read(batch, &packets, WHOLE);
        let places = packets.iter().enumerate();
        places.map(|(place, packet)| self.verdict(batch, place, packet, payloads.of(place))).collect()
    }
}

impl Redact {
    fn verdict(&self, batch: &Batch, place: usize, packet: &Scalars, payload: &[u8]) -> Verdict {
        let index = u32::try_from(place).unwrap_or(u32::MAX);
        let changed = match self.masked(packet, payload) {
            Masked::Dropped => return Verdict::Drop,
            Masked::Untouched => Ok(()),
            Masked::Changed(octets) => batch.set_payload(index, &octets),
        };
        let hidden = changed.and_then(|()| match packet.version {
            WITH_CHUNKS.. => self.0.chunks.hide(batch, index, &self.0.hider),
            _ => Ok(()),
        });
        match hidden {
            Ok(()) => Verdict::Pass,
            Err(error) => {
                log(Level::Error, &format!("a packet cannot be changed and is dropped: {error}"));
                Verdict::Drop
            }
        }
    }

    fn masked(&self, packet: &Scalars, payload: &[u8]) -> Masked {
        if packet.marks & (AMBIGUOUS | COMPRESSED) != 0 {
            return Masked::Dropped;
        }
        if packet.marks & NO_PAYLOAD != 0 {
            return Masked::Untouched;
        }
        let kind = packet.payload_type;
        if kind != SIP && self.0.pass_types.contains(&kind) {
            return Masked::Untouched;
        }
        match self.redacted(kind, payload) {
            None => Masked::Dropped,
            Some(redacted) if redacted == payload => Masked::Untouched,
            Some(redacted) => Masked::Changed(redacted),
        }
    }

    /// The payload with everything hidden, of the same length; `None` if it is not what its type says.
    fn redacted(&self, kind: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let Settings { hider, keep_bodies, json_types, members, .. } = &self.0;
        let mut octets = payload.to_vec();
        let is_read = if kind == SIP {
            sip::redact(&mut octets, hider, *keep_bodies)
        } else {
            json_types.contains(&kind) && json::hide(&mut octets, &Names::Payload(members), hider)
        };
        is_read.then_some(octets)
    }
}

hepgate_filter::filter!(Redact);

#[cfg(test)]
mod tests;
