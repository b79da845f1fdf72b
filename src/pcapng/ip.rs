//! IP packets made of HEP: the captured packet itself, or the HEP packet as it came to us. No file in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use etherparse::err::packet::BuildWriteError;

use crate::config::Transport;
use crate::message::Received;
use crate::wire::{CapturedAt, Payload};

/// The time to live of what we make: nobody sees the true one.
const TTL: u8 = 64;
/// The window in TCP headers that we make: large enough that no tool warns of a full one.
const WINDOW: u16 = 65_535;
/// Octets of a TCP segment that we make. Longer payloads are several: the length in an IP header is a u16.
const SEGMENT_OCTETS_MAX: usize = 65_000;
/// Octets of a UDP payload that we can make: an IPv4 packet with its two headers has at most 65 535.
const UDP_PAYLOAD_OCTETS_MAX: usize = 65_507;
/// TCP flows whose sequence numbers are kept, twice: those of late, and those before. A flow that is forgotten begins
/// anew, which tools show as a gap and nothing worse. 2 x 65 536 flows of 88 octets are 11 MiB at most.
const FLOWS_MAX: usize = 65_536;

/// IP protocol numbers in HEP that mean a stream: TCP itself, and what agents put for TLS and WebSocket.
const STREAM_PROTOCOLS: [u8; 3] = [6, 22, 50];

/// Why there is no IP packet.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotMade {
    /// A control packet, or one whose payload is compressed.
    #[error("a packet without a readable payload: there is nothing captured to write")]
    NoPayload,
    /// It does not fit the length in a header.
    #[error("{0} octets do not fit a UDP packet")]
    TooLong(usize),
    /// The header could not be made.
    #[error("no header could be made: {0}")]
    Header(String),
}

/// Makes IP packets, with sequence numbers that run on for each TCP flow.
#[derive(Debug, Default)]
pub(crate) struct IpMaker {
    flows: Flows,
}

/// Who sends what to whom, over what.
#[derive(Clone, Copy)]
struct Flight<'a> {
    source: SocketAddr,
    destination: SocketAddr,
    stream: bool,
    payload: &'a [u8],
}

impl IpMaker {
    /// The captured packet: its payload under IP and UDP or TCP headers of the addresses in HEP. Several if it is
    /// longer than one TCP segment. With the time of capture or, if HEP has none, that of receipt.
    pub(crate) fn captured(&mut self, received: &Received) -> Result<(CapturedAt, Vec<Vec<u8>>), NotMade> {
        let head = received.packet.head();
        let Payload::Plain(_) = head.payload else { return Err(NotMade::NoPayload) };
        let (source, destination) = addresses(head.source, head.destination);
        let flight = Flight {
            source: SocketAddr::new(source, head.source_port),
            destination: SocketAddr::new(destination, head.destination_port),
            stream: STREAM_PROTOCOLS.contains(&head.ip_protocol),
            payload: received.packet.payload(),
        };
        let at = head.captured_at.unwrap_or(received.origin.received_at);
        Ok((at, self.make(flight)?))
    }

    /// The HEP packet as it came, between the agent and us, with the time of receipt.
    pub(crate) fn hep(&mut self, received: &Received) -> Result<(CapturedAt, Vec<Vec<u8>>), NotMade> {
        let origin = received.origin;
        let (source, destination) = addresses(Some(origin.peer.ip()), Some(origin.local.ip()));
        let flight = Flight {
            source: SocketAddr::new(source, origin.peer.port()),
            destination: SocketAddr::new(destination, origin.local.port()),
            stream: origin.transport != Transport::Udp,
            payload: received.packet.octets(),
        };
        Ok((origin.received_at, self.make(flight)?))
    }

    fn make(&mut self, flight: Flight<'_>) -> Result<Vec<Vec<u8>>, NotMade> {
        if !flight.stream {
            if flight.payload.len() > UDP_PAYLOAD_OCTETS_MAX {
                return Err(NotMade::TooLong(flight.payload.len()));
            }
            return Ok(vec![udp(flight)?]);
        }
        // An empty payload is still a packet.
        let segments = flight.payload.chunks(SEGMENT_OCTETS_MAX);
        let empty = flight.payload.is_empty().then_some(flight.payload);
        segments.chain(empty).map(|payload| self.segment(Flight { payload, ..flight })).collect()
    }

    fn segment(&mut self, flight: Flight<'_>) -> Result<Vec<u8>, NotMade> {
        let (sequence, acknowledged) = self.flows.send(flight.source, flight.destination, flight.payload.len());
        let (source_port, destination_port) = (flight.source.port(), flight.destination.port());
        let mut octets = Vec::with_capacity(flight.payload.len() + 60);
        let made = match (flight.source.ip(), flight.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), TTL)
                    .tcp(source_port, destination_port, sequence, WINDOW)
                    .psh()
                    .ack(acknowledged)
                    .write(&mut octets, flight.payload)
            }
            (source, destination) => PacketBuilder::ipv6(ipv6(source), ipv6(destination), TTL)
                .tcp(source_port, destination_port, sequence, WINDOW)
                .psh()
                .ack(acknowledged)
                .write(&mut octets, flight.payload),
        };
        made.map(|()| octets).map_err(header)
    }
}

fn udp(flight: Flight<'_>) -> Result<Vec<u8>, NotMade> {
    let (source_port, destination_port) = (flight.source.port(), flight.destination.port());
    let mut octets = Vec::with_capacity(flight.payload.len() + 48);
    let made = match (flight.source.ip(), flight.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), TTL)
                .udp(source_port, destination_port)
                .write(&mut octets, flight.payload)
        }
        (source, destination) => PacketBuilder::ipv6(ipv6(source), ipv6(destination), TTL)
            .udp(source_port, destination_port)
            .write(&mut octets, flight.payload),
    };
    made.map(|()| octets).map_err(header)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn header(error: BuildWriteError) -> NotMade {
    NotMade::Header(error.to_string())
}

/// Both addresses, of one family: a missing one is all zeros, and of a mixed pair the IPv4 one is written as IPv6.
fn addresses(source: Option<IpAddr>, destination: Option<IpAddr>) -> (IpAddr, IpAddr) {
    let (source, destination) = (source.map(|ip| ip.to_canonical()), destination.map(|ip| ip.to_canonical()));
    let nothing = |other: Option<IpAddr>| match other {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    match (source, destination) {
        (Some(source), Some(destination)) if source.is_ipv4() == destination.is_ipv4() => (source, destination),
        // We listen on all addresses: that is no IPv6 address of an IPv4 peer.
        (Some(source), Some(destination)) if destination.is_unspecified() => (source, nothing(Some(source))),
        (Some(source), Some(destination)) => (ipv6(source).into(), ipv6(destination).into()),
        (source, destination) => {
            (source.unwrap_or_else(|| nothing(destination)), destination.unwrap_or_else(|| nothing(source)))
        }
    }
}

const fn ipv6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The next sequence number of each direction of each flow, for a bounded number of flows.
#[derive(Debug, Default)]
struct Flows {
    recent: HashMap<(SocketAddr, SocketAddr), u32>,
    before: HashMap<(SocketAddr, SocketAddr), u32>,
}

impl Flows {
    /// The sequence number of what is sent now, and the acknowledgement of what the other side sent.
    fn send(&mut self, source: SocketAddr, destination: SocketAddr, octets: usize) -> (u32, u32) {
        let acknowledged = self.next((destination, source));
        let sequence = self.next((source, destination));
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        self.remember((source, destination), sequence.wrapping_add(octets));
        (sequence, acknowledged)
    }

    /// Flows begin at 1: 0 looks to some tools like the number of a SYN.
    fn next(&self, flow: (SocketAddr, SocketAddr)) -> u32 {
        self.recent.get(&flow).or_else(|| self.before.get(&flow)).copied().unwrap_or(1)
    }

    fn remember(&mut self, flow: (SocketAddr, SocketAddr), next: u32) {
        if self.recent.len() >= FLOWS_MAX && !self.recent.contains_key(&flow) {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.insert(flow, next);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::message::Origin;
    use crate::wire::{Pack, PayloadType, Version, decode};

    const RECEIVED_AT: CapturedAt = CapturedAt { seconds: 99, microseconds: 0 };

    fn received(ip_protocol: u8, from: &str, to: &str, payload: &[u8]) -> Received {
        let pack = Pack {
            ip_protocol,
            flow: Some((from.parse().unwrap(), to.parse().unwrap())),
            captured_at: Some(CapturedAt { seconds: 7, microseconds: 8 }),
            payload_type: PayloadType::SIP,
            agent_id: 1,
            chunks: Vec::new(),
            payload: Some(Bytes::copy_from_slice(payload)),
        };
        let packet = decode(pack.encode(Version::Hep3).unwrap()).unwrap();
        Received { packet, origin: Origin::ours(RECEIVED_AT) }
    }

    #[test]
    fn a_udp_packet_has_the_addresses_ports_payload_and_time_of_the_captured_one() {
        for (from, to) in [("192.0.2.1:5060", "192.0.2.2:5070"), ("[2001:db8::1]:5060", "[2001:db8::2]:5070")] {
            let (at, packets) = IpMaker::default().captured(&received(17, from, to, b"OPTIONS")).unwrap();
            assert_eq!(at, CapturedAt { seconds: 7, microseconds: 8 });
            let sliced = SlicedPacket::from_ip(&packets[0]).unwrap();
            let (source, destination) = match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
                }
                NetSlice::Ipv6(ip) => {
                    (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
                }
                other => panic!("{other:?}"),
            };
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP") };
            assert_eq!(SocketAddr::new(source, udp.source_port()), from.parse().unwrap());
            assert_eq!(SocketAddr::new(destination, udp.destination_port()), to.parse().unwrap());
            assert_eq!(udp.payload(), b"OPTIONS");
        }
    }

    #[test]
    fn sequence_numbers_run_on_in_both_directions() {
        let mut maker = IpMaker::default();
        let (a, b) = ("192.0.2.1:5060", "192.0.2.2:5070");
        let mut seen = Vec::new();
        for (from, to, payload) in [(a, b, "12345"), (a, b, "678"), (b, a, "xy"), (a, b, "9")] {
            let (_, packets) = maker.captured(&received(6, from, to, payload.as_bytes())).unwrap();
            let sliced = SlicedPacket::from_ip(&packets[0]).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
            seen.push((tcp.sequence_number(), tcp.acknowledgment_number()));
        }
        assert_eq!(seen, [(1, 1), (6, 1), (1, 9), (9, 3)]);
    }

    #[test]
    fn tls_and_websocket_are_written_as_the_streams_they_are() {
        for ip_protocol in [6, 22, 50] {
            let packet = received(ip_protocol, "192.0.2.1:5061", "192.0.2.2:5061", b"INVITE");
            let (_, packets) = IpMaker::default().captured(&packet).unwrap();
            let sliced = SlicedPacket::from_ip(&packets[0]).unwrap();
            assert!(matches!(sliced.transport, Some(TransportSlice::Tcp(_))), "{ip_protocol}");
        }
    }

    #[test]
    fn the_longest_payload_becomes_two_segments_and_does_not_fit_udp() {
        let payload = vec![b'x'; 65_400];
        let mut maker = IpMaker::default();
        let (_, packets) = maker.captured(&received(6, "192.0.2.1:1", "192.0.2.2:2", &payload)).unwrap();
        let total: usize = packets
            .iter()
            .map(|packet| match SlicedPacket::from_ip(packet).unwrap().transport {
                Some(TransportSlice::Tcp(tcp)) => tcp.payload().len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!((packets.len(), total), (2, payload.len()));
        let packet = received(17, "192.0.2.1:1", "192.0.2.2:2", &payload);
        assert_eq!(maker.captured(&packet).unwrap().1.len(), 1, "65 400 octets fit UDP");
        let mut hep = received(17, "192.0.2.1:1", "192.0.2.2:2", &vec![b'x'; 65_430]);
        assert_eq!(maker.hep(&hep).unwrap_err(), NotMade::TooLong(hep.packet.octets().len()));
        hep.origin.transport = Transport::Tcp;
        assert_eq!(maker.hep(&hep).unwrap().1.len(), 2);
    }

    #[test]
    fn the_number_of_remembered_flows_is_bounded() {
        let mut flows = Flows::default();
        let to = "192.0.2.2:2".parse().unwrap();
        for port in 0..=u16::MAX {
            for ip in ["192.0.2.3", "192.0.2.4", "192.0.2.5"] {
                flows.send(SocketAddr::new(ip.parse().unwrap(), port), to, 1);
            }
        }
        assert!(flows.recent.len() <= FLOWS_MAX && flows.before.len() <= FLOWS_MAX);
        // The last one is remembered.
        let last = SocketAddr::new("192.0.2.5".parse().unwrap(), u16::MAX);
        assert_eq!(flows.send(last, to, 1).0, 2);
    }
}
