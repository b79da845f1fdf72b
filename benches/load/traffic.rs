//! The agent that sends numbered packets, and the collector that looks at the numbers.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use super::packets::{Packets, number, set_number};

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

/// The sockets of an agent: so many packets in a row leave from one, then the next has its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flows {
    pub(crate) count: usize,
    pub(crate) in_a_row: usize,
}

impl Flows {
    pub(crate) const ONE: Self = Self { count: 1, in_a_row: usize::MAX };

    const fn of_number(self, number: usize) -> usize {
        number / self.in_a_row % self.count
    }
}

/// When each packet was sent.
#[derive(Debug)]
pub(crate) struct Stamps {
    began: Instant,
    nanos: Box<[AtomicU64]>,
}

impl Stamps {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), nanos: (0..count).map(|_| AtomicU64::new(0)).collect() })
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.began).as_nanos()).unwrap()
    }
}

/// Sends numbered packets.
pub(crate) struct Agent {
    sockets: Vec<Socket>,
    flows: Flows,
    packets: Arc<Packets>,
    stamps: Arc<Stamps>,
    /// Packets of one system call, one after the other, and where each ends.
    octets: Vec<u8>,
    ends: Vec<usize>,
    next: usize,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Agent {
    pub(crate) fn new(
        transport: Transport,
        port: u16,
        flows: Flows,
        packets: Arc<Packets>,
        stamps: Arc<Stamps>,
    ) -> Self {
        let socket = |_| match transport {
            Transport::Udp => Socket::Udp(connected(port)),
            Transport::Tcp => {
                let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_nodelay(true).unwrap();
                Socket::Tcp(stream)
            }
        };
        let sockets = (0..flows.count).map(socket).collect();
        Self { sockets, flows, packets, stamps, octets: Vec::new(), ends: Vec::new(), next: 0 }
    }

    /// Sends so many, evenly at a rate (packets per second) or as fast as it can. Says how long it took.
    ///
    /// A packet counts as sent when the system call with it begins; but if it fell due while the call before was still
    /// keeping the agent, from then: who makes the agent wait must not look faster for it.
    pub(crate) fn send(&mut self, count: usize, rate: Option<usize>) -> Duration {
        let begun = Instant::now();
        let (mut sent, mut free_since) = (0, begun);
        while sent < count {
            let now = Instant::now();
            let due = match rate {
                None => count,
                Some(rate) => {
                    let elapsed = now.duration_since(begun);
                    let due = usize::try_from(elapsed.as_micros() * rate as u128 / 1_000_000).unwrap() + 1;
                    if due <= sent {
                        std::thread::sleep(due_after(sent, rate).saturating_sub(elapsed));
                        continue;
                    }
                    due.min(count)
                }
            };
            let turn = self.flows.in_a_row - self.next % self.flows.in_a_row;
            let packets = (due - sent).min(BATCH).min(turn);
            for at in 0..packets {
                let due = rate.map(|rate| begun + due_after(sent + at, rate)).filter(|due| *due < free_since);
                self.stamps.nanos[self.next + at].store(self.stamps.at(due.unwrap_or(now)), Ordering::Relaxed);
            }
            self.send_batch(packets);
            free_since = Instant::now();
            sent += packets;
        }
        begun.elapsed()
    }

    fn send_batch(&mut self, count: usize) {
        self.octets.clear();
        self.ends.clear();
        let flow = self.flows.of_number(self.next);
        for _ in 0..count {
            let begin = self.octets.len();
            self.octets.extend_from_slice(self.packets.of_number(self.next));
            set_number(&mut self.octets[begin..], self.next);
            self.ends.push(self.octets.len());
            self.next += 1;
        }
        match &mut self.sockets[flow] {
            Socket::Tcp(stream) => stream.write_all(&self.octets).unwrap(),
            Socket::Udp(socket) => {
                let begins = std::iter::once(0).chain(self.ends.iter().copied());
                let slices: Vec<[IoSlice<'_>; 1]> =
                    begins.zip(&self.ends).map(|(begin, end)| [IoSlice::new(&self.octets[begin..*end])]).collect();
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

/// When a packet is due at that rate, after the first one.
fn due_after(number: usize, rate: usize) -> Duration {
    Duration::from_nanos(number as u64 * 1_000_000_000 / rate as u64)
}

/// What came, by its numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    flows: Flows,
    seen: Vec<bool>,
    next: Vec<usize>,
    /// Different packets that came.
    pub(crate) arrived: usize,
    /// Packets that came once more.
    pub(crate) duplicates: usize,
    /// Packets that came after one of their flow with a higher number.
    pub(crate) late: usize,
}

impl Tally {
    /// For so many packets.
    pub(crate) fn new(count: usize, flows: Flows) -> Self {
        Self { flows, seen: vec![false; count], next: vec![0; flows.count], arrived: 0, duplicates: 0, late: 0 }
    }

    /// Takes the packet of that number, and says whether it is the first with it.
    pub(crate) fn take(&mut self, number: usize) -> bool {
        if std::mem::replace(&mut self.seen[number], true) {
            self.duplicates += 1;
            return false;
        }
        self.arrived += 1;
        let next = &mut self.next[self.flows.of_number(number)];
        if number < *next {
            self.late += 1;
        } else {
            *next = number + 1;
        }
        true
    }
}

/// All that a collector has seen.
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    /// Nanoseconds from sending to arrival of each, by number; 0 if it did not come.
    pub(crate) took: Vec<u64>,
    /// When the last one came.
    pub(crate) last: Instant,
}

/// Takes packets in a thread of its own until it is told to end.
pub(crate) struct Collector {
    pub(crate) port: u16,
    arrived: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Collector {
    /// For so many packets, as the stamps are.
    pub(crate) fn start(transport: Transport, flows: Flows, packets: Arc<Packets>, stamps: Arc<Stamps>) -> Self {
        let (arrived, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let count = stamps.nanos.len();
        let seen = Seen { tally: Tally::new(count, flows), took: vec![0; count], last: Instant::now() };
        let work = Work { seen, packets, stamps, arrived: Arc::clone(&arrived), end: Arc::clone(&end) };
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

    pub(crate) fn end(self) -> Seen {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What a collector's thread has.
struct Work {
    seen: Seen,
    packets: Arc<Packets>,
    stamps: Arc<Stamps>,
    arrived: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Work {
    fn take_datagrams(mut self, socket: &UdpSocket) -> Seen {
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let slot_octets = self.packets.slot_octets();
        let mut slab = vec![0; BATCH * slot_octets];
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        while !self.end.load(Ordering::Relaxed) {
            let mut buffers: Vec<[IoSliceMut<'_>; 1]> =
                slab.chunks_exact_mut(slot_octets).map(|slot| [IoSliceMut::new(slot)]).collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(socket.as_raw_fd(), &mut headers, buffers.iter_mut(), flags, None) {
                Ok(results) => {
                    let now = self.stamps.now();
                    for result in results {
                        let packet = result.iovs().next().unwrap_or_default();
                        assert_eq!(packet.len(), self.packets.of_number(number(packet)).len(), "not what was sent");
                        self.take(packet, now);
                    }
                }
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => continue,
                Err(error) => panic!("{error}"),
            }
            self.publish();
        }
        self.seen
    }

    fn take_stream(mut self, mut stream: &TcpStream) -> Seen {
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let mut octets = vec![0; 256 << 10];
        let mut have = 0;
        while !self.end.load(Ordering::Relaxed) {
            match stream.read(&mut octets[have..]) {
                Ok(0) => break,
                Ok(length) => have += length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(error) => panic!("{error}"),
            }
            let now = self.stamps.now();
            let mut at = 0;
            while let Some(length) = stated_octets(&octets[at..have])
                && at + length <= have
            {
                self.take(&octets[at..at + length], now);
                at += length;
            }
            octets.copy_within(at..have, 0);
            have -= at;
            self.publish();
        }
        self.seen
    }

    fn take(&mut self, packet: &[u8], now: u64) {
        let number = number(packet);
        if self.seen.tally.take(number) {
            // Never 0, which stands for what did not come.
            let sent = self.stamps.nanos[number].load(Ordering::Relaxed);
            self.seen.took[number] = now.saturating_sub(sent).max(1);
        }
    }

    fn publish(&mut self) {
        self.seen.last = Instant::now();
        self.arrived.store(self.seen.tally.arrived, Ordering::Relaxed);
    }
}

/// Octets of the HEP3 packet that begins there, if so much of it has come.
fn stated_octets(octets: &[u8]) -> Option<usize> {
    let length = octets.get(4..6)?;
    assert!(octets.starts_with(b"HEP3"), "not HEP3");
    Some(usize::from(u16::from_be_bytes([length[0], length[1]])))
}
