//! A packet as a collector wants it.

use bytes::Bytes;

use crate::config::VersionOut;
use crate::message::Received;
use crate::wire::{Missing, PackError, Version, repack};

/// The octets of a packet in the version wanted. One that has it already keeps its octets.
///
/// `agent_id` (`hep_capture_id`) is for HEP1, which has none.
///
/// # Errors
/// [`PackError`]: that version cannot hold it.
pub(super) fn encode(received: &Received, version: VersionOut, agent_id: u32) -> Result<Bytes, PackError> {
    let version = match version {
        VersionOut::AsReceived => return Ok(received.packet.octets().clone()),
        VersionOut::Only(version) => version,
    };
    let missing = Missing { captured_at: received.origin.received_at, agent_id };
    repack(&received.packet, version, missing)
}

/// What TCP takes.
pub(super) const STREAM_VERSION: VersionOut = VersionOut::Only(Version::Hep3);
