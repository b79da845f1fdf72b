//! The packets: as in the field, each with a number in its last four octets, which are the end of its payload.
//!
//! There the number stays in place whatever the version, and when a packet is packed anew in another one.

use bytes::Bytes;
use hepgate::wire::{Pack, Version};

use crate::common::{PACKET_OCTETS, invite};

/// Octets of a number.
const NUMBER_OCTETS: usize = 4;
/// Octets of a slot that packets of the field fit into: the gateway's own.
const SLOT_OCTETS: usize = 2_048;
/// ... and any datagram.
const LARGE_SLOT_OCTETS: usize = 65_536;

/// Packets that are sent in turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packets {
    pub(crate) name: String,
    pub(crate) templates: Vec<Bytes>,
}

impl Packets {
    /// The one of 738 octets.
    pub(crate) fn invite() -> Self {
        let name = format!("{PACKET_OCTETS}-octet SIP INVITE in HEP3");
        Self { name, templates: vec![sized(Version::Hep3, PACKET_OCTETS, 2_001)] }
    }

    /// 25 sizes from 200 to 1400 octets, small beside large; as many of each version, or HEP3 alone where a stream is.
    pub(crate) fn mix(versions: &[Version]) -> Self {
        let sizes = (0..25 * versions.len()).map(|n| 200 + 50 * (7 * n % 25));
        let templates = sizes.zip(versions.iter().cycle()).map(|(octets, version)| sized(*version, octets, 2_001));
        let names: Vec<String> = versions.iter().map(|version| format!("HEP{}", version.number())).collect();
        Self { name: format!("SIP in {}, 200 to 1400 octets", names.join(", ")), templates: templates.collect() }
    }

    /// The 738-octet one, from these agents in turn.
    pub(crate) fn of_agents(agents: impl Iterator<Item = u32>) -> Self {
        let templates: Vec<Bytes> = agents.map(|agent| sized(Version::Hep3, PACKET_OCTETS, agent)).collect();
        Self { name: format!("{PACKET_OCTETS} octets from {} agents", templates.len()), templates }
    }

    /// With a payload of so many octets.
    pub(crate) fn of_payload(octets: usize) -> Self {
        let without = sized(Version::Hep3, PACKET_OCTETS, 2_001).len() - payload_octets(Version::Hep3, PACKET_OCTETS);
        Self {
            name: format!("payload of {octets} octets"),
            templates: vec![sized(Version::Hep3, without + octets, 2_001)],
        }
    }

    pub(crate) fn of_number(&self, number: usize) -> &Bytes {
        &self.templates[number % self.templates.len()]
    }

    /// Octets of a slot that every packet fits into.
    pub(crate) fn slot_octets(&self) -> usize {
        let longest = self.templates.iter().map(Bytes::len).max().unwrap();
        if longest <= SLOT_OCTETS { SLOT_OCTETS } else { LARGE_SLOT_OCTETS }
    }

    /// Octets of the first so many packets.
    pub(crate) fn octets(&self, count: usize) -> usize {
        let (rounds, rest) = (count / self.templates.len(), count % self.templates.len());
        let of = |templates: &[Bytes]| templates.iter().map(Bytes::len).sum::<usize>();
        rounds * of(&self.templates) + of(&self.templates[..rest])
    }
}

pub(crate) fn set_number(packet: &mut [u8], number: usize) {
    let at = packet.len() - NUMBER_OCTETS;
    packet[at..].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
}

pub(crate) fn number(packet: &[u8]) -> usize {
    let (_, number) = packet.split_last_chunk::<NUMBER_OCTETS>().expect("a number");
    u32::from_be_bytes(*number) as usize
}

fn payload_octets(version: Version, octets: usize) -> usize {
    let without = Pack { payload: Some(Bytes::from_static(b"-")), ..invite(0) }.encode(version).unwrap().len() - 1;
    octets - without
}

/// An INVITE of so many octets altogether: cut short, as captures with a snap length are, or with a long attribute.
fn sized(version: Version, octets: usize, agent_id: u32) -> Bytes {
    let room = payload_octets(version, octets);
    let mut payload = invite(0).payload.unwrap().to_vec();
    payload.truncate(room);
    payload.resize(room, b'-');
    let pack = Pack { payload: Some(payload.into()), agent_id, ..invite(0) };
    let packet = pack.encode(version).unwrap();
    assert_eq!(packet.len(), octets);
    packet
}
