//! The whole way of a packet: CPU time per packet of the gateway, with and without a filter, beside a bare relay that
//! does the same system calls and looks at nothing.
//!
//! Agent and collector are in this process; the gateway and the relay are each a process of its own, whose CPU time the
//! system counts. Packets are numbered, so that what was lost, doubled or overtaken is seen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench is a test with figures")]

mod common;
#[path = "common/guests.rs"]
mod guests;
#[path = "path/relay.rs"]
mod relay;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod support;
#[path = "path/traffic.rs"]
mod traffic;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use common::{as_f64, is_quick, median};
use support::gateway::Gateway;
use support::guest;
use support::peers::kernel_drops;
use traffic::{Agent, Collector, Tally, Transport};

/// What carries the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Carrier {
    Floor,
    Gateway,
    Filtering,
}

impl Carrier {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Gateway => "hepgate, no filter",
            Self::Filtering => "hepgate, a filter",
        }
    }
}

/// One kind of traffic.
#[derive(Clone, Copy, Debug)]
struct Load {
    from: Transport,
    to: Transport,
    /// Packets per second; `None`: as fast as the agent can.
    rate: Option<usize>,
    packets: usize,
}

/// What one run showed.
struct Run {
    /// Microseconds of CPU time for each packet that the process took in.
    micros: f64,
    sent: usize,
    tally: Tally,
    /// Lost in the socket buffer before the process, and in that of the collector behind it.
    before: usize,
    behind: usize,
}

impl Run {
    /// Packets that the process itself lost.
    fn within(&self) -> isize {
        self.sent.cast_signed() - (self.tally.arrived + self.before + self.behind).cast_signed()
    }
}

/// Packets before the clock: connections stand, instances are made, buffers have their size.
const WARM_UP_PACKETS: usize = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, relay, from, to, port] = arguments.as_slice()
        && relay == "relay"
    {
        return relay::run(Transport::parse(from), Transport::parse(to), port.parse().unwrap());
    }
    check_tally();
    let rounds = if is_quick() { 1 } else { 7 };
    println!("path, 738-octet SIP INVITE in HEP3, CPU time per packet, medians of {rounds} rounds");
    println!(
        "  {:<12} {:<16} {:<19} {:>9}  {:>9}  lost before / within / behind, doubled, late",
        "", "", "", "", "x floor"
    );
    let (udp, tcp) = (Transport::Udp, Transport::Tcp);
    for (from, to) in [(udp, udp), (tcp, tcp), (udp, tcp)] {
        let calm = if is_quick() { (2_000, 300) } else { (20_000, 40_000) };
        let many = if is_quick() { 1_500 } else { 300_000 };
        report(Load { from, to, rate: Some(calm.0), packets: calm.1 }, rounds);
        report(Load { from, to, rate: None, packets: many }, rounds);
    }
}

/// Runs each carrier in turn, round by round, so that what else the machine does falls on all of them.
fn report(load: Load, rounds: usize) {
    let carriers = [Carrier::Floor, Carrier::Gateway, Carrier::Filtering];
    let mut runs: [Vec<Run>; 3] = Default::default();
    for _ in 0..rounds {
        for (carrier, runs) in carriers.iter().zip(&mut runs) {
            let run = run(*carrier, load);
            if is_quick() {
                check(&run, load);
            }
            runs.push(run);
        }
    }
    let path = format!("{} to {}", load.from.as_str(), load.to.as_str());
    let rate = load.rate.map_or_else(|| "overload".to_owned(), |rate| format!("{rate}/s"));
    for (carrier, of_carrier) in carriers.iter().zip(&runs) {
        let micros = median(of_carrier.iter().map(|run| run.micros).collect());
        let ratio = median(of_carrier.iter().zip(&runs[0]).map(|(run, floor)| run.micros / floor.micros).collect());
        let sum = |of: fn(&Run) -> usize| of_carrier.iter().map(of).sum::<usize>();
        let sent = as_f64(sum(|run| run.sent) as u128);
        let percent = |count: usize| format!("{:.2} %", as_f64(count as u128) * 100.0 / sent);
        let within: isize = of_carrier.iter().map(Run::within).sum();
        println!(
            "  {path:<12} {rate:<16} {:<19} {micros:>6.2} µs  {ratio:>9.2}  {} / {within} / {}, {}, {}",
            carrier.as_str(),
            percent(sum(|run| run.before)),
            percent(sum(|run| run.behind)),
            sum(|run| run.tally.duplicates),
            sum(|run| run.tally.late),
        );
    }
}

fn run(carrier: Carrier, load: Load) -> Run {
    let warm_up = if is_quick() { 100 } else { WARM_UP_PACKETS };
    let collector = Collector::start(load.to, warm_up + load.packets);
    let process = Process::start(carrier, load, collector.port);
    let mut agent = Agent::new(load.from, process.port());
    agent.send(warm_up, Some(2_000));
    collector.await_arrived(warm_up, Duration::from_secs(20));
    let (drops_before, cpu_before) = (kernel_drops(process.port()), process.cpu_nanos());
    agent.send(load.packets, load.rate);
    // At overload over UDP not all come, so silence is the sign.
    let patience = if load.from == Transport::Udp && load.rate.is_none() { 500 } else { 5_000 };
    collector.await_arrived(warm_up + load.packets, Duration::from_millis(patience));
    let cpu = process.cpu_nanos() - cpu_before;
    let (before, behind) = match load {
        Load { from: Transport::Udp, to: Transport::Udp, .. } => {
            (kernel_drops(process.port()), kernel_drops(collector.port))
        }
        Load { from: Transport::Udp, .. } => (kernel_drops(process.port()), 0),
        _ => (0, 0),
    };
    let taken = load.packets - (before - drops_before);
    let tally = collector.end();
    process.stop();
    let sent = warm_up + load.packets;
    Run { micros: as_f64(cpu.unsigned_abs().into()) / 1e3 / as_f64(taken as u128), sent, tally, before, behind }
}

/// The process under test.
enum Process {
    Relay(Child, u16),
    Gateway(Box<Gateway>, u16),
}

impl Process {
    fn start(carrier: Carrier, load: Load, to: u16) -> Self {
        if carrier == Carrier::Floor {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["relay", load.from.as_str(), load.to.as_str(), &to.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            return Self::Relay(child, line.trim().parse().unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        guest::write(folder.path(), "trivial", guests::TRIVIAL);
        let (filter, chain) = match carrier {
            Carrier::Filtering => (support::settings::filter("trivial", ""), "\"trivial\""),
            _ => (String::new(), ""),
        };
        // All that overload can heap up may wait: what is measured is the way, not what happens at its end.
        let config = format!(
            "[proto_hep]\nhep_async_max_postponed_chunks = 1_000_000\nhep_send_timeout = 60_000\n\
             [[listener]]\nname = \"in\"\nlisten = \"hep_{}:127.0.0.1:0\"\n{}mailbox_octets_max = 1_073_741_824\n{filter}\
             [[tenant]]\nname = \"t\"\nfilters = [{chain}]\nroute = [\"out\"]\n",
            load.from.as_str(),
            support::settings::collector("out", &format!("hep_{}:127.0.0.1:{to}", load.to.as_str())),
        );
        let gateway = Gateway::start_in(folder, &config);
        let port = gateway.listener("in").port();
        Self::Gateway(Box::new(gateway), port)
    }

    const fn port(&self) -> u16 {
        match self {
            Self::Relay(_, port) | Self::Gateway(_, port) => *port,
        }
    }

    /// CPU time of all its threads, in the system and outside.
    fn cpu_nanos(&self) -> i64 {
        let id = match self {
            Self::Relay(child, _) => child.id(),
            Self::Gateway(gateway, _) => gateway.child.id(),
        };
        let clock = clock_getcpuclockid(Pid::from_raw(id.cast_signed())).unwrap();
        let time = clock_gettime(clock).unwrap();
        time.tv_sec() * 1_000_000_000 + time.tv_nsec()
    }

    /// Ends it. The gateway's ledger must add up.
    fn stop(self) {
        match self {
            Self::Relay(mut child, _) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Self::Gateway(gateway, _) => drop(gateway.stop()),
        }
    }
}

/// For a quick run, which is too short for anything to get lost unseen.
fn check(run: &Run, load: Load) {
    assert_eq!((run.tally.duplicates, run.tally.late, run.within()), (0, 0, 0), "{load:?}");
    if load.from == Transport::Tcp || load.rate.is_some() {
        assert_eq!(run.tally.arrived, run.sent, "{load:?}");
    }
    assert!(run.micros > 0.0, "{load:?}");
}

/// A collector that sees nothing would praise anything.
fn check_tally() {
    let mut tally = Tally::new(6);
    for number in [0, 2, 1, 2, 5] {
        tally.take(&common::octets(number), common::microseconds_at());
    }
    assert_eq!((tally.arrived, tally.duplicates, tally.late), (4, 1, 1));
}
