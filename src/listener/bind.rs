//! Sockets, bound before anything starts.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::{ListenAddr, Listener, Transport};

/// Connections that may wait to be accepted; the kernel has a bound of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 1_024;

/// The sockets of one listener: one for each worker, all at the same address, between which the kernel spreads peers.
#[derive(Debug)]
pub enum Bound {
    /// For datagrams.
    Udp(Vec<StdUdpSocket>, SocketAddr),
    /// For connections.
    Tcp(Vec<StdTcpListener>, SocketAddr),
}

impl Bound {
    /// Where they are bound, with the port that the system chose if none was wanted.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(_, address) | Self::Tcp(_, address) => *address,
        }
    }

    /// Makes the receive buffers of sockets for datagrams as large as this listener wants them.
    pub fn set_receive_buffer(&self, listener: &Listener) {
        if let Self::Udp(sockets, _) = self {
            for socket in sockets {
                set_receive_buffer(&SockRef::from(socket), listener.receive_buffer_octets, &listener.name);
            }
        }
    }
}

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener:?}: {listen}: {reason}")]
pub struct BindError {
    /// The listener's name.
    pub listener: String,
    /// Where it was to listen.
    pub listen: ListenAddr,
    /// What the system said.
    pub reason: io::Error,
}

/// Binds a listener's sockets, one for each worker.
///
/// # Errors
/// [`BindError`]: a port in use, an address that is not ours, a port that needs more rights.
pub fn bind(listener: &Listener, workers: usize) -> Result<Bound, BindError> {
    let error = |reason| BindError { listener: listener.name.clone(), listen: listener.listen, reason };
    let mut first = None;
    let mut sockets = Vec::new();
    for _ in 0..workers.max(1) {
        let socket = match first {
            None => bind_first(listener).map_err(error)?,
            // All at the address that the first one got: the port may have been the system's choice.
            Some(address) => bind_one(listener, address).map_err(error)?,
        };
        if first.is_none() {
            first = socket.local_addr().map_err(error)?.as_socket();
        }
        sockets.push(socket);
    }
    let address = first.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    Ok(match listener.listen.transport {
        Transport::Udp => Bound::Udp(sockets.into_iter().map(Into::into).collect(), address),
        Transport::Tcp | Transport::Tls => Bound::Tcp(sockets.into_iter().map(Into::into).collect(), address),
    })
}

/// Binds to the first of the addresses that this host has. `*` on a host without IPv6 means IPv4.
fn bind_first(listener: &Listener) -> io::Result<Socket> {
    let candidates = listener.listen.candidates();
    let mut result = Err(io::Error::other("no address"));
    for address in candidates {
        // Whether anybody else has the port is asked with a socket that does not share it: those that do would all
        // be given it, another gateway's too.
        result = check_free(listener.listen.transport, address).and_then(|()| bind_one(listener, address));
        if !matches!(&result, Err(error) if is_no_such_family(error)) {
            break;
        }
    }
    result
}

fn check_free(transport: Transport, address: SocketAddr) -> io::Result<()> {
    let socket = new_socket(transport, address)?;
    if transport != Transport::Udp {
        // Connections of a gateway that was here a moment ago do not hold the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if transport != Transport::Udp {
        socket.listen(1)?;
    }
    Ok(())
}

fn bind_one(listener: &Listener, address: SocketAddr) -> io::Result<Socket> {
    let transport = listener.listen.transport;
    let socket = new_socket(transport, address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    match transport {
        Transport::Udp => {
            set_receive_buffer(&socket, listener.receive_buffer_octets, &listener.name);
            setsockopt(&socket, sockopt::RxqOvfl, &1)?;
            socket.bind(&address.into())?;
        }
        Transport::Tcp | Transport::Tls => {
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
        }
    }
    Ok(socket)
}

fn new_socket(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let socket = match transport {
        Transport::Udp => Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?,
        Transport::Tcp | Transport::Tls => {
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?
        }
    };
    if address.is_ipv6() {
        // [::] takes IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// As large as was configured, or as the system allows; the log says what it came to.
fn set_receive_buffer(socket: &Socket, octets: usize, listener: &str) {
    // With the right to, the system's bound (net.core.rmem_max) does not count.
    let forced = setsockopt(socket, sockopt::RcvBufForce, &octets);
    if forced.is_err()
        && let Err(error) = socket.set_recv_buffer_size(octets)
    {
        tracing::warn!(listener, octets, %error, "the receive buffer cannot be set");
        return;
    }
    // The kernel doubles what is asked for, for its own bookkeeping, and says the double.
    let got = socket.recv_buffer_size().unwrap_or(0) / 2;
    if got < octets {
        tracing::warn!(
            listener,
            wanted = octets,
            got,
            "the receive buffer is smaller than configured: raise net.core.rmem_max, or datagrams are lost sooner"
        );
    }
}

fn is_no_such_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(nix::errno::Errno::from_raw),
        Some(nix::errno::Errno::EAFNOSUPPORT | nix::errno::Errno::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(listen: &str) -> Listener {
        let text = format!("[[listener]]\nname = \"l\"\nlisten = \"{listen}\"\n[[tenant]]\nname = \"t\"\n");
        let mut config = crate::config::Config::parse(&text, std::path::Path::new(".")).unwrap();
        config.listeners.remove(0)
    }

    #[test]
    fn all_workers_share_the_port_that_the_system_chose() {
        for listen in ["hep_udp:127.0.0.1:0", "hep_tcp:127.0.0.1:0"] {
            let bound = bind(&listener(listen), 3).unwrap();
            assert_ne!(bound.address().port(), 0);
            let ports: Vec<u16> = match &bound {
                Bound::Udp(sockets, _) => sockets.iter().map(|s| s.local_addr().unwrap().port()).collect(),
                Bound::Tcp(sockets, _) => sockets.iter().map(|s| s.local_addr().unwrap().port()).collect(),
            };
            assert_eq!(ports, [bound.address().port(); 3]);
        }
    }

    #[test]
    fn a_receive_buffer_changes_on_sockets_that_are_there() {
        let mut listener = listener("hep_udp:127.0.0.1:0");
        let bound = bind(&listener, 2).unwrap();
        listener.receive_buffer_octets = 131_072;
        bound.set_receive_buffer(&listener);
        let Bound::Udp(sockets, _) = bound else { panic!("not UDP") };
        let octets = sockets.iter().map(|socket| SockRef::from(socket).recv_buffer_size().unwrap());
        // The kernel says the double.
        assert_eq!(octets.collect::<Vec<_>>(), [262_144; 2]);
    }

    #[test]
    fn a_port_in_use_is_refused_although_ports_are_shared_between_workers() {
        for transport in ["hep_udp", "hep_tcp"] {
            let first = bind(&listener(&format!("{transport}:127.0.0.1:0")), 1).unwrap();
            let again = format!("{transport}:127.0.0.1:{}", first.address().port());
            let error = bind(&listener(&again), 1).unwrap_err();
            assert_eq!(error.reason.kind(), io::ErrorKind::AddrInUse, "{error}");
            assert!(error.to_string().starts_with(&format!("listener \"l\": {again}: ")), "{error}");
        }
    }

    #[test]
    fn a_star_takes_ipv4_and_where_there_is_ipv6_both() {
        let bound = bind(&listener("hep_udp:*:0"), 1).unwrap();
        let Bound::Udp(sockets, address) = bound else { panic!("not UDP") };
        sockets[0].set_nonblocking(false).unwrap();
        let sender = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"four", ("127.0.0.1", address.port())).unwrap();
        assert_eq!(sockets[0].recv(&mut [0; 8]).unwrap(), 4);
        if address.is_ipv6() {
            let sender = StdUdpSocket::bind("[::1]:0").unwrap();
            sender.send_to(b"sixes", ("::1", address.port())).unwrap();
            assert_eq!(sockets[0].recv(&mut [0; 8]).unwrap(), 5);
        }
    }
}
