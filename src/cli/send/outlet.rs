//! The socket that packets leave by.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::stop::Stop;
use super::target::Target;
use crate::cli::capture::Transport;
use crate::wire::DATAGRAM_OCTETS_MAX;

/// How long a connection may take to come about. Three lost SYNs.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the other end, or our own system, may take no octet before we give up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a write that waits looks whether Ctrl-C was pressed.
const LOOK_UP: Duration = Duration::from_millis(100);
/// How long the system gets to free its buffers before a datagram is tried again.
const BUFFERS_PAUSE: Duration = Duration::from_millis(1);
/// How long the receiver gets to close its end after we have closed ours. One that does not is not waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a packet could not be sent, or not as a whole.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// No address of that name.
    #[error("{target}: the name cannot be resolved: {error}")]
    Resolve {
        /// What was asked for.
        target: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// No connection.
    #[error("cannot connect to {target}: {error}")]
    Connect {
        /// What was asked for.
        target: String,
        /// What the system says of the last address tried.
        error: io::Error,
    },
    /// The packet is longer than a datagram.
    #[error("a packet of {octets} octets does not fit a datagram, which holds {max} at most")]
    TooLong {
        /// Octets of the packet.
        octets: usize,
        /// Octets that fit.
        max: usize,
    },
    /// The socket takes nothing any more.
    #[error("{to} took nothing for {} s: {written} of {octets} octets of the packet were written", PATIENCE.as_secs())]
    Full {
        /// Where to.
        to: SocketAddr,
        /// Octets of the packet that were written.
        written: usize,
        /// Octets of the packet.
        octets: usize,
    },
    /// The connection is no more.
    #[error("the connection to {to} broke: {error}; {written} of {octets} octets of the packet were written")]
    Broken {
        /// Where to.
        to: SocketAddr,
        /// Octets of the packet that were written.
        written: usize,
        /// Octets of the packet.
        octets: usize,
        /// What the system says.
        error: io::Error,
    },
    /// The connection was reset when all was written.
    #[error("the connection to {to} broke when all was written: {error}; not everything may have been read")]
    Close {
        /// Where to.
        to: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The user has had enough.
    #[error("stopped: {written} of {octets} octets of the packet were written to {to}")]
    Stopped {
        /// Where to.
        to: SocketAddr,
        /// Octets of the packet that were written.
        written: usize,
        /// Octets of the packet.
        octets: usize,
    },
    /// A datagram that the system did not take.
    #[error("cannot send to {to}: {error}")]
    Io {
        /// Where to.
        to: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

impl OutletError {
    /// Whether nothing more can be sent.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Stopped { .. } | Self::Full { .. })
    }
}

/// A connected socket.
#[derive(Debug)]
pub(super) struct Outlet {
    to: SocketAddr,
    socket: Socket,
    stop: Stop,
    /// Datagrams of which the other end has said that nobody listens there.
    refused: u64,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Outlet {
    /// Connects to the first address of the target that lets us.
    pub(super) fn open(target: &Target, stop: Stop) -> Result<Self, OutletError> {
        let name = || target.to_string();
        let addresses = target.resolve().map_err(|error| OutletError::Resolve { target: name(), error })?;
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for to in addresses {
            match Socket::connect(target.transport, to) {
                Ok(socket) => return Ok(Self { to, socket, stop, refused: 0 }),
                Err(error) => last = error,
            }
        }
        Err(OutletError::Connect { target: name(), error: last })
    }

    /// Where packets go.
    pub(super) const fn to(&self) -> SocketAddr {
        self.to
    }

    /// Datagrams so far that were refused, of those that [`Outlet::put`] had taken.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends one packet as a whole.
    pub(super) fn put(&mut self, packet: &[u8]) -> Result<(), OutletError> {
        match &self.socket {
            Socket::Udp(_) => self.put_datagram(packet),
            Socket::Tcp(_) => self.put_stream(packet),
        }
    }

    /// Closes, and says what can be known then: that datagrams were refused, that a stream was not read to its end.
    pub(super) fn finish(&mut self) -> Result<(), OutletError> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                if matches!(socket.take_error(), Ok(Some(error)) if error.kind() == ErrorKind::ConnectionRefused) {
                    self.refused += 1;
                }
                Ok(())
            }
            Socket::Tcp(stream) => close(stream).map_err(|error| OutletError::Close { to: self.to, error }),
        }
    }

    fn put_datagram(&mut self, packet: &[u8]) -> Result<(), OutletError> {
        let (to, octets) = (self.to, packet.len());
        let Socket::Udp(socket) = &self.socket else { return Ok(()) };
        let begun = Instant::now();
        loop {
            let Err(error) = socket.send(packet) else { return Ok(()) };
            match error.kind() {
                // It tells of an earlier datagram, and this one has not been sent.
                ErrorKind::ConnectionRefused => self.refused += 1,
                ErrorKind::Interrupted => {}
                _ if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                    return Err(OutletError::TooLong { octets, max: DATAGRAM_OCTETS_MAX });
                }
                _ if is_full(&error) && begun.elapsed() > PATIENCE => {
                    return Err(OutletError::Full { to, written: 0, octets });
                }
                _ if is_full(&error) => {
                    if self.stop.wait(BUFFERS_PAUSE) {
                        return Err(OutletError::Stopped { to, written: 0, octets });
                    }
                }
                _ => return Err(OutletError::Io { to, error }),
            }
        }
    }

    fn put_stream(&mut self, packet: &[u8]) -> Result<(), OutletError> {
        let (to, octets) = (self.to, packet.len());
        let Socket::Tcp(stream) = &mut self.socket else { return Ok(()) };
        let mut rest = packet;
        let mut moved = Instant::now();
        while !rest.is_empty() {
            let written = octets - rest.len();
            match stream.write(rest) {
                Ok(0) => {
                    let error = ErrorKind::WriteZero.into();
                    return Err(OutletError::Broken { to, written, octets, error });
                }
                Ok(taken) => {
                    rest = rest.get(taken..).unwrap_or_default();
                    moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => {
                    if self.stop.is_set() {
                        return Err(OutletError::Stopped { to, written, octets });
                    }
                    if moved.elapsed() > PATIENCE {
                        return Err(OutletError::Full { to, written, octets });
                    }
                }
                Err(error) => return Err(OutletError::Broken { to, written, octets, error }),
            }
        }
        Ok(())
    }
}

impl Socket {
    fn connect(transport: Transport, to: SocketAddr) -> io::Result<Self> {
        match transport {
            Transport::Udp => {
                let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(to)?;
                socket.set_write_timeout(Some(LOOK_UP))?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&to, CONNECT_PATIENCE)?;
                // At a pace, each packet leaves when it is due.
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(LOOK_UP))?;
                Ok(Self::Tcp(stream))
            }
            // No target is written so.
            Transport::Tls => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// Whether there is no room now, in the socket or in the system.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
        || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Closes our end and waits for the other to do so, which it does when it has read everything. An error says that it
/// did not.
fn close(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let begun = Instant::now();
    let mut scratch = [0; 1024];
    while let Some(left) = CLOSE_PATIENCE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut scratch) {
            // It may have closed first and refused what came then.
            Ok(0) => return stream.take_error()?.map_or(Ok(()), Err),
            // An answer, which nobody asked for.
            Ok(_) => {}
            Err(error) if is_full(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
