//! Making packets: from their parts, and from a packet of another version.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::decode::legacy_header_octets;
use super::{
    CHUNK_HEADER_OCTETS, CapturedAt, ChunkId, DATAGRAM_OCTETS_MAX, FAMILY_INET, FAMILY_INET6, HEADER_OCTETS, Head,
    MAGIC_HEP3, PACKET_OCTETS_MAX, Packet, Payload, PayloadType, Vendor, Version,
};

/// Why a packet cannot be made, or not in that version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PackError {
    /// More octets than the version can state or a datagram can carry.
    #[error("the packet would have {octets} octets; HEP{} holds {octets_max}", .version.number())]
    TooLong {
        /// The version wanted.
        version: Version,
        /// Octets that it would have.
        octets: usize,
        /// Octets that it may have.
        octets_max: usize,
    },
    /// A scalar chunk of the wrong width.
    #[error("{id} takes {needed} octets, not {actual}")]
    Width {
        /// Which chunk.
        id: ChunkId,
        /// Octets given.
        actual: usize,
        /// Octets that the specification gives it.
        needed: usize,
    },
    /// One IPv4 and one IPv6 address.
    #[error("the source {from} and the destination {to} are of different families", from = .source_address, to = .destination_address)]
    MixedFamilies {
        /// The source.
        source_address: IpAddr,
        /// The destination.
        destination_address: IpAddr,
    },
    /// HEP1 and HEP2 cannot do without addresses.
    #[error("HEP{} needs a source and a destination address", .0.number())]
    NoAddresses(Version),
    /// HEP1 and HEP2 cannot do without a payload, and hold no compressed one: one that cannot be inflated is none.
    #[error("HEP{} needs a payload that is not compressed, or can be inflated", .0.number())]
    NoPayload(Version),
    /// HEP1 and HEP2 hold SIP and cannot say otherwise.
    #[error("HEP{} holds SIP, not payload type {}", .version.number(), .payload_type.0)]
    NotSip {
        /// The version wanted.
        version: Version,
        /// What the payload is.
        payload_type: PayloadType,
    },
    /// HEP2's agent id has 16 bits.
    #[error("agent id {agent_id} does not fit the 16 bits of HEP2")]
    AgentId {
        /// The agent id.
        agent_id: u32,
    },
}

/// The parts of a packet to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pack {
    /// IP protocol of the captured packet: 6 TCP, 17 UDP, …
    pub ip_protocol: u8,
    /// Source and destination of the captured packet, of one family.
    pub flow: Option<(SocketAddr, SocketAddr)>,
    /// When it was captured.
    pub captured_at: Option<CapturedAt>,
    /// What the payload is.
    pub payload_type: PayloadType,
    /// Who captured it.
    pub agent_id: u32,
    /// Further chunks, which stand before the payload. HEP1 and HEP2 leave them out.
    pub chunks: Vec<(ChunkId, Bytes)>,
    /// The captured packet's payload, not compressed.
    pub payload: Option<Bytes>,
}

impl Pack {
    /// The octets of this packet in that version.
    ///
    /// # Errors
    /// [`PackError`]: the version cannot hold it.
    pub fn encode(&self, version: Version) -> Result<Bytes, PackError> {
        match version {
            Version::Hep3 => self.encode_hep3(),
            Version::Hep1 | Version::Hep2 => self.encode_legacy(version),
        }
    }

    fn encode_hep3(&self) -> Result<Bytes, PackError> {
        let mut writer = ChunkWriter::new(MAGIC_HEP3, 128 + self.payload.as_ref().map_or(0, Bytes::len));
        if let Some((source, destination)) = self.flow {
            writer.put(ChunkId::IP_FAMILY, &[family_of(source.ip(), destination.ip())?]);
            writer.put(ChunkId::IP_PROTOCOL, &[self.ip_protocol]);
            put_address(&mut writer, source.ip(), ChunkId::IPV4_SOURCE, ChunkId::IPV6_SOURCE);
            put_address(&mut writer, destination.ip(), ChunkId::IPV4_DESTINATION, ChunkId::IPV6_DESTINATION);
            writer.put(ChunkId::SOURCE_PORT, &source.port().to_be_bytes());
            writer.put(ChunkId::DESTINATION_PORT, &destination.port().to_be_bytes());
        } else {
            writer.put(ChunkId::IP_PROTOCOL, &[self.ip_protocol]);
        }
        if let Some(captured_at) = self.captured_at {
            writer.put(ChunkId::SECONDS, &captured_at.seconds.to_be_bytes());
            writer.put(ChunkId::MICROSECONDS, &captured_at.microseconds.to_be_bytes());
        }
        writer.put(ChunkId::PAYLOAD_TYPE, &[self.payload_type.0]);
        writer.put(ChunkId::AGENT_ID, &self.agent_id.to_be_bytes());
        for (id, body) in &self.chunks {
            check_width(*id, body)?;
            writer.put(*id, body);
        }
        if let Some(payload) = &self.payload {
            writer.put(ChunkId::PAYLOAD, payload);
        }
        writer.finish().map(Bytes::from)
    }

    fn encode_legacy(&self, version: Version) -> Result<Bytes, PackError> {
        let (source, destination) = self.flow.ok_or(PackError::NoAddresses(version))?;
        let payload = self.payload.as_ref().ok_or(PackError::NoPayload(version))?;
        if self.payload_type != PayloadType::SIP {
            return Err(PackError::NotSip { version, payload_type: self.payload_type });
        }
        let agent_id = u16::try_from(self.agent_id).map_err(|_| PackError::AgentId { agent_id: self.agent_id });
        let family = family_of(source.ip(), destination.ip())?;
        // hp_l counts the header without HEP2's time: 16 or 40, and OpenSIPS insists on it.
        let hp_l: u8 = if family == FAMILY_INET6 { 40 } else { 16 };
        let header_octets = legacy_header_octets(version, family).unwrap_or(0);
        let mut octets = Vec::with_capacity(header_octets + payload.len());
        octets.extend_from_slice(&[version.number(), hp_l, family, self.ip_protocol]);
        octets.extend_from_slice(&source.port().to_be_bytes());
        octets.extend_from_slice(&destination.port().to_be_bytes());
        extend_with_address(&mut octets, source.ip());
        extend_with_address(&mut octets, destination.ip());
        if version == Version::Hep2 {
            let captured_at = self.captured_at.unwrap_or_default();
            octets.extend_from_slice(&captured_at.seconds.to_le_bytes());
            octets.extend_from_slice(&captured_at.microseconds.to_le_bytes());
            octets.extend_from_slice(&agent_id?.to_le_bytes());
            octets.extend_from_slice(&[0, 0]);
        }
        octets.extend_from_slice(payload);
        if octets.len() > DATAGRAM_OCTETS_MAX {
            return Err(PackError::TooLong { version, octets: octets.len(), octets_max: DATAGRAM_OCTETS_MAX });
        }
        Ok(octets.into())
    }
}

/// What a packet of another version is given where its own says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// For HEP1, which has no time: when we received it.
    pub captured_at: CapturedAt,
    /// For HEP1, which has no agent id (`hep_capture_id`).
    pub agent_id: u32,
}

/// The same packet in another version. One that already has it keeps its octets.
///
/// What HEP1 and HEP2 cannot say (chunks, and in HEP1 time and agent id) is left out of them.
///
/// # Errors
/// [`PackError`]: the version cannot hold it.
pub fn repack(packet: &Packet, version: Version, missing: Missing) -> Result<Bytes, PackError> {
    if packet.head().version == version {
        return Ok(packet.octets().clone());
    }
    let mut pack = parts(packet);
    if packet.head().version == Version::Hep1 {
        pack.agent_id = missing.agent_id;
    }
    pack.captured_at.get_or_insert(missing.captured_at);
    pack.encode(version)
}

/// What a packet says, as the parts of a new one; its other chunks are left behind.
pub(super) fn parts(packet: &Packet) -> Pack {
    let head = packet.head();
    let payload = match head.payload {
        Payload::Plain(span) => Some(packet.octets().slice(span.start()..span.end())),
        Payload::Compressed(_) => packet.inflated().and_then(Result::ok).map(Bytes::copy_from_slice),
        Payload::Absent => None,
    };
    Pack {
        ip_protocol: head.ip_protocol,
        flow: flow(head),
        captured_at: head.captured_at,
        payload_type: head.payload_type,
        agent_id: head.agent_id,
        chunks: Vec::new(),
        payload,
    }
}

fn flow(head: &Head) -> Option<(SocketAddr, SocketAddr)> {
    let source = SocketAddr::new(head.source?, head.source_port);
    let destination = SocketAddr::new(head.destination?, head.destination_port);
    Some((source, destination))
}

/// Writes a HEP3 packet chunk by chunk.
pub(super) struct ChunkWriter {
    octets: Vec<u8>,
    /// Octets of the chunks whose length cannot be stated. They are counted and not written.
    left_out: usize,
}

impl ChunkWriter {
    /// `octets` is how much memory to begin with.
    pub(super) fn new(magic: [u8; 4], octets: usize) -> Self {
        let mut writer = Self { octets: Vec::with_capacity(HEADER_OCTETS + octets), left_out: 0 };
        writer.octets.extend_from_slice(&magic);
        writer.octets.extend_from_slice(&[0, 0]);
        writer
    }

    /// Appends a chunk. One that is too long makes [`ChunkWriter::finish`] fail.
    pub(super) fn put(&mut self, id: ChunkId, body: &[u8]) {
        let octets = CHUNK_HEADER_OCTETS + body.len();
        let Ok(stated) = u16::try_from(octets) else {
            self.left_out += octets;
            return;
        };
        self.octets.extend_from_slice(&id.vendor.0.to_be_bytes());
        self.octets.extend_from_slice(&id.kind.to_be_bytes());
        self.octets.extend_from_slice(&stated.to_be_bytes());
        self.octets.extend_from_slice(body);
    }

    /// The packet with its length stated.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, PackError> {
        // One chunk that was left out is more than a u16 holds, so that nothing is ever missing from what is stated.
        let octets = self.octets.len() + self.left_out;
        let Ok(stated) = u16::try_from(octets) else {
            return Err(PackError::TooLong { version: Version::Hep3, octets, octets_max: PACKET_OCTETS_MAX });
        };
        for (to, from) in self.octets.iter_mut().skip(MAGIC_HEP3.len()).zip(stated.to_be_bytes()) {
            *to = from;
        }
        Ok(self.octets)
    }
}

/// Refuses a chunk that [`decode`](super::decode()) would refuse, and every generic one of a wrong width.
pub(super) fn check_width(id: ChunkId, body: &[u8]) -> Result<(), PackError> {
    match id.width() {
        Some(needed) if needed != body.len() => Err(PackError::Width { id, actual: body.len(), needed }),
        _ => Ok(()),
    }
}

/// The family octet for a pair of addresses.
pub(super) fn family_of(source: IpAddr, destination: IpAddr) -> Result<u8, PackError> {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Ok(FAMILY_INET),
        (IpAddr::V6(_), IpAddr::V6(_)) => Ok(FAMILY_INET6),
        _ => Err(PackError::MixedFamilies { source_address: source, destination_address: destination }),
    }
}

fn put_address(writer: &mut ChunkWriter, address: IpAddr, ipv4: ChunkId, ipv6: ChunkId) {
    match address {
        IpAddr::V4(address) => writer.put(ipv4, &address.octets()),
        IpAddr::V6(address) => writer.put(ipv6, &address.octets()),
    }
}

/// Appends an address as HEP1 and HEP2 write it.
pub(super) fn extend_with_address(octets: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => octets.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => octets.extend_from_slice(&address.octets()),
    }
}

/// Whether two ids are one kind, of which the last chunk decides.
pub(super) fn same_kind(a: ChunkId, b: ChunkId) -> bool {
    let kind = |id: ChunkId| match (id.vendor, id) {
        (Vendor::GENERIC, ChunkId::COMPRESSED_PAYLOAD) => ChunkId::PAYLOAD,
        (Vendor::GENERIC, ChunkId::IPV6_SOURCE) => ChunkId::IPV4_SOURCE,
        (Vendor::GENERIC, ChunkId::IPV6_DESTINATION) => ChunkId::IPV4_DESTINATION,
        _ => id,
    };
    kind(a) == kind(b)
}
