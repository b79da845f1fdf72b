//! Strategies: valid packets of every version, streams of them, and octets that are nearly packets.

use std::net::{IpAddr, SocketAddr};

use hepgate::wire::{ChunkId, GENERIC, Vendor};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::laws::dice::Dice;
use crate::mutate::mutate;

/// Octets of a valid packet of any version.
pub(crate) fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => hep3(), 1 => legacy()]
}

/// Octets of a valid HEP3 packet with any chunks in any order, more than one of a kind among them.
pub(crate) fn hep3() -> impl Strategy<Value = Vec<u8>> {
    let magic = prop_oneof![4 => Just(*b"HEP3"), 1 => Just(*b"EEP3")];
    (magic, vec(chunk(), 0..16)).prop_map(|(magic, chunks)| hep3_of(magic, &chunks))
}

/// A packet of these chunks.
pub(crate) fn hep3_of(magic: [u8; 4], chunks: &[(ChunkId, Vec<u8>)]) -> Vec<u8> {
    let mut octets = [&magic[..], &[0, 0]].concat();
    for (id, body) in chunks {
        octets.extend_from_slice(&id.vendor.0.to_be_bytes());
        octets.extend_from_slice(&id.kind.to_be_bytes());
        octets.extend_from_slice(&u16::try_from(6 + body.len()).unwrap().to_be_bytes());
        octets.extend_from_slice(body);
    }
    let stated = u16::try_from(octets.len()).unwrap();
    octets[4..6].copy_from_slice(&stated.to_be_bytes());
    octets
}

/// Octets of a valid HEP1 or HEP2 packet with any `hp_l` and any padding.
pub(crate) fn legacy() -> impl Strategy<Value = Vec<u8>> {
    (1..=2u8, any::<u8>(), any::<bool>(), vec(any::<u8>(), 0..120)).prop_flat_map(|(version, hp_l, ipv6, payload)| {
        let rest = 5 + if ipv6 { 32 } else { 8 } + if version == 2 { 12 } else { 0 };
        vec(any::<u8>(), rest)
            .prop_map(move |header| [&[version, hp_l, if ipv6 { 10 } else { 2 }], &header[..], &payload].concat())
    })
}

/// A chunk that a packet may have: of the specification with a body of its width, or any other.
pub(crate) fn chunk() -> impl Strategy<Value = (ChunkId, Vec<u8>)> {
    prop_oneof![
        6 => select(GENERIC).prop_flat_map(|entry| match entry.shape.width() {
            Some(width) => vec(any::<u8>(), width..=width).prop_map(move |body| (entry.id, body)).boxed(),
            None => vec(any::<u8>(), 0..80).prop_map(move |body| (entry.id, body)).boxed(),
        }),
        2 => unknown_chunk(),
        1 => (1..9u16, 0..0x30u16, vec(any::<u8>(), 0..20)).prop_map(|(vendor, kind, body)| {
            (ChunkId { vendor: Vendor(vendor), kind }, body)
        }),
    ]
}

/// A chunk that nobody has defined.
pub(crate) fn unknown_chunk() -> impl Strategy<Value = (ChunkId, Vec<u8>)> {
    (prop_oneof![Just(0u16), 9..=u16::MAX], 0x66..=u16::MAX, vec(any::<u8>(), 0..40))
        .prop_map(|(vendor, kind, body)| (ChunkId { vendor: Vendor(vendor), kind }, body))
}

/// A packet with something wrong with it, and with octets behind it.
pub(crate) fn nearly_a_packet() -> impl Strategy<Value = Vec<u8>> {
    (packet(), packet(), vec(any::<u8>(), 8..64)).prop_map(|(packet, other, script)| {
        let wrong = mutate(packet, &other, &mut Dice::new(&script));
        [wrong, script].concat()
    })
}

/// What a TCP connection may bring: packets, and in the end perhaps something else.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![Just(Vec::new()), nearly_a_packet(), vec(any::<u8>(), 0..30)];
    (vec(hep3(), 0..8), end).prop_map(|(packets, end)| [packets.concat(), end].concat())
}

/// An address with a port, IPv4 or IPv6.
pub(crate) fn flow() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let ipv4 = any::<([u8; 4], [u8; 4])>().prop_map(|(from, to)| (IpAddr::from(from), IpAddr::from(to)));
    let ipv6 = any::<([u8; 16], [u8; 16])>().prop_map(|(from, to)| (IpAddr::from(from), IpAddr::from(to)));
    (prop_oneof![ipv4, ipv6], any::<(u16, u16)>())
        .prop_map(|((from, to), ports)| (SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1)))
}
