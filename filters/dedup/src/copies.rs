//! Which packets are copies, and of what: of hashes and times, with no clock and no memory of its own.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use hepgate_kit::{IpAddress, Scalars};

/// Agents that are told apart for one packet. One more is taken to have sent a copy.
const AGENTS_MAX: usize = 8;
/// How far back sightings are counted from when their number has come to the end of its octet.
const REBASED: u8 = 128;

/// What a packet and its copies have in common: a hash of payload and flow, as anybody can compute it. `None` for what
/// has no flow.
pub(crate) fn key(scalars: &Scalars, payload: &[u8]) -> Option<u128> {
    let mut flow = [0; 40];
    let (source, rest) = flow.split_first_chunk_mut::<17>()?;
    write(scalars.source, source)?;
    let (destination, rest) = rest.split_first_chunk_mut::<17>()?;
    write(scalars.destination, destination)?;
    let [a, b] = scalars.source_port.to_be_bytes();
    let [c, d] = scalars.destination_port.to_be_bytes();
    rest.get_mut(..6)?.copy_from_slice(&[a, b, c, d, scalars.ip_protocol, scalars.payload_type]);
    // Some agents send the 0 at the end of their buffer, too.
    let end = payload.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    Some(xxh3_128_with_seed(payload.get(..end)?, xxh3_64(&flow)))
}

fn write(address: IpAddress, to: &mut [u8; 17]) -> Option<()> {
    let (family, bits) = match address {
        IpAddress::None => return None,
        IpAddress::Ipv4(bits) => (4, u128::from(bits)),
        IpAddress::Ipv6((high, low)) => (6, u128::from(high) << 64 | u128::from(low)),
    };
    let (first, rest) = to.split_first_mut()?;
    *first = family;
    rest.copy_from_slice(&bits.to_be_bytes());
    Some(())
}

/// Who has seen a packet, and how often. One that was sent again is seen again by all that capture it; so of what
/// several have seen, as many are kept as the one saw that saw it most often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sightings {
    /// When it was last seen, in microseconds since the epoch.
    pub(crate) at: u64,
    kept: u8,
    agents: u8,
    by: [(u32, u8); AGENTS_MAX],
}

impl Sightings {
    /// Seen for the first time.
    pub(crate) fn first(agent: u32, at: u64) -> Self {
        let mut by = [(0, 0); AGENTS_MAX];
        if let Some(first) = by.first_mut() {
            *first = (agent, 1);
        }
        Self { at, kept: 1, agents: 1, by }
    }

    /// Seen again. Whether it is a copy of what was kept.
    pub(crate) fn again(&mut self, agent: u32, at: u64) -> bool {
        self.at = self.at.max(at);
        let place = self.by.iter().take(self.agents.into()).position(|(known, _)| *known == agent);
        let place = place.unwrap_or_else(|| {
            self.agents = self.agents.saturating_add(1);
            usize::from(self.agents) - 1
        });
        if self.by.get(place).is_some_and(|(_, times)| *times == u8::MAX) {
            self.rebase();
        }
        let Some(by) = self.by.get_mut(place) else {
            self.agents = u8::try_from(AGENTS_MAX).unwrap_or(u8::MAX);
            return true;
        };
        *by = (agent, by.1.saturating_add(1));
        let is_copy = by.1 <= self.kept;
        self.kept = self.kept.max(by.1);
        is_copy
    }

    /// Counts less for all: by how much one agent is ahead of another is what decides.
    fn rebase(&mut self) {
        self.kept = self.kept.saturating_sub(REBASED);
        for (_, times) in &mut self.by {
            *times = times.saturating_sub(REBASED);
        }
    }

    /// As octets.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut octets = self.at.to_be_bytes().to_vec();
        octets.push(self.kept);
        for (agent, times) in self.by.iter().take(self.agents.into()) {
            octets.extend_from_slice(&agent.to_be_bytes());
            octets.push(*times);
        }
        octets
    }

    /// From what [`Self::write`] wrote.
    pub(crate) fn read(octets: &[u8]) -> Option<Self> {
        let (at, rest) = octets.split_first_chunk()?;
        let (kept, rest) = rest.split_first()?;
        let mut read = Self { at: u64::from_be_bytes(*at), kept: *kept, agents: 0, by: [(0, 0); AGENTS_MAX] };
        let (agents, _) = rest.as_chunks::<5>();
        for (by, [a, b, c, d, times]) in read.by.iter_mut().zip(agents) {
            *by = (u32::from_be_bytes([*a, *b, *c, *d]), *times);
            read.agents += 1;
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    const SCALARS: Scalars = Scalars {
        version: 3,
        ip_protocol: 17,
        payload_type: 1,
        marks: 0,
        source_port: 5060,
        destination_port: 5080,
        agent_id: 1,
        payload_length: 0,
        source: IpAddress::Ipv4(0x0a00_0001),
        destination: IpAddress::Ipv4(0x0a00_0002),
        captured_at: 1,
    };

    /// Which of the sightings are copies.
    fn copies(agents: &[u32]) -> Vec<bool> {
        let mut sightings = Sightings::first(agents[0], 0);
        agents.iter().skip(1).map(|agent| sightings.again(*agent, 0)).collect()
    }

    #[test]
    fn what_another_agent_saw_is_a_copy_and_what_the_same_saw_again_is_not() {
        assert_eq!(copies(&[1, 2]), [true]);
        assert_eq!(copies(&[1, 1]), [false], "sent again");
        assert_eq!(copies(&[1, 2, 1, 2]), [true, false, true], "sent again, and seen again by both");
        assert_eq!(copies(&[1, 1, 2, 2]), [false, true, true], "the same in another order");
        assert_eq!(copies(&[1, 2, 2]), [true, false], "only the second saw that it was sent again");
        assert_eq!(copies(&[1, 2, 3, 2, 1, 3]), [true, true, false, true, true]);
    }

    #[test]
    fn more_agents_than_are_told_apart_send_copies() {
        let agents: Vec<u32> = (0..20).chain(0..2).collect();
        let copies = copies(&agents);
        assert!(copies[..19].iter().all(|is_copy| *is_copy));
        assert_eq!(copies[19..], [false, true], "the first ones are still known");
    }

    /// A flood of one packet, as of an agent in a loop: its 256th was taken for a copy, as the count ended there.
    #[test]
    fn what_one_agent_sees_again_is_no_copy_however_often() {
        assert!(copies(&[1; 2_000]).iter().all(|is_copy| !is_copy));
        let both: Vec<u32> = (0..2_000).map(|n| n % 2).collect();
        assert!(copies(&both).iter().zip(0..).all(|(is_copy, n)| *is_copy == (n % 2 == 0)));
    }

    #[test]
    fn sightings_are_read_as_they_were_written() {
        let mut sightings = Sightings::first(u32::MAX, 1);
        for agent in 0..9 {
            sightings.again(agent, u64::from(agent));
            assert_eq!(Sightings::read(&sightings.write()), Some(sightings));
        }
        assert_eq!(Sightings::read(b"short"), None);
        assert!(Sightings::read(&[0xff; 200]).is_some(), "whatever it is, it is bounded");
    }

    #[test]
    fn a_packet_with_another_flow_or_payload_is_another() {
        let payload = b"INVITE sip:a SIP/2.0\r\n\r\n";
        let key_of = |scalars: &Scalars| key(scalars, payload);
        let same = key_of(&SCALARS);
        assert!(same.is_some());
        assert_eq!(key_of(&Scalars { agent_id: 2, captured_at: 9, version: 2, ..SCALARS }), same);
        assert_eq!(key(&SCALARS, b"INVITE sip:a SIP/2.0\r\n\r\n\0\0"), same);
        for other in [
            Scalars { source: IpAddress::Ipv4(0x0a00_0003), ..SCALARS },
            Scalars { source: IpAddress::Ipv6((0, 0x0a00_0001)), ..SCALARS },
            Scalars { destination_port: 5061, ..SCALARS },
            Scalars { source: SCALARS.destination, destination: SCALARS.source, ..SCALARS },
            Scalars { ip_protocol: 6, ..SCALARS },
            Scalars { payload_type: 5, ..SCALARS },
        ] {
            assert_ne!(key_of(&other), same);
        }
        assert_ne!(key(&SCALARS, b"INVITE sip:b SIP/2.0\r\n\r\n"), same);
        assert_eq!(key_of(&Scalars { source: IpAddress::None, ..SCALARS }), None);
        assert!(key(&SCALARS, b"\0\0").is_some());
    }
}
