//! Captures built in memory: frames with etherparse, files by hand.

use std::fs;
use std::io::Cursor;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bytes::Bytes;
use etherparse::{
    EtherType, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder, PacketBuilderStep,
    SingleVlanHeader, TcpHeader, UdpHeader, VlanId, ether_type, ip_number,
};
use hepgate::cli::capture::{Capture, Found, HepFinder};
use hepgate::wire::{CapturedAt, ChunkId, Pack, Packet, PayloadType, Version};

/// 2026-11-23 07:16:40 UTC.
pub(crate) const TIME: u64 = 1_795_418_200_000_000;

/// A captured frame: microseconds since the epoch, octets, octets that it had.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) micros: u64,
    pub(crate) octets: Vec<u8>,
    pub(crate) stated: usize,
}

/// Frames of which each comes a millisecond after the one before.
pub(crate) fn frames(octets: impl IntoIterator<Item = Vec<u8>>) -> Vec<Frame> {
    let frame = |(n, octets): (u64, Vec<u8>)| Frame { micros: TIME + n * 1000, stated: octets.len(), octets };
    (0..).zip(octets).map(frame).collect()
}

/// How a pcap file is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pcap {
    pub(crate) link: u32,
    pub(crate) big_endian: bool,
    pub(crate) nanoseconds: bool,
}

/// As tcpdump writes it here.
pub(crate) const ETHERNET: Pcap = Pcap { link: 1, big_endian: false, nanoseconds: false };

impl Pcap {
    pub(crate) fn file(self, frames: &[Frame]) -> Vec<u8> {
        let u16 = |n: u16| if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let u32 = |n: usize| number(n, self.big_endian);
        let magic = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut file = [u32(magic).as_slice(), &u16(2), &u16(4), &[0; 8], &u32(262_144)].concat();
        file.extend(u32(self.link as usize));
        for frame in frames {
            let fraction = frame.micros % 1_000_000 * if self.nanoseconds { 1000 } else { 1 };
            file.extend(u32(usize::try_from(frame.micros / 1_000_000).unwrap()));
            file.extend(u32(usize::try_from(fraction).unwrap()));
            file.extend(u32(frame.octets.len()));
            file.extend(u32(frame.stated));
            file.extend(&frame.octets);
        }
        file
    }
}

/// Writes a pcapng file block by block.
pub(crate) struct Pcapng {
    pub(crate) file: Vec<u8>,
    pub(crate) big_endian: bool,
}

impl Pcapng {
    pub(crate) fn new(big_endian: bool) -> Self {
        let mut file = Self { file: Vec::new(), big_endian };
        file.section(big_endian);
        file
    }

    pub(crate) fn section(&mut self, big_endian: bool) {
        self.big_endian = big_endian;
        let version = if big_endian { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
        self.block(0x0a0d_0d0a, &[number(0x1a2b_3c4d, big_endian).as_slice(), &version, &[0xff; 8]].concat());
    }

    /// `options`: code and value.
    pub(crate) fn interface(&mut self, link: u16, snap: usize, options: &[(u16, &[u8])]) {
        let u16 = |n: u16| if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut body = [u16(link).as_slice(), &[0, 0], &number(snap, self.big_endian)].concat();
        for (code, value) in options {
            body.extend(u16(*code));
            body.extend(u16(u16::try_from(value.len()).unwrap()));
            body.extend(padded(value));
        }
        body.extend([0; 4]);
        self.block(1, &body);
    }

    pub(crate) fn packet(&mut self, interface: usize, units: u64, frame: &Frame) {
        let u32 = |n: usize| number(n, self.big_endian);
        let (high, low) = (usize::try_from(units >> 32).unwrap(), usize::try_from(units & 0xffff_ffff).unwrap());
        let head = [u32(interface), u32(high), u32(low), u32(frame.octets.len()), u32(frame.stated)].concat();
        self.block(6, &[head, padded(&frame.octets)].concat());
    }

    pub(crate) fn simple_packet(&mut self, frame: &Frame) {
        self.block(3, &[number(frame.stated, self.big_endian).to_vec(), padded(&frame.octets)].concat());
    }

    pub(crate) fn block(&mut self, kind: usize, body: &[u8]) {
        let octets = number(body.len() + 12, self.big_endian);
        let block = [number(kind, self.big_endian).as_slice(), &octets, body, &octets].concat();
        self.file.extend(block);
    }
}

fn number(n: usize, big_endian: bool) -> [u8; 4] {
    let n = u32::try_from(n).unwrap();
    if big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
}

fn padded(octets: &[u8]) -> Vec<u8> {
    let mut padded = octets.to_vec();
    padded.resize(octets.len().next_multiple_of(4), 0);
    padded
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A UDP datagram with its IP header, of the addresses' version.
pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (address(source), address(destination));
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = PacketBuilder::ipv4(from.octets(), to.octets(), 64);
            write(ip.udp(source.port(), destination.port()), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = PacketBuilder::ipv6(from.octets(), to.octets(), 64);
            write(ip.udp(source.port(), destination.port()), payload)
        }
        _ => panic!("mixed families"),
    }
}

fn write(step: PacketBuilderStep<UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    step.write(&mut octets, payload).unwrap();
    octets
}

/// A TCP segment over IPv4 with its IP header.
pub(crate) fn tcp(source: &str, destination: &str, sequence: u32, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (address(source), address(destination)) else {
        panic!("IPv4")
    };
    let mut header = TcpHeader::new(source.port(), destination.port(), sequence, 1024);
    header.ack = true;
    header.syn = flags.contains('S');
    header.fin = flags.contains('F');
    header.rst = flags.contains('R');
    let ip = PacketBuilder::ipv4(source.ip().octets(), destination.ip().octets(), 64);
    let mut octets = Vec::new();
    ip.tcp_header(header).write(&mut octets, payload).unwrap();
    octets
}

/// An IP packet cut into fragments of `size` octets (a multiple of 8) of payload each.
pub(crate) fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let is_ipv4 = packet[0] >> 4 == 4;
    let (_, payload) = packet.split_at(if is_ipv4 { 20 } else { 40 });
    let count = payload.chunks(size).count();
    let fragment = |(n, part): (usize, &[u8])| {
        let offset = IpFragOffset::try_new(u16::try_from(n * size / 8).unwrap()).unwrap();
        let more = n + 1 < count;
        let mut octets = Vec::new();
        if is_ipv4 {
            let (mut header, _) = Ipv4Header::from_slice(packet).unwrap();
            header.identification = 77;
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = offset;
            header.set_payload_len(part.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut octets).unwrap();
        } else {
            let (mut header, _) = Ipv6Header::from_slice(packet).unwrap();
            let fragment = Ipv6FragmentHeader::new(header.next_header, offset, more, 77);
            header.next_header = ip_number::IPV6_FRAG;
            header.set_payload_length(part.len() + 8).unwrap();
            header.write(&mut octets).unwrap();
            fragment.write(&mut octets).unwrap();
        }
        octets.extend(part);
        octets
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

/// The frame of Ethernet around an IP packet, with VLAN tags from the outermost inwards.
pub(crate) fn ethernet(vlans: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let inner = [EtherType::VLAN_TAGGED_FRAME].repeat(vlans.len().saturating_sub(1));
    let outer = if vlans.len() > 1 { EtherType::PROVIDER_BRIDGING } else { EtherType::VLAN_TAGGED_FRAME };
    let mut types: Vec<EtherType> = vlans.first().map(|_| outer).into_iter().chain(inner).collect();
    types.push(protocol(packet));
    frame.extend(types[0].0.to_be_bytes());
    for (vlan, ether_type) in vlans.iter().zip(&types[1..]) {
        let vlan_id = VlanId::try_new(*vlan).unwrap();
        let tag = SingleVlanHeader { vlan_id, ether_type: *ether_type, ..SingleVlanHeader::default() };
        frame.extend(tag.to_bytes());
    }
    frame.extend(packet);
    // Short frames are padded, which must not become payload.
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(crate) fn protocol(packet: &[u8]) -> EtherType {
    if packet[0] >> 4 == 4 { ether_type::IPV4 } else { ether_type::IPV6 }
}

/// An IP number that carries neither UDP nor TCP.
pub(crate) const SCTP: IpNumber = IpNumber::SCTP;

pub(crate) fn parts(n: u32, payload: &[u8]) -> Pack {
    Pack {
        ip_protocol: 17,
        flow: Some((address("192.0.2.10:5060"), address("192.0.2.20:5060"))),
        captured_at: Some(CapturedAt { seconds: 1_795_418_200 + n, microseconds: 250 }),
        payload_type: PayloadType::SIP,
        agent_id: 2000 + n,
        chunks: vec![(ChunkId::AGENT_NAME, Bytes::from_static(b"edge-1"))],
        payload: Some(Bytes::copy_from_slice(payload)),
    }
}

/// A HEP3 packet; `n` tells it from others.
pub(crate) fn hep3(n: u32, payload: &[u8]) -> Bytes {
    parts(n, payload).encode(Version::Hep3).unwrap()
}

pub(crate) const OPTIONS: &[u8] = b"OPTIONS sip:bob@example.com SIP/2.0\r\nContent-Length: 0\r\n\r\n";

/// What is found in a capture: packets, and faults as text with their frame.
pub(crate) fn hep_in(file: Vec<u8>, ports: &[u16]) -> (Vec<Found<Packet>>, Vec<String>) {
    let capture = match Capture::new(Cursor::new(file), ports) {
        Ok(capture) => capture,
        Err(error) => return (vec![], vec![format!("file {error}")]),
    };
    let (mut packets, mut faults) = (vec![], vec![]);
    for found in capture.find(HepFinder::new(ports.is_empty())) {
        match found {
            Ok(found) => packets.push(found),
            Err(fault) => faults.push(format!("{}: {fault}", fault.frame)),
        }
    }
    (packets, faults)
}

/// A file with these IP packets, in a folder that goes when the test ends.
pub(crate) fn built(packets: impl IntoIterator<Item = Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
    file(&frames(packets.into_iter().map(|packet| ethernet(&[], &packet))))
}

/// The same with these frames.
pub(crate) fn file(frames: &[Frame]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("built.pcap");
    fs::write(&path, ETHERNET.file(frames)).unwrap();
    (folder, path)
}
