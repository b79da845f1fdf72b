//! `[[listener]]`: where HEP comes in.

use std::path::Path;
use std::time::Duration;

use super::reader::{Placed, Section};
use super::{ListenAddr, ProtoHep, ServerTls, Transport, tls};
use crate::wire::AgentIdOrder;

/// Where HEP comes in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// As in logs, metrics and rules.
    pub name: String,
    /// Where it binds.
    pub listen: ListenAddr,
    /// How its agents write their ids.
    pub agent_id: AgentIdOrder,
    /// A datagram that is one packet in gzip is unpacked instead of refused.
    pub unpacks_gzip: bool,
    /// Octets of the socket's receive buffer, for UDP: what covers the time in which nobody reads.
    pub receive_buffer_octets: usize,
    /// Limits of TCP and TLS.
    pub stream: StreamLimits,
    /// For TLS: who we are, and whom we let in.
    pub tls: Option<ServerTls>,
}

/// What a peer may do to a TCP listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// A connection on which nothing comes for so long is closed.
    pub idle: Duration,
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one peer address.
    pub connections_per_peer_max: usize,
    /// Reads that one packet may take.
    pub hep_max_msg_chunks: u32,
}

impl Listener {
    /// A listener with nothing but its name and address said.
    #[must_use]
    pub fn with_defaults(name: &str, listen: ListenAddr, proto_hep: &ProtoHep) -> Self {
        let stream = StreamLimits {
            idle: Duration::from_secs(600),
            connections_max: 10_000,
            connections_per_peer_max: 1_000,
            hep_max_msg_chunks: proto_hep.hep_max_msg_chunks,
        };
        let agent_id = AgentIdOrder::AsSent;
        let name = name.to_owned();
        Self { name, listen, agent_id, unpacks_gzip: false, receive_buffer_octets: 4 << 20, stream, tls: None }
    }
}

pub(super) fn read(mut section: Section<'_, '_>, proto_hep: &ProtoHep, folder: &Path) -> Option<Listener> {
    let name = section.name("listener");
    let listen = read_listen(&mut section, proto_hep.hep_port);
    let (Some(name), Some(listen)) = (name, listen) else {
        // Without an address nobody knows which keys belong here.
        return None;
    };
    let default = Listener::with_defaults(&name, listen, proto_hep);
    let orders = [
        ("as-sent", AgentIdOrder::AsSent),
        ("upper-half", AgentIdOrder::UpperHalf),
        ("little-endian", AgentIdOrder::LittleEndian),
    ];
    let agent_id = section.choice("agent_id", default.agent_id, &orders);
    let mut unpacks_gzip = default.unpacks_gzip;
    let (mut receive_buffer_octets, mut stream) = (default.receive_buffer_octets, default.stream);
    match listen.transport {
        Transport::Udp => {
            unpacks_gzip = section.choice("gzip_frames", unpacks_gzip, &[("refuse", false), ("unpack", true)]);
            receive_buffer_octets = section.count("receive_buffer_octets", receive_buffer_octets, 4 << 10..=1 << 30);
        }
        Transport::Tcp | Transport::Tls => {
            stream = StreamLimits {
                idle: section.duration("idle", stream.idle, Duration::from_millis(100)..=Duration::from_secs(86_400)),
                connections_max: section.count("connections_max", stream.connections_max, 1..=1_000_000),
                connections_per_peer_max: section.count(
                    "connections_per_peer_max",
                    stream.connections_per_peer_max,
                    1..=1_000_000,
                ),
                hep_max_msg_chunks: super::hep_max_msg_chunks(&mut section, stream.hep_max_msg_chunks),
            };
        }
    }
    let tls = match listen.transport {
        // What is missing was complained of.
        Transport::Tls => tls::read_server(&mut section, folder),
        Transport::Udp | Transport::Tcp => None,
    };
    section.finish();
    Some(Listener { tls, agent_id, unpacks_gzip, receive_buffer_octets, stream, ..default })
}

fn read_listen(section: &mut Section<'_, '_>, hep_port: u16) -> Option<ListenAddr> {
    let Placed { value, place } = section.text_required("listen", "such as \"hep_udp:127.0.0.1:5656\"")?;
    ListenAddr::parse(&value, hep_port).map_err(|reason| section.complain(&place, reason)).ok()
}
