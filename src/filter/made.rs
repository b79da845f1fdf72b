//! Packets that a filter makes: what it said of them, and the packet that comes of it.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::config::ProtoHep;
use crate::wire::{
    CHUNK_HEADER_OCTETS, CapturedAt, ChunkId, PACKET_OCTETS_MAX, Pack, PackError, PayloadType, Version, deflate,
};

/// The payload type of what OpenSIPS' tracer says of itself.
const CONTROL: PayloadType = PayloadType(0x60);

/// A packet that a guest makes.
#[derive(Clone, Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct MadePacket {
    pub(super) pack: Pack,
    /// The payload by parts, if it is not in `pack`.
    pub(super) parts: Vec<(String, String)>,
    pub(super) correlations: Vec<(String, String)>,
}

impl MadePacket {
    pub(super) const fn new(pack: Pack) -> Self {
        Self { pack, parts: Vec::new(), correlations: Vec::new() }
    }

    /// Two ids of different types belong together. `None` if that is no correlation.
    pub(super) fn correlate(now: CapturedAt, agent_id: u32, both: [(String, String); 2]) -> Option<Pack> {
        let [(type1, id1), (type2, id2)] = &both;
        if type1 == type2 || id1.is_empty() || id2.is_empty() {
            return None;
        }
        let mut chunks = Vec::new();
        if let Some((_, id)) = both.iter().find(|(name, _)| name == "sip") {
            chunks.push((ChunkId::CORRELATION_ID, Bytes::from(id.clone())));
        }
        chunks.push((ChunkId::EXTRA_CORRELATION, Bytes::from(json(&both))));
        let nobody = |last| SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), 0);
        Some(Pack {
            ip_protocol: 17,
            flow: Some((nobody(1), nobody(2))),
            captured_at: Some(now),
            payload_type: CONTROL,
            agent_id,
            chunks,
            payload: None,
        })
    }

    /// How many octets it would have at least with so many more in a part, a correlation or a chunk, if no packet may
    /// have so many. Each counts for a chunk's header beside its octets: otherwise a guest could have the host keep empty
    /// ones without end.
    pub(super) fn too_long_with(&self, octets: usize) -> Option<usize> {
        let texts = self.parts.iter().chain(&self.correlations).map(|(name, value)| name.len() + value.len());
        let all = texts.chain(self.pack.chunks.iter().map(|(_, body)| body.len())).chain([octets]);
        let would_have = all.map(|octets| octets + CHUNK_HEADER_OCTETS).sum();
        (would_have > PACKET_OCTETS_MAX).then_some(would_have)
    }

    /// Its octets in that version, with `homer5_on`, `homer5_delim` and `compressed_payload` as they are set.
    pub(super) fn encode(&self, version: Version, settings: &ProtoHep) -> Result<Bytes, PackError> {
        let mut pack = self.pack.clone();
        if !self.parts.is_empty() {
            pack.payload = Some(Bytes::from(self.payload(settings)));
        }
        if let Some((id, body)) = self.correlation(settings) {
            pack.chunks.retain(|(other, _)| *other != id);
            pack.chunks.push((id, Bytes::from(body)));
        }
        // HEP1 and HEP2 hold no compressed payload.
        if settings.compressed_payload
            && version == Version::Hep3
            && let Some(compressed) = pack.payload.as_deref().and_then(deflate)
        {
            pack.chunks.push((ChunkId::COMPRESSED_PAYLOAD, Bytes::from(compressed)));
            pack.payload = None;
        }
        pack.encode(version)
    }

    fn payload(&self, settings: &ProtoHep) -> String {
        if !settings.homer5_on {
            return json(&self.parts);
        }
        let values: Vec<&str> = self.parts.iter().map(|(_, value)| value.as_str()).collect();
        values.join(&settings.homer5_delim)
    }

    fn correlation(&self, settings: &ProtoHep) -> Option<(ChunkId, String)> {
        if !settings.homer5_on {
            return (!self.correlations.is_empty()).then(|| (ChunkId::EXTRA_CORRELATION, json(&self.correlations)));
        }
        let sip = self.correlations.iter().rfind(|(name, _)| name.starts_with("sip"));
        sip.map(|(_, id)| (ChunkId::CORRELATION_ID, id.clone()))
    }
}

/// A JSON object of texts. The last of one name counts.
fn json(members: &[(String, String)]) -> String {
    let members = members.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    Value::from(members.collect::<Map<_, _>>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;

    fn made(parts: &[(&str, &str)], correlations: &[(&str, &str)]) -> MadePacket {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        let pack = Pack {
            ip_protocol: 17,
            flow: Some(("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap())),
            captured_at: None,
            payload_type: PayloadType::LOG,
            agent_id: 1,
            chunks: Vec::new(),
            payload: None,
        };
        MadePacket { pack, parts: owned(parts), correlations: owned(correlations) }
    }

    fn said(made: &MadePacket, settings: &ProtoHep) -> (String, Vec<(u16, String)>) {
        let packet = decode(made.encode(Version::Hep3, settings).unwrap()).unwrap();
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        let known = [ChunkId::CORRELATION_ID, ChunkId::EXTRA_CORRELATION];
        let chunks = packet.chunks().filter(|chunk| known.contains(&chunk.id));
        (text(packet.readable_payload()), chunks.map(|chunk| (chunk.id.kind, text(chunk.body))).collect())
    }

    #[test]
    fn parts_are_joined_as_homer5_on_and_homer5_delim_say() {
        let made = made(&[("text", "a \"b\""), ("module", "tm"), ("text", "c")], &[]);
        let default = ProtoHep::default();
        assert_eq!(said(&made, &default), ("a \"b\":tm:c".to_owned(), Vec::new()));
        let delimited = ProtoHep { homer5_delim: "##".to_owned(), ..ProtoHep::default() };
        assert_eq!(said(&made, &delimited).0, "a \"b\"##tm##c");
        let json = ProtoHep { homer5_on: false, ..default };
        assert_eq!(said(&made, &json).0, r#"{"module":"tm","text":"c"}"#);
    }

    #[test]
    fn of_correlations_only_that_of_sip_leaves_with_homer5_on() {
        let made = made(&[("text", "x")], &[("sip", "a"), ("rest", "b"), ("sip", "c")]);
        let default = ProtoHep::default();
        assert_eq!(said(&made, &default).1, [(0x11, "c".to_owned())]);
        let json = ProtoHep { homer5_on: false, ..default };
        assert_eq!(said(&made, &json).1, [(0x65, r#"{"rest":"b","sip":"c"}"#.to_owned())]);
    }

    #[test]
    fn a_compressed_payload_reads_as_it_was_and_hep2_holds_it_plain() {
        let made = made(&[("text", &"again ".repeat(100))], &[]);
        let (plain, compressed) = (ProtoHep::default(), ProtoHep { compressed_payload: true, ..ProtoHep::default() });
        assert_eq!(said(&made, &plain).0, said(&made, &compressed).0);
        let (long, short) =
            (made.encode(Version::Hep3, &plain).unwrap(), made.encode(Version::Hep3, &compressed).unwrap());
        assert!(long.len() > 600 && short.len() < 200, "{} {}", long.len(), short.len());
        let packet = decode(short).unwrap();
        let zlib = packet.chunks().find(|chunk| chunk.id == ChunkId::COMPRESSED_PAYLOAD).unwrap();
        assert_eq!(zlib.body[..2], [0x78, 0x9c]);
        let mut sip = made;
        sip.pack.payload_type = PayloadType::SIP;
        assert_eq!(sip.encode(Version::Hep2, &plain).unwrap(), sip.encode(Version::Hep2, &compressed).unwrap());
    }

    #[test]
    fn two_ids_of_one_type_or_an_empty_one_are_no_correlation() {
        let both = |type1: &str, id1: &str, type2: &str, id2: &str| {
            let pair = |name: &str, id: &str| (name.to_owned(), id.to_owned());
            MadePacket::correlate(CapturedAt::default(), 7, [pair(type1, id1), pair(type2, id2)])
        };
        assert_eq!(both("sip", "a", "sip", "b"), None);
        assert_eq!(both("sip", "", "isup", "b"), None);
        assert_eq!(both("sip", "a", "isup", ""), None);
        let pack = both("isup", "a", "sip", "b").unwrap();
        let chunks: Vec<(u16, &[u8])> = pack.chunks.iter().map(|(id, body)| (id.kind, &body[..])).collect();
        assert_eq!(chunks, [(0x11, &b"b"[..]), (0x65, br#"{"isup":"a","sip":"b"}"#)]);
    }
}
