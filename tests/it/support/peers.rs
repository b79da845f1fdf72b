//! Agents and collectors, as sockets of the test's own.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::PATIENCE;

/// An agent that sends over UDP.
pub(crate) fn udp_agent(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// A collector that takes datagrams.
pub(crate) struct UdpSink {
    socket: UdpSocket,
}

impl UdpSink {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// As a collector's `to`.
    pub(crate) fn to(&self) -> String {
        format!("hep_udp:{}", self.socket.local_addr().unwrap())
    }

    /// The next datagram.
    pub(crate) fn next(&self) -> Vec<u8> {
        let mut octets = vec![0; 65_536];
        let length = self.socket.recv(&mut octets).expect("no datagram came");
        octets.truncate(length);
        octets
    }

    /// The next so many.
    pub(crate) fn take(&self, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Whether nothing more is there. Say so only after what would have sent it is known to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let nothing = self.socket.recv(&mut [0; 16]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        nothing
    }
}

/// A collector that takes connections.
pub(crate) struct TcpSink {
    listener: TcpListener,
}

impl TcpSink {
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// As a collector's `to`.
    pub(crate) fn to(&self) -> String {
        format!("hep_tcp:{}", self.listener.local_addr().unwrap())
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// The next HEP3 packet of a stream.
pub(crate) fn next_packet(stream: &mut impl Read) -> Vec<u8> {
    let mut packet = vec![0; 6];
    stream.read_exact(&mut packet).expect("no packet came");
    let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    packet.resize(length, 0);
    stream.read_exact(&mut packet[6..]).expect("the packet ended early");
    packet
}
