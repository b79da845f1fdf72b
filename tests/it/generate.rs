//! Octets made to order.

use hepgate::wire::ChunkId;

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
