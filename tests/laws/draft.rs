//! What `Draft` promises: a model of every edit, octet for octet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use hepgate::wire::{
    CapturedAt, ChunkId, DATAGRAM_OCTETS_MAX, Draft, EditError, GENERIC, HEADER_OCTETS, PACKET_OCTETS_MAX, Pack,
    PackError, Packet, Payload, PayloadType, Vendor, Version, decode,
};

use super::decode::{chunk_octets, ip_octets, sound};
use super::dice::Dice;

/// Edits of one packet: enough for them to meet each other's results.
const EDITS_MAX: usize = 8;

/// Any edits of any packet do what their model says or, if they are refused, nothing.
pub(crate) fn editing(octets: &[u8]) {
    let Ok(packet) = decode(Bytes::copy_from_slice(octets)) else { return };
    let mut draft = Draft::new(&packet);
    assert_eq!(draft.to_packet(), packet);
    let mut dice = Dice::new(octets);
    for _ in 0..EDITS_MAX {
        if dice.is_used_up() {
            break;
        }
        let edit = Edit::any(&mut dice, &draft.to_packet());
        edit_once(&mut draft, &edit);
    }
    assert_eq!(draft.to_packet(), draft.into_packet());
}

fn edit_once(draft: &mut Draft, edit: &Edit) {
    let before = draft.to_packet();
    let done = edit.apply(draft);
    let after = draft.to_packet();
    match (done, edit.model(&before)) {
        (Ok(()), Ok(expected)) => {
            assert_eq!(after.octets(), &expected, "{edit:?} of {before:?}");
            sound(&after);
            assert_eq!((draft.head(), draft.payload()), (after.head(), after.payload()));
            assert!(draft.chunks().eq(after.chunks()));
            let anew = decode(expected.into()).unwrap();
            assert_eq!(draft.inflated(), anew.inflated());
            assert_eq!(draft.readable_payload(), anew.readable_payload());
            assert_eq!(after.readable_payload(), anew.readable_payload());
        }
        (Err(error), Err(expected)) => {
            assert_eq!(error, expected, "{edit:?} of {before:?}");
            assert!(!error.to_string().is_empty());
            assert_eq!(after, before, "{edit:?} was refused and did something");
        }
        (done, expected) => panic!("{edit:?} of {before:?}: {done:?} instead of {expected:?}"),
    }
}

/// One edit with its arguments.
#[derive(Debug)]
enum Edit {
    Payload(Vec<u8>),
    Mask { offset: usize, length: usize, with: u8 },
    Set(ChunkId, Vec<u8>),
    Add(ChunkId, Vec<u8>),
    Remove(ChunkId),
    Flow(SocketAddr, SocketAddr),
    IpProtocol(u8),
    PayloadType(PayloadType),
    AgentId(u32),
    CapturedAt(CapturedAt),
}

impl Edit {
    fn any(dice: &mut Dice<'_>, packet: &Packet) -> Self {
        match dice.u8() % 10 {
            0 => {
                let length = dice.length();
                Self::Payload(dice.octets(length))
            }
            1 => {
                let octets = packet.payload().len();
                let offset = dice.below(octets + 2);
                Self::Mask { offset, length: any_mask_length(dice, octets), with: dice.u8() }
            }
            2 => {
                let id = any_id(dice, packet);
                Self::Set(id, any_body(dice, id))
            }
            3 => {
                let id = any_id(dice, packet);
                Self::Add(id, any_body(dice, id))
            }
            4 => Self::Remove(any_id(dice, packet)),
            5 => {
                let (source, destination) = any_flow(dice);
                Self::Flow(source, destination)
            }
            6 => Self::IpProtocol(dice.u8()),
            7 => Self::PayloadType(PayloadType(dice.u8() % 4)),
            8 => Self::AgentId(if dice.u8().is_multiple_of(2) { dice.u32() } else { u32::from(dice.u16()) }),
            _ => Self::CapturedAt(CapturedAt { seconds: dice.u32(), microseconds: dice.u32() }),
        }
    }

    fn apply(&self, draft: &mut Draft) -> Result<(), EditError> {
        match self {
            Self::Payload(payload) => draft.set_payload(payload),
            Self::Mask { offset, length, with } => draft.mask(&[(*offset, *length)], *with),
            Self::Set(id, body) => draft.set_chunk(*id, body),
            Self::Add(id, body) => draft.add_chunk(*id, body),
            Self::Remove(id) => {
                let there = draft.chunks().filter(|chunk| chunk.id == *id).count();
                draft.remove_chunk(*id).map(|gone| assert_eq!(gone, there))
            }
            Self::Flow(source, destination) => draft.set_flow(*source, *destination),
            Self::IpProtocol(ip_protocol) => draft.set_ip_protocol(*ip_protocol),
            Self::PayloadType(payload_type) => draft.set_payload_type(*payload_type),
            Self::AgentId(agent_id) => draft.set_agent_id(*agent_id),
            Self::CapturedAt(captured_at) => draft.set_captured_at(*captured_at),
        }
    }

    /// The octets that the edit should leave.
    fn model(&self, before: &Packet) -> Result<Vec<u8>, EditError> {
        self.refused_at_once(before)?;
        if let Some(octets) = self.model_of_legacy(before) {
            return octets;
        }
        let mut model = Model::of(before)?;
        match self {
            Self::Payload(payload) => model.set(ChunkId::PAYLOAD, payload),
            Self::Mask { offset, length, with } => {
                model.set(ChunkId::PAYLOAD, &masked(before.readable_payload(), *offset, *length, *with));
            }
            Self::Set(id, body) => model.set(*id, body),
            Self::Add(id, body) => model.chunks.push((*id, body.clone())),
            Self::Remove(id) => model.chunks.retain(|(other, _)| other != id),
            Self::Flow(source, destination) => {
                model.set(ChunkId::IP_FAMILY, &[if source.is_ipv6() { 10 } else { 2 }]);
                model.set_address(ChunkId::IPV4_SOURCE, ChunkId::IPV6_SOURCE, source.ip());
                model.set_address(ChunkId::IPV4_DESTINATION, ChunkId::IPV6_DESTINATION, destination.ip());
                model.set(ChunkId::SOURCE_PORT, &source.port().to_be_bytes());
                model.set(ChunkId::DESTINATION_PORT, &destination.port().to_be_bytes());
            }
            Self::IpProtocol(ip_protocol) => model.set(ChunkId::IP_PROTOCOL, &[*ip_protocol]),
            Self::PayloadType(payload_type) => model.set(ChunkId::PAYLOAD_TYPE, &[payload_type.0]),
            Self::AgentId(agent_id) => model.set(ChunkId::AGENT_ID, &agent_id.to_be_bytes()),
            Self::CapturedAt(captured_at) => {
                model.set(ChunkId::SECONDS, &captured_at.seconds.to_be_bytes());
                model.set(ChunkId::MICROSECONDS, &captured_at.microseconds.to_be_bytes());
            }
        }
        model.octets()
    }

    /// Refusals that do not depend on the packet's version.
    fn refused_at_once(&self, before: &Packet) -> Result<(), EditError> {
        match self {
            Self::Set(id, body) | Self::Add(id, body) => match id.width() {
                Some(needed) if needed != body.len() => {
                    Err(PackError::Width { id: *id, actual: body.len(), needed }.into())
                }
                _ => Ok(()),
            },
            Self::Mask { offset, length, .. } => match before.head().payload {
                Payload::Absent => Err(EditError::NoPayload),
                Payload::Compressed(_) if before.inflated().unwrap().is_err() => Err(EditError::NoPayload),
                _ => {
                    let octets = before.readable_payload().len();
                    let fits = offset.checked_add(*length).is_some_and(|end| end <= octets);
                    let refused = EditError::Range { offset: *offset, length: *length, octets };
                    if fits { Ok(()) } else { Err(refused) }
                }
            },
            Self::Flow(source, destination) if source.is_ipv4() != destination.is_ipv4() => {
                let (source_address, destination_address) = (source.ip(), destination.ip());
                Err(PackError::MixedFamilies { source_address, destination_address }.into())
            }
            _ => Ok(()),
        }
    }

    /// What the edit leaves of a HEP1 or HEP2 packet that can hold it.
    fn model_of_legacy(&self, before: &Packet) -> Option<Result<Vec<u8>, EditError>> {
        let version = before.head().version;
        if version == Version::Hep3 {
            return None;
        }
        let mut octets = before.octets().to_vec();
        let payload_at = octets.len() - before.payload().len();
        let time_at = if octets[2] == 10 { 40 } else { 16 };
        match self {
            Self::Payload(payload) => octets = [&octets[..payload_at], payload].concat(),
            Self::Mask { offset, length, with } => {
                let payload = masked(before.readable_payload(), *offset, *length, *with);
                octets = [&octets[..payload_at], &payload].concat();
            }
            Self::Flow(source, destination) => {
                let family = if source.is_ipv6() { 10 } else { 2 };
                if family != octets[2] {
                    octets[1] = if family == 10 { 40 } else { 16 };
                    octets[2] = family;
                }
                let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
                let addresses = [ip_octets(source.ip()), ip_octets(destination.ip())].concat();
                octets = [&octets[..4], &ports, &addresses, &octets[time_at..]].concat();
            }
            Self::IpProtocol(ip_protocol) => octets[3] = *ip_protocol,
            Self::PayloadType(PayloadType::SIP) | Self::Remove(_) => {}
            Self::AgentId(agent_id) if version == Version::Hep2 && *agent_id <= 0xffff => {
                octets[time_at + 8..time_at + 10].copy_from_slice(&agent_id.to_le_bytes()[..2]);
            }
            Self::CapturedAt(captured_at) if version == Version::Hep2 => {
                octets[time_at..time_at + 4].copy_from_slice(&captured_at.seconds.to_le_bytes());
                octets[time_at + 4..time_at + 8].copy_from_slice(&captured_at.microseconds.to_le_bytes());
            }
            _ => return None,
        }
        Some(match octets.len() {
            len if len > DATAGRAM_OCTETS_MAX && matches!(self, Self::Payload(_) | Self::Flow(..)) => {
                Err(PackError::TooLong { version, octets: len, octets_max: DATAGRAM_OCTETS_MAX }.into())
            }
            _ => Ok(octets),
        })
    }
}

/// A HEP3 packet as a list.
struct Model {
    magic: Vec<u8>,
    chunks: Vec<(ChunkId, Vec<u8>)>,
}

impl Model {
    /// The packet; HEP1 and HEP2 are packed as HEP3, of which `packing` has its own laws.
    fn of(packet: &Packet) -> Result<Self, PackError> {
        let head = packet.head();
        if head.version == Version::Hep3 {
            let chunks = packet.chunks().map(|chunk| (chunk.id, chunk.body.to_vec())).collect();
            return Ok(Self { magic: packet.octets()[..4].to_vec(), chunks });
        }
        let endpoint = |address: Option<IpAddr>, port| address.map(|address| SocketAddr::new(address, port));
        let pack = Pack {
            ip_protocol: head.ip_protocol,
            flow: endpoint(head.source, head.source_port).zip(endpoint(head.destination, head.destination_port)),
            captured_at: head.captured_at,
            payload_type: PayloadType::SIP,
            agent_id: head.agent_id,
            chunks: Vec::new(),
            payload: Some(Bytes::copy_from_slice(packet.payload())),
        };
        Self::of(&decode(pack.encode(Version::Hep3)?).unwrap())
    }

    /// One chunk of the kind, where the last one stood, or at the end.
    fn set(&mut self, id: ChunkId, body: &[u8]) {
        let new = (id, body.to_vec());
        match self.chunks.iter().rposition(|(other, _)| kind(*other) == kind(id)) {
            None => self.chunks.push(new),
            Some(last) => {
                self.chunks[last] = new;
                let mut at = 0..;
                self.chunks.retain(|(other, _)| at.next() == Some(last) || kind(*other) != kind(id));
            }
        }
    }

    fn set_address(&mut self, ipv4: ChunkId, ipv6: ChunkId, address: IpAddr) {
        self.set(if address.is_ipv4() { ipv4 } else { ipv6 }, &ip_octets(address));
    }

    fn octets(&self) -> Result<Vec<u8>, EditError> {
        let octets = HEADER_OCTETS + self.chunks.iter().map(|(_, body)| 6 + body.len()).sum::<usize>();
        let Ok(stated) = u16::try_from(octets) else {
            return Err(PackError::TooLong { version: Version::Hep3, octets, octets_max: PACKET_OCTETS_MAX }.into());
        };
        let chunks: Vec<_> = self.chunks.iter().map(|(id, body)| chunk_octets(*id, body)).collect();
        Ok([self.magic.clone(), stated.to_be_bytes().to_vec(), chunks.concat()].concat())
    }
}

/// Ids of one kind have the same number here.
fn kind(id: ChunkId) -> (u16, u16) {
    match (id.vendor.0, id.kind) {
        (0, 0x10) => (0, 0x0f),
        (0, 0x05) => (0, 0x03),
        (0, 0x06) => (0, 0x04),
        other => other,
    }
}

fn masked(payload: &[u8], offset: usize, length: usize, with: u8) -> Vec<u8> {
    [&payload[..offset], &vec![with; length], &payload[offset + length..]].concat()
}

fn any_mask_length(dice: &mut Dice<'_>, octets: usize) -> usize {
    match dice.u8() {
        // Offset and length together beyond what a usize holds.
        255 => usize::MAX,
        _ => dice.below(octets + 2),
    }
}

/// A chunk that the packet has, one of the specification, one that looks like it, or any.
fn any_id(dice: &mut Dice<'_>, packet: &Packet) -> ChunkId {
    let there: Vec<ChunkId> = packet.chunks().map(|chunk| chunk.id).collect();
    let known = GENERIC[dice.below(GENERIC.len())].id;
    match dice.u8() % 4 {
        0 => dice.pick(&there).unwrap_or(known),
        1 => ChunkId { vendor: Vendor(1 + dice.u16() % 8), kind: known.kind },
        2 => ChunkId { vendor: Vendor(dice.u16()), kind: dice.u16() },
        _ => known,
    }
}

/// A body for that chunk: of the right width, or of any.
fn any_body(dice: &mut Dice<'_>, id: ChunkId) -> Vec<u8> {
    let any = dice.length();
    let octets = match id.width() {
        Some(needed) if !dice.u8().is_multiple_of(8) => needed,
        _ => any,
    };
    dice.octets(octets)
}

/// Two endpoints, now and then of different families.
pub(super) fn any_flow(dice: &mut Dice<'_>) -> (SocketAddr, SocketAddr) {
    let families = dice.u8() % 8;
    let source = any_endpoint(dice, families.is_multiple_of(2));
    let destination = any_endpoint(dice, families.is_multiple_of(2) != (families == 7));
    (source, destination)
}

fn any_endpoint(dice: &mut Dice<'_>, is_ipv6: bool) -> SocketAddr {
    let (high, low, port) = (dice.u32(), dice.u32(), dice.u16());
    let address: IpAddr = match is_ipv6 {
        true => Ipv6Addr::from_bits(u128::from(high) << 96 | u128::from(low)).into(),
        false => Ipv4Addr::from_bits(low).into(),
    };
    SocketAddr::new(address, port)
}
