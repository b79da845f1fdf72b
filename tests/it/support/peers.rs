//! Agents and collectors, as sockets of the test's own.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::certificates::Authority;
use super::{PATIENCE, eventually};

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

    /// The next datagram, if it comes soon.
    pub(crate) fn next_within(&self, time: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut octets = vec![0; 65_536];
        let length = self.socket.recv(&mut octets).ok();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        octets.truncate(length?);
        Some(octets)
    }

    /// Datagrams that the kernel dropped because nobody read them in time.
    pub(crate) fn kernel_drops(&self) -> u64 {
        kernel_drops(self.socket.local_addr().unwrap().port()).try_into().unwrap()
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

    /// The next connection, if it is there.
    pub(crate) fn try_accept(&self) -> Option<TcpStream> {
        self.listener.set_nonblocking(true).unwrap();
        let accepted = self.listener.accept().ok();
        self.listener.set_nonblocking(false).unwrap();
        accepted.map(|(stream, _)| {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
    }
}

/// A stream in TLS, as the collector has it.
pub(crate) type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// A collector that takes connections in TLS.
pub(crate) struct TlsSink {
    plain: TcpSink,
    config: Arc<ServerConfig>,
}

impl TlsSink {
    /// It shows that certificate and, if there is one, wants ours signed by that authority.
    pub(crate) fn new(
        (certificate, key): &(String, String),
        client_authority: Option<&Authority>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
        let builder = match client_authority {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        Self { plain: TcpSink::new(), config: Arc::new(builder.with_single_cert(chain, key).unwrap()) }
    }

    /// The same, at the same address, with another certificate.
    pub(crate) fn with_certificate(self, pair: &(String, String)) -> Self {
        Self { plain: self.plain, ..Self::new(pair, None, &[&rustls::version::TLS12, &rustls::version::TLS13]) }
    }

    /// As a collector's `to`.
    pub(crate) fn to(&self) -> String {
        self.plain.to().replace("hep_tcp:", "hep_tls:")
    }

    /// The next connection, whose handshake is done.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) fn accept(&self) -> std::io::Result<TlsStream> {
        let mut stream = self.plain.accept();
        let mut connection = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

/// An address at which nobody listens, and that nobody else takes meanwhile.
pub(crate) struct Nobody {
    reserved: socket2::Socket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        Self { reserved: Self::socket("127.0.0.1:0".parse().unwrap()) }
    }

    fn socket(address: SocketAddr) -> socket2::Socket {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket
    }

    fn address(&self) -> SocketAddr {
        self.reserved.local_addr().unwrap().as_socket().unwrap()
    }

    /// As a collector's `to`.
    pub(crate) fn to(&self) -> String {
        format!("hep_tcp:{}", self.address())
    }

    /// Somebody listens there from now on.
    pub(crate) fn come(&self) -> TcpSink {
        let socket = Self::socket(self.address());
        socket.listen(16).unwrap();
        TcpSink { listener: socket.into() }
    }
}

/// A peer whose system lets nobody connect, and says nothing.
pub(crate) struct Silence {
    listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Silence {
    pub(crate) fn new() -> Self {
        let socket = Nobody::socket("127.0.0.1:0".parse().unwrap());
        socket.listen(0).unwrap();
        let listener: TcpListener = socket.into();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // Until its queue is full.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(stream);
            assert!(queued.len() < 10, "the queue never fills");
        }
        Self { listener, _queued: queued }
    }

    /// As a collector's `to`.
    pub(crate) fn to(&self) -> String {
        format!("hep_tcp:{}", self.listener.local_addr().unwrap())
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

/// Waits until nothing of what was sent waits to be read by the other side: the kernel tells of a loopback connection.
pub(crate) fn await_unread(stream: &TcpStream) {
    let local = stream.local_addr().unwrap();
    eventually("the other side reads", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X} ", local.port());
        // The other side's line has our port as its remote one; its second queue is what it has not read.
        let line =
            table.lines().find(|line| line.split_whitespace().nth(2).is_some_and(|r| format!("{r} ").ends_with(&port)));
        line.is_some_and(|line| line.split_whitespace().nth(4).is_some_and(|queues| queues.ends_with(":00000000")))
    });
}

/// Datagrams that the system dropped because the buffers of the sockets at this port were full.
pub(crate) fn kernel_drops(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let ours = format!("0100007F:{port:04X}");
    let lines = table.lines().filter(|line| line.split_whitespace().nth(1) == Some(&ours));
    lines.filter_map(|line| line.split_whitespace().last()).map(|drops| drops.parse::<usize>().unwrap()).sum()
}
