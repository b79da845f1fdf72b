//! The process under test: the gateway, or a bare relay; and what the system says of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::traffic::Transport;
use crate::guests;
use crate::support::gateway::Gateway;
use crate::support::{eventually, guest, settings};

/// What stands between agent and collector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carrier {
    Floor,
    Gateway(Setup),
}

/// How a gateway is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setup {
    /// Trivial filters in the chain of every tenant.
    pub(crate) filters: usize,
    pub(crate) tenants: usize,
    /// Rules of each, one for an agent id, from 0; 0: the only tenant takes all.
    pub(crate) rules_each: usize,
    /// Whether one more tenant takes what no rule matches.
    pub(crate) has_rest: bool,
    pub(crate) workers: usize,
}

impl Setup {
    /// One tenant that takes all, on one worker.
    pub(crate) const PLAIN: Self = Self { filters: 0, tenants: 1, rules_each: 0, has_rest: false, workers: 1 };

    fn tenants(self, route: &str) -> String {
        use std::fmt::Write as _;
        let names: Vec<String> = (0..self.filters).map(|n| format!("\"f{n}\"")).collect();
        let chain = names.join(", ");
        let mut text = String::new();
        for tenant in 0..self.tenants {
            write!(text, "[[tenant]]\nname = \"t{tenant}\"\nfilters = [{chain}]\nroute = [{route}]\n").unwrap();
            for rule in 0..self.rules_each {
                write!(text, "[[tenant.match]]\nagent_id = {}\n", tenant * self.rules_each + rule).unwrap();
            }
        }
        if self.has_rest {
            write!(text, "[[tenant]]\nname = \"rest\"\nfilters = [{chain}]\nroute = [{route}]\n").unwrap();
        }
        for n in 0..self.filters {
            write!(text, "[[filter]]\nname = \"f{n}\"\ncomponent = \"trivial.wasm\"\n").unwrap();
        }
        text
    }
}

/// CPU time of all threads of a process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Cpu {
    /// Altogether, from the process' clock.
    pub(crate) nanos: i64,
    /// Ticks outside and inside of the system, which say how to divide it.
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
}

pub(crate) enum Process {
    Relay { child: Child, asks: ChildStdin, answers: BufReader<ChildStdout>, port: u16 },
    Gateway { gateway: Box<Gateway>, port: u16 },
}

impl Process {
    /// Starts it between that transport and the collector, transport and port, if there is one.
    pub(crate) fn start(carrier: Carrier, from: Transport, to: Option<(Transport, u16)>, slot_octets: usize) -> Self {
        match carrier {
            Carrier::Floor => Self::relay(from, to, slot_octets),
            Carrier::Gateway(setup) => Self::gateway(setup, from, to),
        }
    }

    fn relay(from: Transport, to: Option<(Transport, u16)>, slot_octets: usize) -> Self {
        let (transport, port) = to.map_or(("nowhere", 0), |(transport, port)| (transport.as_str(), port));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["relay", from.as_str(), transport, &port.to_string(), &slot_octets.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (asks, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        Self::Relay { child, asks, answers, port: line.trim().parse().unwrap() }
    }

    fn gateway(setup: Setup, from: Transport, to: Option<(Transport, u16)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        guest::write(folder.path(), "trivial", guests::TRIVIAL);
        let collector = to.map_or_else(String::new, |(transport, port)| {
            let to = format!("hep_{}:127.0.0.1:{port}", transport.as_str());
            // All that overload can heap up may wait: what is measured is the way, not what happens at its end.
            settings::collector("out", &to) + "mailbox_octets_max = 1_073_741_824\n"
        });
        let connections = match from {
            Transport::Udp => "",
            Transport::Tcp => "connections_max = 1_000_000\nconnections_per_peer_max = 1_000_000\n",
        };
        let config = format!(
            "[proto_hep]\nhep_async_max_postponed_chunks = 1_000_000\nhep_send_timeout = 60_000\n\
             [[listener]]\nname = \"in\"\nlisten = \"hep_{}:127.0.0.1:0\"\n{connections}{collector}{}",
            from.as_str(),
            setup.tenants(if to.is_some() { "\"out\"" } else { "" }),
        );
        let workers = format!("workers = {}\nsummary = \"0s\"", setup.workers);
        let gateway = Gateway::start_with(folder, &workers, &config);
        let port = gateway.listener("in").port();
        Self::Gateway { gateway: Box::new(gateway), port }
    }

    pub(crate) const fn port(&self) -> u16 {
        match self {
            Self::Relay { port, .. } | Self::Gateway { port, .. } => *port,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        match self {
            Self::Relay { child, .. } => child.id(),
            Self::Gateway { gateway, .. } => gateway.child.id(),
        }
    }

    pub(crate) fn cpu(&self) -> Cpu {
        let clock = clock_getcpuclockid(Pid::from_raw(self.id().cast_signed())).unwrap();
        let time = clock_gettime(clock).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // After the name, which may have spaces in it: state is the third field, user and system time the 14th and 15th.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        Cpu {
            nanos: time.tv_sec() * 1_000_000_000 + time.tv_nsec(),
            user_ticks: fields[11].parse().unwrap(),
            system_ticks: fields[12].parse().unwrap(),
        }
    }

    /// The most octets of memory that it has had.
    pub(crate) fn peak_octets(&self) -> u64 {
        status_octets(self.id(), "VmHWM:")
    }

    /// Waits until it has read all that was sent to it.
    pub(crate) fn await_read(&self, from: Transport) {
        eventually("the process has read all", || unread_octets(from, self.port()) == 0);
    }

    /// Waits until it has read all that was sent to it, and has rested a while.
    pub(crate) fn await_rest(&self, from: Transport) {
        const REST: Duration = Duration::from_millis(20);
        // What a process that rests does at most meanwhile.
        const REST_NANOS: i64 = 2_000_000;
        eventually("the process rests", || {
            if unread_octets(from, self.port()) > 0 {
                return false;
            }
            let before = self.cpu().nanos;
            std::thread::sleep(REST);
            self.cpu().nanos - before < REST_NANOS && unread_octets(from, self.port()) == 0
        });
    }

    /// What it has counted: the relay datagrams, or octets of streams; the gateway packets that had no route.
    pub(crate) fn counted(&mut self) -> usize {
        match self {
            Self::Relay { asks, answers, .. } => {
                asks.write_all(b"\n").unwrap();
                let mut line = String::new();
                answers.read_line(&mut line).unwrap();
                line.trim().parse().unwrap()
            }
            Self::Gateway { gateway, .. } => {
                let counted = gateway.metrics().get("hepgate_tenant_dropped_packets_total", &[("reason", "no-route")]);
                usize::try_from(counted).unwrap()
            }
        }
    }

    /// Packets that its filters have answered.
    pub(crate) fn filtered(&self) -> usize {
        match self {
            Self::Relay { .. } => 0,
            Self::Gateway { gateway, .. } => gateway.metrics().sum("hepgate_filter_packets_total").try_into().unwrap(),
        }
    }

    /// Why the gateway dropped packets that had somewhere to go.
    pub(crate) fn drop_reasons(&self) -> Vec<String> {
        let Self::Gateway { gateway, .. } = self else { return Vec::new() };
        let text = gateway.get("/metrics").1;
        let dropped = text.lines().filter(|line| line.contains("_dropped_packets_total{") && !line.ends_with(" 0"));
        let reasons = dropped.filter_map(|line| line.split_once("reason=\"")?.1.split('"').next());
        reasons.filter(|reason| *reason != "no-route").map(str::to_owned).collect()
    }

    /// Ends it. The gateway's ledger must add up.
    pub(crate) fn stop(self) {
        match self {
            Self::Relay { mut child, .. } => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Self::Gateway { gateway, .. } => drop(gateway.stop()),
        }
    }
}

/// A line of what the system says of a process, which counts in KiB.
pub(crate) fn status_octets(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = status.lines().find_map(|has| has.strip_prefix(line)).expect("no such line");
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Octets that wait to be read by who has this port.
fn unread_octets(transport: Transport, port: u16) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/net/{}", transport.as_str())).unwrap();
    let ours = format!("0100007F:{port:04X}");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // A listening socket (0A) has connections there.
    let lines = lines.filter(|fields| fields.get(1) == Some(&ours.as_str()) && fields.get(3) != Some(&"0A"));
    lines.map(|fields| u64::from_str_radix(fields[4].rsplit_once(':').unwrap().1, 16).unwrap()).sum()
}
