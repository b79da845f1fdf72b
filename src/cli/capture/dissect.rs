//! Frames to pieces: link, VLAN, IP, fragments, UDP and TCP. Checksums are not judged: network cards fill them in late.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use etherparse::err::Layer;
use etherparse::{
    EtherType, IpFragOffset, Ipv6ExtensionSlice, LaxIpPayloadSlice, LaxIpv4Slice, LaxIpv6Slice, LaxNetSlice,
    LaxSlicedPacket, TcpSlice, UdpSlice, ip_number,
};

use super::file::Frame;
use super::fragments::{Fragment, Fragments, Key};
use super::stream::Segment;
use super::streams::Streams;
use super::{At, Fault, Flow, Out, Piece, Reason, Transport, What};

/// Link types in the registry of tcpdump.org.
mod link {
    pub(super) const NULL: u16 = 0;
    pub(super) const ETHERNET: u16 = 1;
    pub(super) const RAW_AS_SYSTEMS_NUMBER_IT: u16 = 12;
    pub(super) const RAW: u16 = 101;
    pub(super) const LOOP: u16 = 108;
    pub(super) const LINUX_SLL: u16 = 113;
    pub(super) const IPV4: u16 = 228;
    pub(super) const IPV6: u16 = 229;
    pub(super) const LINUX_SLL2: u16 = 276;
}

/// Octets of the family before the IP packet in NULL and LOOP frames.
const FAMILY_OCTETS: usize = 4;
/// What the systems call IPv4 and IPv6 there: everybody, then NetBSD, FreeBSD, macOS, Linux.
const FAMILIES: [u32; 5] = [2, 24, 28, 30, 10];
/// Octets of the Linux cooked header, version 1: the protocol stands at its end.
const SLL_OCTETS: usize = 16;
/// Octets of the Linux cooked header, version 2: the protocol stands at its beginning.
const SLL2_OCTETS: usize = 20;

/// Turns frames into pieces.
#[derive(Debug)]
pub(super) struct Dissector {
    /// Ports wanted; all if empty.
    ports: Vec<u16>,
    fragments: Fragments,
    streams: Streams,
    /// Unknown link types that were complained about. At most one entry for each of the 65 536.
    unknown_links: Vec<u16>,
    /// Of the last frame.
    at: At,
}

/// What an IP header says, in either version.
struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    payload: &'a LaxIpPayloadSlice<'a>,
    /// Octets that the header announces and the frame lacks.
    missing: usize,
    /// Identification, offset, and whether more follow, if this is a fragment.
    fragment: Option<(u32, IpFragOffset, bool)>,
}

impl Dissector {
    pub(super) fn new(ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            fragments: Fragments::default(),
            streams: Streams::default(),
            unknown_links: Vec::new(),
            at: At::default(),
        }
    }

    /// Takes the next frame.
    pub(super) fn frame(&mut self, frame: &Frame, out: &mut Out<Piece>) {
        self.at = frame.at;
        if let Err(reason) = self.link(frame, out) {
            let have = frame.octets.len();
            // A header that makes no sense because half of it was not captured.
            let reason = match reason {
                Reason::Header { .. } if have < frame.stated => Reason::Cut { have, stated: frame.stated },
                reason => reason,
            };
            out.push_back(Err(Fault::at_frame(frame.at.frame, reason)));
        }
    }

    /// The capture has no more frames: what is incomplete stays so.
    pub(super) fn end(&mut self, out: &mut Out<Piece>) {
        self.fragments.end(out);
        self.streams.end(self.at, out);
    }

    fn link(&mut self, frame: &Frame, out: &mut Out<Piece>) -> Result<(), Reason> {
        let sliced = match slice(frame.link, &frame.octets) {
            Err(Reason::LinkType(link)) if self.unknown_links.contains(&link) => return Ok(()),
            Err(Reason::LinkType(link)) => {
                self.unknown_links.push(link);
                return Err(Reason::LinkType(link));
            }
            sliced => sliced?,
        };
        // A frame of something else than IP.
        let Some(sliced) = sliced else { return Ok(()) };
        match (&sliced.net, &sliced.stop_err) {
            (_, Some((error, layer))) if !is_behind_ip(*layer) => Err(header(layer, error)),
            (Some(LaxNetSlice::Ipv4(ip)), _) => self.ip(&ipv4(ip), out),
            (Some(LaxNetSlice::Ipv6(ip)), _) => self.ip(&ipv6(ip), out),
            _ => Ok(()),
        }
    }

    fn ip(&mut self, ip: &Ip<'_>, out: &mut Out<Piece>) -> Result<(), Reason> {
        let Some((identification, offset, more)) = ip.fragment else {
            return self.transport(ip, ip.payload.payload, out);
        };
        if !matches!(ip.payload.ip_number, ip_number::UDP | ip_number::TCP) {
            return Ok(());
        }
        let octets = ip.payload.payload;
        if ip.missing > 0 {
            return Err(Reason::Cut { have: octets.len(), stated: octets.len() + ip.missing });
        }
        let protocol = ip.payload.ip_number;
        let key = Key { source: ip.source, destination: ip.destination, identification, protocol };
        match self.fragments.push(self.at, Fragment { key, offset, more, octets }, out) {
            Some(whole) => self.transport(ip, &whole, out),
            None => Ok(()),
        }
    }

    fn transport(&mut self, ip: &Ip<'_>, octets: &[u8], out: &mut Out<Piece>) -> Result<(), Reason> {
        match ip.payload.ip_number {
            ip_number::UDP => self.udp(ip, octets, out),
            ip_number::TCP => self.tcp(ip, octets, out),
            _ => Ok(()),
        }
    }

    fn udp(&self, ip: &Ip<'_>, octets: &[u8], out: &mut Out<Piece>) -> Result<(), Reason> {
        let udp = UdpSlice::from_slice_lax(octets).map_err(|error| header(&Layer::UdpHeader, &error))?;
        let flow = ip.flow(Transport::Udp, udp.source_port(), udp.destination_port());
        if self.wants(flow) {
            let missing = usize::from(udp.length()).saturating_sub(udp.slice().len());
            let what = What::Datagram { octets: Bytes::copy_from_slice(udp.payload()), missing };
            out.push_back(Ok(Piece { at: self.at, flow, what }));
        }
        Ok(())
    }

    fn tcp(&mut self, ip: &Ip<'_>, octets: &[u8], out: &mut Out<Piece>) -> Result<(), Reason> {
        let tcp = TcpSlice::from_slice(octets).map_err(|error| header(&Layer::TcpHeader, &error))?;
        let flow = ip.flow(Transport::Tcp, tcp.source_port(), tcp.destination_port());
        if !self.wants(flow) {
            return Ok(());
        }
        if tcp.rst() {
            self.streams.reset(flow, self.at, out);
            return Ok(());
        }
        let segment = Segment {
            at: self.at,
            sequence: tcp.sequence_number(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            octets: Bytes::copy_from_slice(tcp.payload()),
            cut: ip.missing,
        };
        self.streams.push(flow, segment, out);
        Ok(())
    }

    fn wants(&self, flow: Flow) -> bool {
        let named = |address: SocketAddr| self.ports.contains(&address.port());
        self.ports.is_empty() || named(flow.source) || named(flow.destination)
    }
}

impl Ip<'_> {
    fn flow(&self, transport: Transport, source_port: u16, destination_port: u16) -> Flow {
        Flow {
            transport,
            source: SocketAddr::new(self.source, source_port),
            destination: SocketAddr::new(self.destination, destination_port),
        }
    }
}

/// Finds the IP packet in a frame; `None` if it holds something else.
fn slice(link: u16, octets: &[u8]) -> Result<Option<LaxSlicedPacket<'_>>, Reason> {
    match link {
        link::ETHERNET => {
            LaxSlicedPacket::from_ethernet(octets).map(Some).map_err(|error| header(&Layer::Ethernet2Header, &error))
        }
        link::RAW | link::RAW_AS_SYSTEMS_NUMBER_IT | link::IPV4 | link::IPV6 => slice_ip(octets).map(Some),
        link::NULL | link::LOOP => {
            let (family, ip) = split::<FAMILY_OCTETS>(octets)?;
            // The byte order is that of the machine that captured, which the file does not tell for sure.
            let known = [u32::from_le_bytes(*family), u32::from_be_bytes(*family)].map(|one| FAMILIES.contains(&one));
            if known.contains(&true) { slice_ip(ip).map(Some) } else { Ok(None) }
        }
        link::LINUX_SLL => {
            let (header, payload) = split::<SLL_OCTETS>(octets)?;
            let [.., p0, p1] = *header;
            Ok(Some(LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([p0, p1])), payload)))
        }
        link::LINUX_SLL2 => {
            let (header, payload) = split::<SLL2_OCTETS>(octets)?;
            let [p0, p1, ..] = *header;
            Ok(Some(LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([p0, p1])), payload)))
        }
        unknown => Err(Reason::LinkType(unknown)),
    }
}

fn slice_ip(octets: &[u8]) -> Result<LaxSlicedPacket<'_>, Reason> {
    LaxSlicedPacket::from_ip(octets).map_err(|error| header(&Layer::IpHeader, &error))
}

fn split<const N: usize>(octets: &[u8]) -> Result<(&[u8; N], &[u8]), Reason> {
    octets.split_first_chunk().ok_or_else(|| Reason::Header {
        layer: "link header".to_owned(),
        text: format!("{} octets, fewer than its {N}", octets.len()),
    })
}

fn header(layer: &Layer, error: &impl ToString) -> Reason {
    Reason::Header { layer: layer.to_string(), text: error.to_string() }
}

/// Whether a header of that kind stands behind that of IP, where we read it ourselves or not at all.
const fn is_behind_ip(layer: Layer) -> bool {
    use Layer::{Arp, Icmpv4, Icmpv4Timestamp, Icmpv4TimestampReply, Icmpv6, Igmp, TcpHeader, UdpHeader, UdpPayload};
    matches!(
        layer,
        Arp | Icmpv4 | Icmpv4Timestamp | Icmpv4TimestampReply | Icmpv6 | Igmp | TcpHeader | UdpHeader | UdpPayload
    )
}

fn ipv4<'a>(ip: &'a LaxIpv4Slice<'a>) -> Ip<'a> {
    let (header, payload) = (ip.header(), ip.payload());
    let extension_octets = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
    let here = header.slice().len() + extension_octets + payload.payload.len();
    Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        payload,
        missing: usize::from(header.total_len()).saturating_sub(here),
        fragment: payload
            .fragmented
            .then(|| (u32::from(header.identification()), header.fragments_offset(), header.more_fragments())),
    }
}

fn ipv6<'a>(ip: &'a LaxIpv6Slice<'a>) -> Ip<'a> {
    let (header, payload) = (ip.header(), ip.payload());
    let here = ip.extensions().slice().len() + payload.payload.len();
    let fragment = ip.extensions().clone().into_iter().find_map(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(fragment) if fragment.is_fragmenting_payload() => {
            Some((fragment.identification(), fragment.fragment_offset(), fragment.more_fragments()))
        }
        _ => None,
    });
    Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        payload,
        missing: usize::from(header.payload_length()).saturating_sub(here),
        fragment,
    }
}
