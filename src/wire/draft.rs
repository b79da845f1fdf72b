//! A packet that is being changed.

use std::net::SocketAddr;

use bytes::Bytes;

use super::decode::{legacy_header_octets, read};
use super::inflate::Inflated;
use super::pack::{ChunkWriter, check_width, extend_with_address, family_of, parts, same_kind};
use super::{
    CHUNK_HEADER_OCTETS, CapturedAt, ChunkId, Chunks, DATAGRAM_OCTETS_MAX, FAMILY_INET6, HEADER_OCTETS, Head,
    InflateError, MAGIC_EEP3, MAGIC_HEP3, PackError, Packet, Payload, PayloadType, Rejected, Version,
};

/// Why an edit was refused. The packet is as it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EditError {
    /// There is no payload that could be masked, or it is compressed and cannot be inflated.
    #[error("the packet has no payload that can be read")]
    NoPayload,
    /// A range beyond the payload.
    #[error("octets {offset} to {end} are not in a payload of {octets}", end = .offset.saturating_add(*.length))]
    Range {
        /// Offset of the range.
        offset: usize,
        /// Octets of the range.
        length: usize,
        /// Octets of the payload.
        octets: usize,
    },
    /// The packet would be too long, or a value has the wrong shape.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The result could not be read back. Not reachable by the checks before it; kept so that no edit can emit
    /// octets that are not HEP.
    #[error("the edit would make the packet unreadable: {0}")]
    Unreadable(#[from] Rejected),
}

/// A packet that is being changed: unknown chunks and the order of all chunks stay as they are.
///
/// An edit of a kind of chunk (see the module's rule) leaves exactly one of that kind, where the deciding one stood, or
/// at the end. HEP1 and HEP2 stay what they are as long as they can hold the edit; otherwise they become HEP3.
#[derive(Clone, Debug)]
pub struct Draft {
    octets: Vec<u8>,
    head: Head,
    inflated: Inflated,
}

impl Draft {
    /// A copy of the packet's octets.
    #[must_use]
    pub fn new(packet: &Packet) -> Self {
        Self { octets: packet.octets().to_vec(), head: *packet.head(), inflated: packet.share_inflated() }
    }

    /// The changed packet.
    #[must_use]
    pub fn into_packet(self) -> Packet {
        Packet::with_inflated(self.octets.into(), self.head, self.inflated)
    }

    /// The packet as it is now; the draft goes on.
    #[must_use]
    pub fn to_packet(&self) -> Packet {
        Packet::with_inflated(Bytes::copy_from_slice(&self.octets), self.head, self.inflated.clone())
    }

    /// What the packet says now.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The payload as it is now; empty if there is none.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        payload_in(&self.octets, &self.head)
    }

    /// As [`Packet::inflated`], of the payload as it is now.
    ///
    /// # Errors
    /// [`InflateError`].
    #[must_use]
    pub fn inflated(&self) -> Option<Result<&[u8], InflateError>> {
        self.inflated.get(self.payload())
    }

    /// As [`Packet::readable_payload`], of the payload as it is now.
    #[must_use]
    pub fn readable_payload(&self) -> &[u8] {
        self.inflated().and_then(Result::ok).unwrap_or_else(|| self.payload())
    }

    /// The chunks as they are now.
    #[must_use]
    pub fn chunks(&self) -> Chunks<'_> {
        let chunks = match self.head.version {
            Version::Hep3 => self.octets.get(HEADER_OCTETS..).unwrap_or_default(),
            Version::Hep1 | Version::Hep2 => &[],
        };
        Chunks::new(chunks)
    }

    /// Replaces the payload, which is then not compressed.
    ///
    /// # Errors
    /// [`PackError::TooLong`].
    pub fn set_payload(&mut self, payload: &[u8]) -> Result<(), EditError> {
        if self.head.version == Version::Hep3 {
            return self.set_chunk(ChunkId::PAYLOAD, payload);
        }
        let header_octets = self.head.payload.span().map_or(0, |span| span.start());
        let octets = header_octets + payload.len();
        if octets > DATAGRAM_OCTETS_MAX {
            let version = self.head.version;
            return Err(PackError::TooLong { version, octets, octets_max: DATAGRAM_OCTETS_MAX }.into());
        }
        self.octets.truncate(header_octets);
        self.octets.extend_from_slice(payload);
        self.reread()
    }

    /// Overwrites runs of the payload, given as offset and length, with one octet: all of them or, if one is out of
    /// range, none. No other payload chunk is left beside the masked one. Another vendor's chunk of that number is no
    /// payload: it stays, and the packet stays [`Head::ambiguous`]. A compressed payload is masked as it reads, and is not
    /// compressed any more.
    ///
    /// # Errors
    /// [`EditError::NoPayload`], [`EditError::Range`], [`PackError::TooLong`] if an inflated payload does not fit.
    pub fn mask(&mut self, runs: &[(usize, usize)], with: u8) -> Result<(), EditError> {
        let inflated = self.inflated();
        if self.head.payload == Payload::Absent || matches!(inflated, Some(Err(_))) {
            return Err(EditError::NoPayload);
        }
        let octets = self.readable_payload().len();
        for &(offset, length) in runs {
            if offset.checked_add(length).is_none_or(|end| end > octets) {
                return Err(EditError::Range { offset, length, octets });
            }
        }
        if self.head.ambiguous || inflated.is_some() {
            // Others of this kind, or the compressed octets, would still show what is masked here.
            let payload = self.readable_payload().to_vec();
            self.set_payload(&payload)?;
        }
        let Some(payload) = self.head.payload.span().and_then(|span| self.octets.get_mut(span.start()..span.end()))
        else {
            return Err(EditError::NoPayload);
        };
        for &(offset, length) in runs {
            payload.iter_mut().skip(offset).take(length).for_each(|octet| *octet = with);
        }
        Ok(())
    }

    /// Sets the one chunk of a kind: addresses, payload and compressed payload are kinds of two ids each.
    ///
    /// # Errors
    /// [`PackError::Width`], [`PackError::TooLong`].
    pub fn set_chunk(&mut self, id: ChunkId, body: &[u8]) -> Result<(), EditError> {
        check_width(id, body)?;
        self.set_chunks([(id, body)])
    }

    /// Appends a chunk, whether or not there is one of its kind; it is the one that decides from now on.
    ///
    /// # Errors
    /// [`PackError::Width`], [`PackError::TooLong`].
    pub fn add_chunk(&mut self, id: ChunkId, body: &[u8]) -> Result<(), EditError> {
        check_width(id, body)?;
        self.rewrite(CHUNK_HEADER_OCTETS + body.len(), |chunks, writer| {
            chunks.for_each(|chunk| writer.put(chunk.id, chunk.body));
            writer.put(id, body);
        })
    }

    /// Removes every chunk of that id and says how many there were. HEP1 and HEP2 have none.
    ///
    /// # Errors
    /// None that can be reached; see [`EditError::Unreadable`].
    pub fn remove_chunk(&mut self, id: ChunkId) -> Result<usize, EditError> {
        let gone = self.chunks().filter(|chunk| chunk.id == id).count();
        if gone > 0 {
            self.rewrite(0, |chunks, writer| {
                chunks.filter(|chunk| chunk.id != id).for_each(|chunk| writer.put(chunk.id, chunk.body));
            })?;
        }
        Ok(gone)
    }

    /// Sets addresses and ports, and the IP family with them.
    ///
    /// # Errors
    /// [`PackError::MixedFamilies`], [`PackError::TooLong`].
    pub fn set_flow(&mut self, source: SocketAddr, destination: SocketAddr) -> Result<(), EditError> {
        let family = family_of(source.ip(), destination.ip())?;
        if self.head.version != Version::Hep3 {
            return self.set_legacy_flow(family, source, destination);
        }
        let (mut from, mut to) = (Vec::new(), Vec::new());
        extend_with_address(&mut from, source.ip());
        extend_with_address(&mut to, destination.ip());
        let (from_id, to_id) = match family {
            FAMILY_INET6 => (ChunkId::IPV6_SOURCE, ChunkId::IPV6_DESTINATION),
            _ => (ChunkId::IPV4_SOURCE, ChunkId::IPV4_DESTINATION),
        };
        self.set_chunks([
            (ChunkId::IP_FAMILY, &[family]),
            (from_id, &from),
            (to_id, &to),
            (ChunkId::SOURCE_PORT, &source.port().to_be_bytes()),
            (ChunkId::DESTINATION_PORT, &destination.port().to_be_bytes()),
        ])
    }

    /// Sets the IP protocol.
    ///
    /// # Errors
    /// [`PackError::TooLong`].
    pub fn set_ip_protocol(&mut self, ip_protocol: u8) -> Result<(), EditError> {
        if self.head.version == Version::Hep3 {
            return self.set_chunk(ChunkId::IP_PROTOCOL, &[ip_protocol]);
        }
        self.overwrite(3, &[ip_protocol])
    }

    /// Sets what the payload is. HEP1 and HEP2 become HEP3 if it is not SIP.
    ///
    /// # Errors
    /// [`PackError::TooLong`].
    pub fn set_payload_type(&mut self, payload_type: PayloadType) -> Result<(), EditError> {
        if self.head.version != Version::Hep3 && payload_type == PayloadType::SIP {
            return Ok(());
        }
        self.set_chunk(ChunkId::PAYLOAD_TYPE, &[payload_type.0])
    }

    /// Sets the agent id. HEP1, and HEP2 if it needs more than 16 bits, become HEP3.
    ///
    /// # Errors
    /// [`PackError::TooLong`].
    pub fn set_agent_id(&mut self, agent_id: u32) -> Result<(), EditError> {
        match (self.head.version, u16::try_from(agent_id)) {
            (Version::Hep2, Ok(agent_id)) => self.overwrite(self.legacy_time_at() + 8, &agent_id.to_le_bytes()),
            _ => self.set_chunk(ChunkId::AGENT_ID, &agent_id.to_be_bytes()),
        }
    }

    /// Sets the time of capture. HEP1 becomes HEP3.
    ///
    /// # Errors
    /// [`PackError::TooLong`].
    pub fn set_captured_at(&mut self, captured_at: CapturedAt) -> Result<(), EditError> {
        if self.head.version == Version::Hep2 {
            let at = self.legacy_time_at();
            self.overwrite(at, &captured_at.seconds.to_le_bytes())?;
            return self.overwrite(at + 4, &captured_at.microseconds.to_le_bytes());
        }
        self.set_chunks([
            (ChunkId::SECONDS, &captured_at.seconds.to_be_bytes()),
            (ChunkId::MICROSECONDS, &captured_at.microseconds.to_be_bytes()),
        ])
    }

    /// Sets the one chunk of each of these kinds, all at once: it is the packet after the last of them that must not
    /// be too long. Each takes the place of the deciding chunk of its kind, or stands at the end.
    fn set_chunks<const N: usize>(&mut self, new: [(ChunkId, &[u8]); N]) -> Result<(), EditError> {
        let longer_by = new.iter().map(|(_, body)| CHUNK_HEADER_OCTETS + body.len()).sum();
        self.rewrite(longer_by, |chunks, writer| {
            let last_of = |id| chunks.clone().enumerate().filter(|(_, chunk)| same_kind(chunk.id, id)).last();
            let new = new.map(|(id, body)| (id, body, last_of(id).map(|(index, _)| index)));
            for (index, chunk) in chunks.enumerate() {
                match new.iter().find(|(id, _, _)| same_kind(chunk.id, *id)) {
                    None => writer.put(chunk.id, chunk.body),
                    Some((id, body, last)) if *last == Some(index) => writer.put(*id, body),
                    Some(_) => {}
                }
            }
            for (id, body, last) in new {
                if last.is_none() {
                    writer.put(id, body);
                }
            }
        })
    }

    /// Lets `write` write the chunks anew from those that there are. HEP1 and HEP2 become HEP3 first.
    fn rewrite(&mut self, longer_by: usize, write: impl FnOnce(Chunks<'_>, &mut ChunkWriter)) -> Result<(), EditError> {
        let upgraded = match self.head.version {
            Version::Hep3 => None,
            Version::Hep1 | Version::Hep2 => Some(self.upgraded()?),
        };
        let from = upgraded.as_ref().unwrap_or(self);
        let magic = if from.octets.starts_with(&MAGIC_EEP3) { MAGIC_EEP3 } else { MAGIC_HEP3 };
        let mut writer = ChunkWriter::new(magic, from.octets.len() + longer_by);
        write(from.chunks(), &mut writer);
        let octets = writer.finish()?;
        self.replace(octets)
    }

    /// This HEP1 or HEP2 packet as HEP3.
    fn upgraded(&self) -> Result<Self, EditError> {
        let octets = parts(&self.to_packet()).encode(Version::Hep3)?;
        let (head, _) = read(&octets)?;
        Ok(Self { octets: octets.into(), head, inflated: Inflated::of(head.payload) })
    }

    fn set_legacy_flow(&mut self, family: u8, source: SocketAddr, destination: SocketAddr) -> Result<(), EditError> {
        let addresses_end = legacy_header_octets(Version::Hep1, self.head.family).unwrap_or(0);
        let Some((fixed, rest)) = self.octets.split_at_checked(addresses_end) else { return Ok(()) };
        let mut octets = fixed.get(..4).unwrap_or_default().to_vec();
        if let (true, [_, hp_l, to, ..]) = (family != self.head.family, octets.as_mut_slice()) {
            *hp_l = if source.is_ipv6() { 40 } else { 16 };
            *to = family;
        }
        octets.extend_from_slice(&source.port().to_be_bytes());
        octets.extend_from_slice(&destination.port().to_be_bytes());
        extend_with_address(&mut octets, source.ip());
        extend_with_address(&mut octets, destination.ip());
        octets.extend_from_slice(rest);
        if octets.len() > DATAGRAM_OCTETS_MAX {
            let (version, octets_max) = (self.head.version, DATAGRAM_OCTETS_MAX);
            return Err(PackError::TooLong { version, octets: octets.len(), octets_max }.into());
        }
        self.replace(octets)
    }

    /// Offset of HEP2's time header.
    fn legacy_time_at(&self) -> usize {
        legacy_header_octets(Version::Hep1, self.head.family).unwrap_or(0)
    }

    fn overwrite(&mut self, at: usize, with: &[u8]) -> Result<(), EditError> {
        if let Some(octets) = self.octets.get_mut(at..at + with.len()) {
            octets.copy_from_slice(with);
        }
        self.reread()
    }

    fn replace(&mut self, octets: Vec<u8>) -> Result<(), EditError> {
        let (head, _) = read(&octets)?;
        let both_compressed =
            matches!((self.head.payload, head.payload), (Payload::Compressed(_), Payload::Compressed(_)));
        if !both_compressed || payload_in(&octets, &head) != self.payload() {
            self.inflated = Inflated::of(head.payload);
        }
        self.octets = octets;
        self.head = head;
        Ok(())
    }

    fn reread(&mut self) -> Result<(), EditError> {
        (self.head, _) = read(&self.octets)?;
        self.inflated = Inflated::of(self.head.payload);
        Ok(())
    }
}

fn payload_in<'a>(octets: &'a [u8], head: &Head) -> &'a [u8] {
    head.payload.span().and_then(|span| octets.get(span.start()..span.end())).unwrap_or_default()
}
