//! Real traffic, and what other agents would have made of it, at other times and through other workers.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use hepgate::wire::{Packet, Version};
use serde_json::Value;

use super::{folder, read, shipped};
use crate::capture::build::{Frame, ethernet, file, udp};
use crate::corpus;
use crate::support::eventually;
use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector};

/// The Call-IDs of [`calls`].
pub(super) const CALL_IDS: [&str; 2] = ["1-8892@127.0.0.1", "2-8892@127.0.0.1"];
/// On a slow machine, too, a chain stays where it is, and an instance keeps what it knows.
pub(super) const UNHURRIED: &str = "[filter.limits]\nfast_deadline = \"10s\"\n";
/// The agent id of those that only look for a worker.
const SCOUT: u32 = 4_000_000_000;

/// The twelve SIP messages of two calls of SIPp, one after the other, as sngrep sent them in HEP3.
pub(super) fn calls() -> Vec<Vec<u8>> {
    exchange("sngrep-v3-udp")
}

/// The packets of one exchange.
pub(super) fn exchange(name: &str) -> Vec<Vec<u8>> {
    let exchange = corpus::exchanges().into_iter().find(|exchange| exchange.name == name).unwrap();
    exchange.frames.into_iter().map(|frame| frame.octets).collect()
}

/// The same packet as an agent of that id would have sent it. HEP1 has no ids.
pub(super) fn of_agent(packet: &[u8], id: u32) -> Vec<u8> {
    match read(packet).head().version {
        Version::Hep1 => packet.to_vec(),
        Version::Hep2 => {
            let mut octets = packet.to_vec();
            // Behind eight octets, two addresses of IPv4 and the time.
            octets[24..26].copy_from_slice(&u16::try_from(id).unwrap().to_le_bytes());
            octets
        }
        Version::Hep3 => with(packet, 0x0c, &id.to_be_bytes()),
    }
}

/// The same packet of HEP3, captured at another time: seconds, and what stands in the place of microseconds.
pub(super) fn captured(packet: &[u8], seconds: u64, fraction: u64) -> Vec<u8> {
    let body = |n: u64| u32::try_from(n).unwrap().to_be_bytes();
    with(&with(packet, 0x09, &body(seconds)), 0x0a, &body(fraction))
}

/// The same, in microseconds since the epoch.
pub(super) fn captured_at(packet: &[u8], micros: u64) -> Vec<u8> {
    captured(packet, micros / 1_000_000, micros % 1_000_000)
}

/// When it was captured, in microseconds since the epoch.
pub(super) fn time(packet: &[u8]) -> u64 {
    read(packet).head().captured_at.unwrap().as_micros()
}

/// A packet of HEP3 with another body in a generic chunk, which is added at the end if it is not there.
pub(super) fn with(packet: &[u8], kind: u16, body: &[u8]) -> Vec<u8> {
    let before = read(packet);
    let mut chunks: Vec<(u16, u16, Vec<u8>)> =
        before.chunks().map(|chunk| (chunk.id.vendor.0, chunk.id.kind, chunk.body.to_vec())).collect();
    match chunks.iter_mut().find(|(vendor, of, _)| (*vendor, *of) == (0, kind)) {
        Some(chunk) => chunk.2 = body.to_vec(),
        None => chunks.push((0, kind, body.to_vec())),
    }
    super::hep3(&chunks.iter().map(|(vendor, kind, body)| (*vendor, *kind, &body[..])).collect::<Vec<_>>())
}

/// A packet of HEP3 with texts of its payload replaced.
pub(super) fn replaced(packet: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(read(packet).payload().to_vec()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    with(packet, 0x0f, text.replace(from, to).as_bytes())
}

/// The body of the first generic chunk of that kind.
pub(super) fn chunk(packet: &Packet, kind: u16) -> Option<String> {
    let chunk = packet.chunks().find(|chunk| (chunk.id.vendor.0, chunk.id.kind) == (0, kind))?;
    Some(String::from_utf8(chunk.body.to_vec()).unwrap())
}

/// What `hepgate filter test` says that a filter does with packets that came at those times, in microseconds, one a call.
/// `options` are those of the command, with a blank between name and value.
pub(super) fn trial(name: &str, packets: &[(u64, Vec<u8>)], options: &[&str]) -> Trial {
    trial_from(name, "192.0.2.1:40000", packets, &[&["--batch 1"], options].concat())
}

/// The same with packets from that address, and batches as `options` says.
pub(super) fn trial_from(name: &str, peer: &str, packets: &[(u64, Vec<u8>)], options: &[&str]) -> Trial {
    let frames = |(micros, octets): &(u64, Vec<u8>)| {
        let octets = ethernet(&[], &udp(peer, "192.0.2.2:9060", octets));
        Frame { micros: *micros, stated: octets.len(), octets }
    };
    let (_folder, capture) = file(&packets.iter().map(frames).collect::<Vec<_>>());
    let component = folder().join(format!("{name}.wasm"));
    let mut command = Command::new(HEPGATE);
    command.args(["filter", "test", "--json"]).arg(component).arg("--read").arg(capture);
    command.args(options.iter().flat_map(|option| option.splitn(2, ' ')));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
    let trial = Trial(serde_json::from_slice(&out.stdout).unwrap());
    assert_eq!(trial.verdicts().len(), packets.len(), "not all of them are packets");
    trial
}

/// What became of packets.
#[derive(Debug)]
pub(super) struct Trial(Value);

impl Trial {
    /// One letter for each packet: p(ass), s(kip), d(rop), n(ot seen).
    pub(super) fn verdicts(&self) -> String {
        let packets = self.0["packets"].as_array().unwrap();
        packets.iter().map(|packet| packet["verdict"].as_str().unwrap().chars().next().unwrap()).collect()
    }

    /// What was changed of each packet, in words.
    pub(super) fn changes(&self) -> Vec<Vec<String>> {
        let packets = self.0["packets"].as_array().unwrap().iter();
        packets.map(|packet| texts(&packet["edited"]["changes"])).collect()
    }

    pub(super) fn metrics(&self) -> Vec<String> {
        texts(&self.0["metrics"])
    }

    pub(super) fn log(&self) -> Vec<String> {
        texts(&self.0["log"])
    }

    /// The collectors that something was sent to, in that order.
    pub(super) fn sent_to(&self) -> Vec<String> {
        self.0["sent"].as_array().unwrap().iter().map(|sent| sent["to"].as_str().unwrap().to_owned()).collect()
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A gateway of two workers with one filter between UDP and a sink, and an agent on each of them.
pub(super) struct TwoWorkers {
    pub(super) gateway: Gateway,
    pub(super) agents: [UdpSocket; 2],
}

impl TwoWorkers {
    /// `further` are more tables of the configuration; `tenant` stands in the tenant's.
    pub(super) fn start(name: &str, more: &str, further: &str, sink: &UdpSink) -> Self {
        // The scouts' dedup remembers in its instance, of which each worker has one.
        let scouts = format!(
            "[[filter]]\nname = \"scout\"\ncomponent = \"{}\"\n\
             config = {{ memory = \"instance\", across = \"any\", window = \"60s\" }}\n{UNHURRIED}\
             [[tenant]]\nname = \"scouts\"\nfilters = [\"scout\"]\nroute = [\"out\"]\n\
             [[tenant.match]]\nagent_id = {SCOUT}\n",
            folder().join("dedup.wasm").display()
        );
        let config = [
            BOTH_LISTENERS,
            &collector("out", &sink.to()),
            &shipped(name, &[more, "\n", UNHURRIED].concat()),
            &scouts,
            &format!("[[tenant]]\nname = \"default\"\nfilters = [\"{name}\"]\nroute = [\"out\"]\n"),
            further,
        ];
        let settings = "workers = 2\nsummary = \"0s\"";
        let gateway = Gateway::start_with(tempfile::tempdir().unwrap(), settings, &config.concat());
        let agents = Self::agents(&gateway, sink);
        Self { gateway, agents }
    }

    /// The system gives each flow to one of the workers: tries flows until there is one of each.
    fn agents(gateway: &Gateway, sink: &UdpSink) -> [UdpSocket; 2] {
        let scout = of_agent(&calls()[0], SCOUT);
        let first = udp_agent(gateway.listener("udp"));
        first.send(&scout).unwrap();
        assert_eq!(sink.next(), scout);
        for dropped in 1.. {
            let other = udp_agent(gateway.listener("udp"));
            other.send(&scout).unwrap();
            let mut has_come = false;
            eventually("the scout comes, or does not", || {
                has_come = sink.next_within(Duration::from_millis(2)).is_some();
                let of_scouts = [("tenant", "scouts")];
                has_come || gateway.metrics().get("hepgate_tenant_filter_dropped_packets_total", &of_scouts) == dropped
            });
            if has_come {
                return [first, other];
            }
        }
        unreachable!("numbers have no end")
    }
}
