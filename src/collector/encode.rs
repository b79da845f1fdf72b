//! A packet as a collector wants it.

use std::fmt;

use bytes::Bytes;

use crate::config::VersionOut;
use crate::message::Received;
use crate::wire::{ChunkId, Draft, EditError, Missing, Version, decode, repack};

/// How packets leave.
#[derive(Clone)]
pub struct Encoding {
    /// In which version.
    pub version: VersionOut,
    /// `hep_capture_id`, for HEP1, which has none.
    pub agent_id: u32,
    /// The authentication key that they are given, whatever they had. Only HEP3 can have one.
    pub authentication_key: Option<Bytes>,
}

impl fmt::Debug for Encoding {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, agent_id) = (self.version, self.agent_id);
        f.debug_struct("Encoding").field("version", &version).field("agent_id", &agent_id).finish_non_exhaustive()
    }
}

impl Encoding {
    /// The octets of a packet in the version wanted. One that has it already keeps its octets, if it is given no key.
    ///
    /// # Errors
    /// [`EditError`]: that version cannot hold it, or not together with the key.
    pub(super) fn encode(&self, received: &Received) -> Result<Bytes, EditError> {
        let version = match self.version {
            VersionOut::AsReceived => return Ok(received.packet.octets().clone()),
            VersionOut::Only(version) => version,
        };
        let missing = Missing { captured_at: received.origin.received_at, agent_id: self.agent_id };
        let octets = repack(&received.packet, version, missing)?;
        let Some(key) = &self.authentication_key else { return Ok(octets) };
        let mut draft = Draft::new(&decode(octets)?);
        draft.set_chunk(ChunkId::AUTH_KEY, key)?;
        Ok(draft.into_packet().octets().clone())
    }
}

/// What TCP takes.
pub const STREAM_VERSION: VersionOut = VersionOut::Only(Version::Hep3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Origin, wall_clock};
    use crate::wire::{Pack, PayloadType};

    fn received(key: Option<&'static str>) -> Received {
        let chunks = key.map(|key| (ChunkId::AUTH_KEY, Bytes::from_static(key.as_bytes()))).into_iter().collect();
        let pack = Pack {
            ip_protocol: 17,
            flow: Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5061".parse().unwrap())),
            captured_at: None,
            payload_type: PayloadType::SIP,
            agent_id: 7,
            chunks,
            payload: Some(Bytes::from_static(b"x")),
        };
        let packet = decode(pack.encode(Version::Hep3).unwrap()).unwrap();
        Received { packet, origin: Origin::ours(wall_clock()) }
    }

    #[test]
    fn a_packet_leaves_with_the_collectors_key_whatever_it_had_and_without_one_as_it_is() {
        let encoding = |key: Option<&'static str>| Encoding {
            version: STREAM_VERSION,
            agent_id: 1,
            authentication_key: key.map(|key| Bytes::from_static(key.as_bytes())),
        };
        for had in [None, Some("theirs")] {
            let received = received(had);
            let octets = encoding(Some("ours")).encode(&received).unwrap();
            let keys: Vec<Vec<u8>> = decode(octets)
                .unwrap()
                .chunks()
                .filter(|chunk| chunk.id == ChunkId::AUTH_KEY)
                .map(|chunk| chunk.body.to_vec())
                .collect();
            assert_eq!(keys, [b"ours".to_vec()], "{had:?}");
            assert_eq!(encoding(None).encode(&received).unwrap(), *received.packet.octets(), "{had:?}");
        }
        assert!(!format!("{:?}", encoding(Some("ours"))).contains("ours"));
    }
}
