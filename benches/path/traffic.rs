//! The agent that sends numbered packets, and the collector that looks at the numbers.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use crate::common::{PACKET_OCTETS, microseconds_at, octets};

/// Packets of one system call.
pub(crate) const BATCH: usize = 64;
/// Octets of the sockets' receive buffers: the gateway's own default.
const BUFFER_OCTETS: usize = 4 << 20;
/// How often a collector that waits looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        [Self::Udp, Self::Tcp].into_iter().find(|transport| transport.as_str() == text).expect("udp or tcp")
    }
}

/// A socket that sends to this port.
pub(crate) fn connected(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
}

pub(crate) fn large_buffer(socket: &UdpSocket) {
    socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER_OCTETS).unwrap();
}

/// Sends numbered packets.
pub(crate) struct Agent {
    socket: Socket,
    packets: Vec<u8>,
    number_at: usize,
    next: u32,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Agent {
    pub(crate) fn new(transport: Transport, port: u16) -> Self {
        let socket = match transport {
            Transport::Udp => Socket::Udp(connected(port)),
            Transport::Tcp => {
                let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_nodelay(true).unwrap();
                Socket::Tcp(stream)
            }
        };
        Self { socket, packets: octets(0).repeat(BATCH), number_at: microseconds_at(), next: 0 }
    }

    /// Sends so many, evenly at a rate (packets per second) or as fast as it can.
    pub(crate) fn send(&mut self, count: usize, rate: Option<usize>) {
        let begun = Instant::now();
        let mut sent = 0;
        while sent < count {
            let due = match rate {
                None => count,
                Some(rate) => {
                    let due = usize::try_from(begun.elapsed().as_micros() * rate as u128 / 1_000_000).unwrap() + 1;
                    if due <= sent {
                        let next = Duration::from_nanos(sent as u64 * 1_000_000_000 / rate as u64);
                        std::thread::sleep(next.saturating_sub(begun.elapsed()));
                        continue;
                    }
                    due.min(count)
                }
            };
            let now = (due - sent).min(BATCH);
            self.send_batch(now);
            sent += now;
        }
    }

    fn send_batch(&mut self, count: usize) {
        for packet in self.packets.chunks_exact_mut(PACKET_OCTETS).take(count) {
            packet[self.number_at..self.number_at + 4].copy_from_slice(&self.next.to_be_bytes());
            self.next += 1;
        }
        let packets = &self.packets[..count * PACKET_OCTETS];
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(packets).unwrap(),
            Socket::Udp(socket) => {
                let slices: Vec<[IoSlice<'_>; 1]> =
                    packets.chunks_exact(PACKET_OCTETS).map(|packet| [IoSlice::new(packet)]).collect();
                let mut sent = 0;
                while sent < count {
                    let mut headers = MultiHeaders::<()>::preallocate(count - sent, None);
                    let none = vec![None; count - sent];
                    let fd = socket.as_raw_fd();
                    let results = sendmmsg(fd, &mut headers, &slices[sent..], none, [], MsgFlags::empty());
                    sent += results.unwrap().count();
                }
            }
        }
    }
}

/// What came, by its numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    seen: Vec<bool>,
    next: usize,
    /// Different packets that came.
    pub(crate) arrived: usize,
    /// Packets that came once more.
    pub(crate) duplicates: usize,
    /// Packets that came after one with a higher number.
    pub(crate) late: usize,
}

impl Tally {
    /// For so many packets.
    pub(crate) fn new(count: usize) -> Self {
        Self { seen: vec![false; count], next: 0, arrived: 0, duplicates: 0, late: 0 }
    }

    pub(crate) fn take(&mut self, packet: &[u8], number_at: usize) {
        assert_eq!(packet.len(), PACKET_OCTETS, "not a packet that was sent");
        let number = u32::from_be_bytes(packet[number_at..number_at + 4].try_into().unwrap()) as usize;
        if std::mem::replace(&mut self.seen[number], true) {
            self.duplicates += 1;
            return;
        }
        self.arrived += 1;
        if number < self.next {
            self.late += 1;
        } else {
            self.next = number + 1;
        }
    }
}

/// Takes packets in a thread of its own until it is told to end.
pub(crate) struct Collector {
    pub(crate) port: u16,
    arrived: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Collector {
    /// For so many packets.
    pub(crate) fn start(transport: Transport, count: usize) -> Self {
        let (arrived, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let work = Work { tally: Tally::new(count), arrived: Arc::clone(&arrived), end: Arc::clone(&end) };
        let (port, thread) = match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                large_buffer(&socket);
                let port = socket.local_addr().unwrap().port();
                (port, std::thread::spawn(move || work.take_datagrams(&socket)))
            }
            Transport::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                (port, std::thread::spawn(move || work.take_stream(&listener.accept().unwrap().0)))
            }
        };
        Self { port, arrived, end, thread }
    }

    /// Waits until so many have come altogether, or nothing has come for `quiet`.
    pub(crate) fn await_arrived(&self, count: usize, quiet: Duration) {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let arrived = self.arrived.load(Ordering::Relaxed);
            if arrived >= count || since.elapsed() > quiet {
                return;
            }
            if arrived != last {
                (last, since) = (arrived, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn end(self) -> Tally {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What a collector's thread has.
struct Work {
    tally: Tally,
    arrived: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Work {
    fn take_datagrams(mut self, socket: &UdpSocket) -> Tally {
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let number_at = microseconds_at();
        let mut slab = vec![0; BATCH * 2_048];
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        while !self.end.load(Ordering::Relaxed) {
            let mut buffers: Vec<[IoSliceMut<'_>; 1]> =
                slab.chunks_exact_mut(2_048).map(|slot| [IoSliceMut::new(slot)]).collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(socket.as_raw_fd(), &mut headers, buffers.iter_mut(), flags, None) {
                Ok(results) => {
                    for result in results {
                        self.tally.take(result.iovs().next().unwrap_or_default(), number_at);
                    }
                }
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(error) => panic!("{error}"),
            }
            self.arrived.store(self.tally.arrived, Ordering::Relaxed);
        }
        self.tally
    }

    fn take_stream(mut self, mut stream: &TcpStream) -> Tally {
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let number_at = microseconds_at();
        let mut octets = vec![0; 256 << 10];
        let mut have = 0;
        while !self.end.load(Ordering::Relaxed) {
            match stream.read(&mut octets[have..]) {
                Ok(0) => break,
                Ok(length) => have += length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(error) => panic!("{error}"),
            }
            let whole = have / PACKET_OCTETS * PACKET_OCTETS;
            for packet in octets[..whole].chunks_exact(PACKET_OCTETS) {
                self.tally.take(packet, number_at);
            }
            octets.copy_within(whole..have, 0);
            have -= whole;
            self.arrived.store(self.tally.arrived, Ordering::Relaxed);
        }
        self.tally
    }
}
