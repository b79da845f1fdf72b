//! Agent ids that senders put on the wire in another order of octets than the specification's.

use super::{Draft, Packet, Version};

/// How the senders of a listener write the four octets of their agent id (chunk 0x0c).
///
/// HEP2 has an order of its own, which these senders keep, and HEP1 has no agent id: both stay as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AgentIdOrder {
    /// As the specification says, or nobody minds: what came stays.
    #[default]
    AsSent,
    /// The 16-bit number stands in the upper half, as sngrep 1.6 writes 2001: `07 d1 00 00`. An agent id whose lower half
    /// is not empty was not written so, and stays.
    UpperHalf,
    /// The least octet first, as some builds of sipgrep 2.1 write 101: `65 00 00 00`.
    LittleEndian,
}

impl AgentIdOrder {
    /// The agent id that the sender meant by what it sent.
    #[must_use]
    pub const fn meant(self, sent: u32) -> u32 {
        match self {
            Self::UpperHalf if sent.trailing_zeros() >= 16 => sent >> 16,
            Self::AsSent | Self::UpperHalf => sent,
            Self::LittleEndian => sent.swap_bytes(),
        }
    }

    /// The packet with the agent id that its sender meant, or `None` if that is what it says.
    #[must_use]
    pub fn corrected(self, packet: &Packet) -> Option<Packet> {
        let sent = packet.head().agent_id;
        let meant = self.meant(sent);
        if meant == sent || packet.head().version != Version::Hep3 {
            return None;
        }
        let mut draft = Draft::new(packet);
        // The new chunk takes the place of one of the same length, so there is nothing to refuse.
        draft.set_agent_id(meant).ok()?;
        Some(draft.into_packet())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_is_read_as_its_sender_meant_it() {
        use AgentIdOrder::{AsSent, LittleEndian, UpperHalf};
        for (order, sent, meant) in [
            (AsSent, [7, 0xd1, 0, 0], 0x07d1_0000),
            (UpperHalf, [7, 0xd1, 0, 0], 2_001),
            (UpperHalf, [0xff, 0xff, 0, 0], 0xffff),
            (UpperHalf, [0, 0, 0, 0], 0),
            // A sender that does it right, behind the same listener.
            (UpperHalf, [0, 0, 7, 0xd1], 2_001),
            (UpperHalf, [0, 1, 0, 1], 0x1_0001),
            (LittleEndian, [0x65, 0, 0, 0], 101),
            (LittleEndian, [0xd1, 7, 0, 0], 2_001),
            (LittleEndian, [1, 2, 3, 4], 0x0403_0201),
        ] {
            assert_eq!(order.meant(u32::from_be_bytes(sent)), meant, "{order:?} {sent:02x?}");
        }
    }
}
