//! A gateway that has no rest: mixed traffic, reloads, connections that come and go, a collector that does too, and a
//! filter that traps. What is done is counted here, so that the gateway's ledger can be held against it.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hepgate::wire::Version;

use super::gateway::{Ended, Gateway, Metrics};
use super::guest::{self, Guest};
use super::peers::{Nobody, TcpSink, UdpSink, kernel_drops, udp_agent};
use super::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet, sip};
use super::{PATIENCE, eventually};

/// How often threads that wait look whether they should end.
const LOOK: Duration = Duration::from_millis(20);
/// Connections that come and go in a cycle, beside the one that stays.
const VISITS: usize = 4;
/// Packets of a cycle to what only the other configuration has.
const EXTRA: u64 = 5;

/// What the system says of the gateway when it has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AtRest {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    pub(crate) resident_octets: u64,
}

/// What was done to the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Done {
    pub(crate) cycles: usize,
    pub(crate) reloads: usize,
    /// Connections made to it.
    pub(crate) connections: usize,
    /// Times that the collector went, and came again.
    pub(crate) absences: usize,
    /// Datagrams sent to the listeners `udp` and `extra`, and how many of the first were no HEP.
    pub(crate) datagrams: u64,
    pub(crate) extra: u64,
    pub(crate) garbage: u64,
    /// Packets sent over connections, whole ones.
    pub(crate) streamed: u64,
}

/// What it came to.
pub(crate) struct Over {
    pub(crate) done: Done,
    /// Times that the filter trapped.
    pub(crate) traps: u64,
    /// Packets dropped because the collector was away.
    pub(crate) dropped: u64,
    pub(crate) ended: Ended,
}

/// The gateway and all that is around it.
pub(crate) struct Soak {
    pub(crate) gateway: Gateway,
    udp: UdpSocket,
    stays: TcpStream,
    tcp: SocketAddr,
    steady: Steady,
    comes: Coming,
    configs: [String; 2],
    /// Where the listener is that only the other configuration has.
    extra: SocketAddr,
    /// Datagrams of a burst.
    burst: usize,
    pub(crate) done: Done,
}

impl Soak {
    /// With bursts of so many datagrams.
    pub(crate) fn start(burst: usize) -> Self {
        let (steady, comes) = (Steady::start(), Coming::new());
        let extra = free_address();
        let configs = [None, Some(extra)].map(|extra| config(&steady.to, &comes.nobody.to(), extra));
        let folder = tempfile::tempdir().unwrap();
        write_moody(folder.path(), false);
        let gateway = Gateway::start_in(folder, &configs[0]);
        let udp = udp_agent(gateway.listener("udp"));
        let tcp = gateway.listener("tcp");
        let stays = TcpStream::connect(tcp).unwrap();
        let done = Done { connections: 1, ..Done::default() };
        Self { gateway, udp, stays, tcp, steady, comes, configs, extra, burst, done }
    }

    /// All that can happen to it, once. It ends as it began: the collector there, the first configuration in force.
    pub(crate) fn cycle(&mut self) {
        self.comes.come();
        self.traffic();
        self.send(&packet(b"trap"));
        self.reload(true);
        self.visit_extra();
        self.traffic();
        self.comes.go();
        self.traffic();
        self.reload(false);
        self.comes.come();
        self.traffic();
        self.await_through();
        // Packets get there again.
        let before = self.comes.arrived();
        eventually("the collector has packets again", || {
            self.stream(&packet(b"again"));
            self.await_through();
            self.comes.arrived() > before
        });
        self.done.cycles += 1;
        self.done.absences += 1;
    }

    /// Waits until it has nothing to do, and what it has then.
    pub(crate) fn at_rest(&self) -> AtRest {
        self.await_through();
        self.gateway.await_metric("hepgate_listener_open_connections", &[("listener", "tcp")], 1);
        self.gateway.await_quiet();
        let process = format!("/proc/{}", self.gateway.child.id());
        let count = |what: &str| std::fs::read_dir(format!("{process}/{what}")).unwrap().count();
        // The last request of ours may still have one: of several looks the least is what stays.
        let looks = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            (count("fd"), count("task"))
        });
        let (descriptors, threads) = looks.min().unwrap();
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_octets = resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        AtRest { descriptors, threads, resident_octets }
    }

    /// Ends it, and holds its ledger against what was done.
    pub(crate) fn end(self) -> Over {
        self.await_through();
        self.gateway.await_quiet();
        let metrics = self.gateway.metrics();
        self.check(&metrics);
        let traps = metrics.get("hepgate_filter_faults_total", &[("kind", "trap")]);
        let dropped = metrics.get("hepgate_collector_dropped_packets_total", &[("collector", "comes")]);
        let (done, comes) = (self.done, self.comes);
        // The gateway first: a collector that is gone would be looked for again.
        let ended = self.gateway.stop();
        comes.end();
        self.steady.end();
        Over { done, traps, dropped, ended }
    }

    fn check(&self, metrics: &Metrics) {
        let text = || self.gateway.get("/metrics").1;
        let of = |name: &str, labels: &[(&str, &str)]| metrics.get(&format!("hepgate_{name}"), labels);
        let done = self.done;
        let (udp, tcp) = ([("listener", "udp")], [("listener", "tcp")]);
        let received = of("listener_received_packets_total", &udp);
        let kernel_dropped = of("listener_kernel_dropped_datagrams_total", &udp);
        assert_eq!(received + kernel_dropped, done.datagrams, "{done:?}\n{}", text());
        if kernel_dropped == 0 {
            assert_eq!(of("listener_rejected_packets_total", &udp), done.garbage, "{done:?}");
        }
        assert_eq!(of("listener_accepted_packets_total", &tcp), done.streamed, "{done:?}\n{}", text());
        assert_eq!(of("listener_opened_connections_total", &tcp), done.connections as u64, "{done:?}");
        assert_eq!(of("listener_received_packets_total", &[("listener", "extra")]), done.extra, "{done:?}");
        // All that went to the collector that is always there came, but for what the system had no room for.
        let sent = of("collector_sent_packets_total", &[("collector", "steady")]);
        eventually("the steady collector has all", || {
            self.steady.arrived() as u64 + self.steady.kernel_drops() == sent
        });
        // The other one may have gone while packets were on the way, but has no more than were sent.
        let sent = of("collector_sent_packets_total", &[("collector", "comes")]);
        let arrived = self.comes.arrived() as u64;
        assert!(arrived > 0 && arrived <= sent, "{arrived} of {sent}");
        for (name, rest) in
            [("tenant", &["skipped", "filter_dropped", "dropped", "routed"][..]), ("collector", &["sent", "dropped"])]
        {
            let came = if name == "tenant" { "received" } else { "accepted" };
            let sum = |what: &str| metrics.sum(&format!("hepgate_{name}_{what}_packets_total"));
            assert_eq!(sum(came), rest.iter().map(|what| sum(what)).sum::<u64>(), "{name}\n{}", text());
        }
    }

    /// A burst of datagrams of all kinds, packets on the connection that stays, and on some that do not.
    fn traffic(&mut self) {
        let kinds = kinds();
        for n in 0..self.burst {
            self.send(&kinds[n % kinds.len()]);
        }
        self.send(b"no HEP");
        self.done.garbage += 1;
        // More than may be postponed for a collector that is away.
        for n in 0..40 {
            self.stream(&packet(format!("stays {n}").as_bytes()));
        }
        for n in 0..VISITS {
            let mut visitor = TcpStream::connect(self.tcp).unwrap();
            self.done.connections += 1;
            let whole = packet(format!("visitor {n}").as_bytes());
            visitor.write_all(&whole.repeat(n)).unwrap();
            self.done.streamed += n as u64;
            match n {
                1 => visitor.write_all(b"no HEP3 either").unwrap(),
                2 => visitor.write_all(&whole[..10]).unwrap(),
                _ => {}
            }
        }
        // Bounded by what the socket's buffer holds: nothing is to be lost that nobody asked for.
        self.await_through();
    }

    fn send(&mut self, datagram: &[u8]) {
        self.udp.send(datagram).unwrap();
        self.done.datagrams += 1;
    }

    fn stream(&mut self, packet: &[u8]) {
        self.stays.write_all(packet).unwrap();
        self.done.streamed += 1;
    }

    /// Waits until the listeners have read all that was sent to them.
    fn await_through(&self) {
        let began = Instant::now();
        loop {
            let metrics = self.gateway.metrics();
            let of = |name: &str, listener: &str| {
                metrics.get(&format!("hepgate_listener_{name}"), &[("listener", listener)])
            };
            let udp = of("received_packets_total", "udp") + of("kernel_dropped_datagrams_total", "udp");
            let (tcp, open) = (of("accepted_packets_total", "tcp"), of("open_connections", "tcp"));
            let opened = of("opened_connections_total", "tcp");
            let all = (self.done.datagrams, self.done.streamed, self.done.connections as u64, 1);
            if (udp, tcp, opened, open) == all {
                return;
            }
            // The system tells of drops only with the next datagram.
            assert!(
                began.elapsed() < PATIENCE,
                "{:?} are not {all:?}\n{}",
                (udp, tcp, opened, open),
                self.gateway.log_text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The other configuration, or the first one again; the filter changes too.
    fn reload(&mut self, other: bool) {
        write_moody(self.gateway.folder.path(), other);
        let (status, answer) = self.gateway.reload(&self.configs[usize::from(other)]);
        assert_eq!(status, 200, "{answer}");
        self.done.reloads += 1;
    }

    /// Packets to what only the other configuration has.
    fn visit_extra(&mut self) {
        let agent = udp_agent(self.extra);
        for _ in 0..EXTRA {
            agent.send(&packet(b"extra")).unwrap();
        }
        self.done.extra += EXTRA;
        self.gateway.await_metric("hepgate_listener_received_packets_total", &[("listener", "extra")], self.done.extra);
    }
}

/// The first configuration, or one with a listener, a tenant and a filter more.
fn config(steady: &str, comes: &str, extra: Option<SocketAddr>) -> String {
    let mut text = [
        "[proto_hep]\nhep_max_retries = 0\n",
        BOTH_LISTENERS,
        &collector("steady", steady),
        "hep_async_max_postponed_chunks = 100_000\n",
        &collector("comes", comes),
        "backoff_min = \"5ms\"\nbackoff_max = \"50ms\"\n",
        &filter("moody", "[filter.quarantine]\nstrikes_max = 0\n[filter.limits]\nfast_deadline = \"1s\"\n"),
    ]
    .concat();
    if let Some(at) = extra {
        write!(text, "[[listener]]\nname = \"extra\"\nlisten = \"hep_udp:{at}\"\n").unwrap();
        text += &filter("more", "limits = { fast_deadline = \"1s\" }").replace("more.wasm", "moody.wasm");
        text += "[[tenant]]\nname = \"extra\"\nfilters = [\"more\"]\nroute = [\"steady\"]\n";
        text += "[[tenant.match]]\nlistener = \"extra\"\n";
    }
    write!(
        text,
        "[[tenant]]\nname = \"streams\"\nroute = [\"comes\", \"steady\"]\n[[tenant.match]]\nlistener = \"tcp\"\n\
         [[tenant]]\nname = \"rest\"\nfilters = [\"moody\"]\nroute = [\"steady\"]\n"
    )
    .unwrap();
    text
}

/// One that is free whenever nobody of ours has it: below those that the system hands out.
fn free_address() -> SocketAddr {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let addresses = (first..32_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut free = addresses.filter(|address| UdpSocket::bind(address).is_ok());
    free.next().expect("a free port")
}

/// The filter that traps on `t`, in one of two versions that do the same.
fn write_moody(folder: &std::path::Path, other: bool) {
    let definitions = if other { "(global i32 (i32.const 1))" } else { "" };
    guest::write(folder, "moody", Guest { definitions, ..BY_FIRST_OCTET });
}

/// What a burst consists of: all versions, what filters keep, small and large.
fn kinds() -> [Vec<u8>; 7] {
    let of = |version| sip("INVITE sip:bob@example.com SIP/2.0\r\n\r\n").encode(version).unwrap().to_vec();
    [
        of(Version::Hep3),
        of(Version::Hep2),
        of(Version::Hep1),
        packet(b"pass"),
        packet(b"skip"),
        packet(b"drop"),
        packet(&[b'x'; 1_200]),
    ]
}

/// A collector that is always there and counts.
struct Steady {
    to: String,
    port: u16,
    arrived: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Steady {
    fn start() -> Self {
        let sink = UdpSink::new();
        let to = sink.to();
        let port = to.rsplit_once(':').unwrap().1.parse().unwrap();
        let (arrived, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (Arc::clone(&arrived), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if sink.next_within(LOOK).is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { to, port, arrived, end, thread }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    fn kernel_drops(&self) -> u64 {
        kernel_drops(self.port) as u64
    }

    fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// A collector that comes and goes.
struct Coming {
    nobody: Nobody,
    arrived: Arc<AtomicUsize>,
    there: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Coming {
    fn new() -> Self {
        Self { nobody: Nobody::new(), arrived: Arc::default(), there: None }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    /// If it is not there already.
    fn come(&mut self) {
        if self.there.is_some() {
            return;
        }
        let (sink, arrived, end) = (self.nobody.come(), Arc::clone(&self.arrived), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&end);
        self.there = Some((end, std::thread::spawn(move || take(&sink, &arrived, &ends))));
    }

    fn go(&mut self) {
        if let Some((end, thread)) = self.there.take() {
            end.store(true, Ordering::Relaxed);
            thread.join().unwrap();
        }
    }

    fn end(mut self) {
        self.go();
    }
}

/// Takes connections, and packets from all of them, until it is told to end.
fn take(sink: &TcpSink, arrived: &AtomicUsize, end: &AtomicBool) {
    let mut streams: Vec<TcpStream> = Vec::new();
    while !end.load(Ordering::Relaxed) {
        streams.extend(sink.try_accept());
        streams.retain_mut(|stream| is_open(stream, arrived));
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whoever closes without having read resets: so the gateway hears of it at once.
    for mut stream in streams {
        stream.set_nonblocking(true).unwrap();
        let _ = stream.read(&mut [0; 1]);
    }
}

/// Takes the packets that are there, and says whether more may come.
fn is_open(stream: &mut TcpStream, arrived: &AtomicUsize) -> bool {
    loop {
        stream.set_nonblocking(true).unwrap();
        let there = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        match there {
            // The gateway closes between two packets, unless it breaks a connection whose collector is too slow for it.
            Ok(1..) if read_packet(stream).is_ok() => arrived.fetch_add(1, Ordering::Relaxed),
            Ok(_) => return false,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
    }
}

fn read_packet(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut header = [0; 6];
    stream.read_exact(&mut header)?;
    assert!(header.starts_with(b"HEP3"), "{header:?}");
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    stream.read_exact(&mut vec![0; length - header.len()])
}
