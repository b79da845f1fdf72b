//! Octets to [`Packet`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::chunk::Walk;
use super::packet::Span;
use super::{
    CHUNK_HEADER_OCTETS, CapturedAt, Chunk, ChunkId, FAMILY_INET, FAMILY_INET6, HEADER_OCTETS, Head, MAGIC_EEP3,
    MAGIC_HEP3, Packet, Payload, PayloadType, Rejected, Vendor, Version,
};

/// Octets of HEP1 and HEP2 before the addresses: version, hp_l, family, IP protocol, two ports.
const LEGACY_FIXED_OCTETS: usize = 8;
/// Octets of HEP2's time header: seconds, microseconds, agent id, two of padding.
pub(super) const LEGACY_TIME_OCTETS: usize = 12;

/// Reads one packet of any version.
///
/// `octets` is a whole datagram, or what [`Framer`](super::Framer) cut from a stream. The packet keeps slices of it.
///
/// # Errors
/// [`Rejected`], which see.
#[inline]
pub fn decode(mut octets: Bytes) -> Result<Packet, Rejected> {
    let (head, length) = read(&octets)?;
    octets.truncate(length);
    Ok(Packet::new(octets, head))
}

/// What the packet at the start of `octets` says, and how many of them it is.
#[inline]
pub(super) fn read(octets: &[u8]) -> Result<(Head, usize), Rejected> {
    match octets.first_chunk::<4>() {
        Some(&MAGIC_HEP3 | &MAGIC_EEP3) => read_hep3(octets),
        _ => read_other(octets),
    }
}

fn read_other(octets: &[u8]) -> Result<(Head, usize), Rejected> {
    match octets {
        [1, ..] => read_legacy(octets, Version::Hep1),
        [2, ..] => read_legacy(octets, Version::Hep2),
        [0x1f, 0x8b, ..] => Err(Rejected::Gzip { octets: octets.len() }),
        [_, ..] if MAGIC_HEP3.starts_with(octets) || MAGIC_EEP3.starts_with(octets) => {
            Err(Rejected::TooShort { version: Version::Hep3, needed: HEADER_OCTETS, actual: octets.len() })
        }
        _ => Err(Rejected::NotHep { octets: octets.len(), first: first_four(octets) }),
    }
}

/// The first four octets, zero-filled.
pub(super) fn first_four(octets: &[u8]) -> [u8; 4] {
    let mut first = [0; 4];
    for (to, from) in first.iter_mut().zip(octets) {
        *to = *from;
    }
    first
}

fn read_hep3(octets: &[u8]) -> Result<(Head, usize), Rejected> {
    let Some((&[_, _, _, _, l0, l1], _)) = octets.split_first_chunk::<HEADER_OCTETS>() else {
        return Err(Rejected::TooShort { version: Version::Hep3, needed: HEADER_OCTETS, actual: octets.len() });
    };
    let stated = usize::from(u16::from_be_bytes([l0, l1]));
    if stated < HEADER_OCTETS {
        return Err(Rejected::StatedLength { stated });
    }
    let Some(chunks) = octets.get(HEADER_OCTETS..stated) else {
        return Err(Rejected::Truncated { stated, actual: octets.len() });
    };
    Ok((read_chunks(chunks)?, stated))
}

fn read_chunks(chunks: &[u8]) -> Result<Head, Rejected> {
    let mut head = Head::empty(Version::Hep3);
    let mut walk = Walk::new(chunks, HEADER_OCTETS);
    while let Some((at, chunk)) = walk.step()? {
        if chunk.id.vendor == Vendor::GENERIC {
            read_generic(&mut head, at, chunk)?;
        } else if matches!(chunk.id.kind, 0x0b | 0x0f | 0x10) {
            // The numbers of the payload type and the payload: some receivers do not look at the vendor.
            head.ambiguous = true;
        }
    }
    Ok(head)
}

/// The last chunk of a kind decides, so each simply overwrites what an earlier one said.
#[inline]
fn read_generic(head: &mut Head, at: usize, chunk: Chunk<'_>) -> Result<(), Rejected> {
    match chunk.id {
        ChunkId::IP_FAMILY => head.family = u8::from_be_bytes(fixed(at, chunk)?),
        ChunkId::IP_PROTOCOL => head.ip_protocol = u8::from_be_bytes(fixed(at, chunk)?),
        ChunkId::IPV4_SOURCE => head.source = Some(Ipv4Addr::from(fixed::<4>(at, chunk)?).into()),
        ChunkId::IPV4_DESTINATION => head.destination = Some(Ipv4Addr::from(fixed::<4>(at, chunk)?).into()),
        ChunkId::IPV6_SOURCE => head.source = Some(Ipv6Addr::from(fixed::<16>(at, chunk)?).into()),
        ChunkId::IPV6_DESTINATION => head.destination = Some(Ipv6Addr::from(fixed::<16>(at, chunk)?).into()),
        ChunkId::SOURCE_PORT => head.source_port = u16::from_be_bytes(fixed(at, chunk)?),
        ChunkId::DESTINATION_PORT => head.destination_port = u16::from_be_bytes(fixed(at, chunk)?),
        ChunkId::SECONDS => head.captured_at.get_or_insert_default().seconds = u32::from_be_bytes(fixed(at, chunk)?),
        ChunkId::MICROSECONDS => {
            head.captured_at.get_or_insert_default().microseconds = u32::from_be_bytes(fixed(at, chunk)?);
        }
        ChunkId::PAYLOAD_TYPE => head.payload_type = PayloadType(u8::from_be_bytes(fixed(at, chunk)?)),
        ChunkId::AGENT_ID => head.agent_id = u32::from_be_bytes(fixed(at, chunk)?),
        ChunkId::PAYLOAD => set_payload(head, Payload::Plain(body_span(at, chunk))),
        ChunkId::COMPRESSED_PAYLOAD => set_payload(head, Payload::Compressed(body_span(at, chunk))),
        ChunkId::CORRELATION_ID => head.correlation_id = Some(body_span(at, chunk)),
        _ => {}
    }
    Ok(())
}

fn set_payload(head: &mut Head, payload: Payload) {
    head.ambiguous |= head.payload != Payload::Absent;
    head.payload = payload;
}

fn body_span(at: usize, chunk: Chunk<'_>) -> Span {
    let start = at + CHUNK_HEADER_OCTETS;
    Span::new(start, start + chunk.body.len())
}

fn fixed<const N: usize>(at: usize, chunk: Chunk<'_>) -> Result<[u8; N], Rejected> {
    chunk.body.try_into().map_err(|_| Rejected::ChunkWidth { id: chunk.id, at, actual: chunk.body.len(), needed: N })
}

/// HEP1 and HEP2. The layout follows from version and family; `hp_l`, the second octet, lies in real traffic.
fn read_legacy(octets: &[u8], version: Version) -> Result<(Head, usize), Rejected> {
    let family = octets.get(2).copied().unwrap_or(FAMILY_INET);
    let header_octets = legacy_header_octets(version, family).ok_or(Rejected::Family { version, family })?;
    let too_short = Rejected::TooShort { version, needed: header_octets, actual: octets.len() };
    let Some((header, _)) = octets.split_at_checked(header_octets) else { return Err(too_short) };
    let mut head = read_legacy_header(header, version, family).ok_or(too_short)?;
    head.payload = Payload::Plain(Span::new(header_octets, octets.len()));
    Ok((head, octets.len()))
}

/// Octets before the payload, or `None` for a family whose addresses have an unknown width.
pub(super) const fn legacy_header_octets(version: Version, family: u8) -> Option<usize> {
    let addresses = match family {
        FAMILY_INET => 8,
        FAMILY_INET6 => 32,
        _ => return None,
    };
    let time = match version {
        Version::Hep2 => LEGACY_TIME_OCTETS,
        Version::Hep1 | Version::Hep3 => 0,
    };
    Some(LEGACY_FIXED_OCTETS + addresses + time)
}

/// `None` only if `header` is shorter than [`legacy_header_octets`], which the caller has checked.
fn read_legacy_header(header: &[u8], version: Version, family: u8) -> Option<Head> {
    let (&[_, _, _, ip_protocol, s0, s1, d0, d1], rest) = header.split_first_chunk::<LEGACY_FIXED_OCTETS>()?;
    let (source, rest) = take_address(rest, family)?;
    let (destination, rest) = take_address(rest, family)?;
    let mut head = Head {
        family,
        ip_protocol,
        source: Some(source),
        destination: Some(destination),
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        payload_type: PayloadType::SIP,
        ..Head::empty(version)
    };
    if version == Version::Hep2 {
        let &[t0, t1, t2, t3, u0, u1, u2, u3, a0, a1, _, _] = rest.first_chunk::<LEGACY_TIME_OCTETS>()?;
        head.captured_at = Some(CapturedAt {
            seconds: u32::from_le_bytes([t0, t1, t2, t3]),
            microseconds: u32::from_le_bytes([u0, u1, u2, u3]),
        });
        head.agent_id = u32::from(u16::from_le_bytes([a0, a1]));
    }
    Some(head)
}

fn take_address(octets: &[u8], family: u8) -> Option<(IpAddr, &[u8])> {
    if family == FAMILY_INET6 {
        let (address, rest) = octets.split_first_chunk::<16>()?;
        return Some((Ipv6Addr::from(*address).into(), rest));
    }
    let (address, rest) = octets.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*address).into(), rest))
}
