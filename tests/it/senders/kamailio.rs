//! Kamailio's siptrace.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use hepgate::wire::{ChunkId, PayloadType, Version};

use super::program::{Program, await_udp_port, free_port};
use super::{Arrived, Rig};
use crate::filters::through;
use crate::support::PATIENCE;
use crate::support::peers::UdpSink;

const REQUESTS: usize = 5;

/// A Kamailio that runs.
pub(super) struct Kamailio {
    pub(super) program: Program,
    pub(super) port: u16,
    pub(super) folder: tempfile::TempDir,
}

impl Kamailio {
    /// Starts one that gets SIP and HEP at a port of loopback, over UDP and TCP; `settings` make the rest of its
    /// configuration of that port and its folder. Debian installs its modules for one architecture's folder; it knows
    /// which by itself.
    pub(super) fn start(settings: impl FnOnce(u16, &Path) -> String) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let path = folder.path().join("kamailio.cfg");
        let listen = format!("listen=udp:127.0.0.1:{port}\nlisten=tcp:127.0.0.1:{port}\n");
        std::fs::write(&path, [EVERYWHERE, &listen, &settings(port, folder.path())].concat()).unwrap();
        let mut command = Command::new("kamailio");
        command.arg("-f").arg(&path).args(["-DD", "-E", "-m", "32", "-M", "4", "-Y"]).arg(folder.path());
        let mut program = Program::start(&mut command, folder.path());
        await_udp_port(port, || program.assert_running());
        Self { program, port, folder }
    }
}

/// One process of each kind, and nothing that asks the network.
const EVERYWHERE: &str = "
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=1
auto_aliases=no
dns=no
rev_dns=no
";

/// One that answers every request itself and traces what it gets.
fn settings(host: &str, port: u16, to: &str, version: u8) -> String {
    let further = if host == "127.0.0.1" { String::new() } else { format!("listen=udp:{host}:{port}") };
    let log = if version == 3 { "hlog(\"a line of Kamailio's\");" } else { "" };
    format!(
        r#"
{further}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "siptrace.so"
modparam("siptrace", "duplicate_uri", "{to}")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", {version})
modparam("siptrace", "hep_capture_id", 5510)
modparam("siptrace", "auth_key", "kamkey")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "send_sock_addr", "sip:127.0.0.1:{port}")
request_route {{
    sip_trace();
    {log}
    sl_send_reply("200", "OK");
}}
"#
    )
}

fn ask(socket: &UdpSocket, number: usize) -> String {
    let us = socket.local_addr().unwrap();
    let request = format!(
        "OPTIONS sip:kamailio@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {us};branch=z9hG4bK{number}\r\n\
         From: <sip:alice@127.0.0.1>;tag={number}\r\nTo: <sip:bob@127.0.0.1>\r\nCall-ID: call-{number}\r\n\
         CSeq: {number} OPTIONS\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
    );
    // Kamailio says nothing when it is ready: whoever gets no answer asks again, and the same request is the same trace.
    socket.send(request.as_bytes()).unwrap();
    let mut answer = [0; 4_096];
    let length = socket.recv(&mut answer).expect("Kamailio does not answer");
    assert!(answer[..length].starts_with(b"SIP/2.0 200 "));
    request
}

/// `host` is where Kamailio gets SIP; what it sends as HEP goes over IPv4.
fn traces(host: &str, version: u8, over_tcp: bool) -> (Arrived, Vec<String>) {
    let rig = Rig::start();
    let to = if over_tcp { format!("sip:{};transport=tcp", rig.tap.tcp) } else { format!("sip:{}", rig.tap.udp) };
    let kamailio = Kamailio::start(|port, _| settings(host, port, &to, version));
    let socket = UdpSocket::bind(format!("{host}:0")).unwrap();
    socket.connect(format!("{host}:{}", kamailio.port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let requests = (1..=REQUESTS).map(|number| ask(&socket, number)).collect();
    let for_each = if version == 3 { 2 } else { 1 };
    (rig.finish(REQUESTS * for_each), requests)
}

fn check(version: u8, over_tcp: bool) {
    check_at("127.0.0.1", version, over_tcp);
}

fn check_at(host: &str, version: u8, over_tcp: bool) {
    let (arrived, requests) = traces(host, version, over_tcp);
    let is_sip = |packet: &&hepgate::wire::Packet| packet.head().payload_type == PayloadType::SIP;
    let sip: Vec<_> = arrived.packets.iter().filter(is_sip).collect();
    assert_eq!(sip.len(), REQUESTS);
    for (packet, request) in sip.iter().zip(&requests) {
        assert_eq!(packet.head().version, Version::from_number(version).unwrap());
        assert_eq!(packet.payload(), request.as_bytes());
        assert_eq!(packet.head().source.unwrap().to_string(), host.trim_matches(['[', ']']));
        match version {
            3 => assert!(packet.chunks().any(|chunk| chunk.id == ChunkId::AUTH_KEY && chunk.body == b"kamkey")),
            1 => assert_eq!(packet.head().captured_at, None),
            _ => assert!(packet.head().captured_at.is_some()),
        }
        assert_eq!(packet.head().agent_id, if version == 1 { 0 } else { 5_510 });
    }
    let logs = arrived.packets.iter().filter(|packet| packet.head().payload_type == PayloadType::LOG);
    assert!(logs.clone().all(|packet| packet.payload() == b"a line of Kamailio's"), "{:?}", arrived.texts());
    assert_eq!(logs.count(), if version == 3 { REQUESTS } else { 0 });
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_sends_hep1() {
    check(1, false);
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_sends_hep2() {
    check(2, false);
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_sends_hep3() {
    check(3, false);
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_sends_hep3_over_tcp() {
    check(3, true);
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_sends_sip_of_ipv6() {
    for version in [1, 2, 3] {
        check_at("[::1]", version, false);
    }
}

/// One that traces all that it gets and sends, and does that with requests.
fn traces_all(to: &str, agent_id: u32, does: &str) -> String {
    format!(
        r#"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "siptrace.so"
modparam("siptrace", "duplicate_uri", "sip:{to}")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "hep_capture_id", {agent_id})
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 1)
request_route {{
    {does}
}}
"#
    )
}

/// A request goes to a first one and through it to a second one, and its answer comes back. Both trace what is between
/// them, which `dedup` leaves once.
#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn what_two_kamailios_saw_of_one_message_is_there_once() {
    let sink = UdpSink::new();
    let gateway = through("dedup", "[filter.limits]\nfast_deadline = \"10s\"\n", &sink);
    let to = gateway.listener("udp").to_string();
    let answers = "sl_send_reply(\"200\", \"OK\");";
    let second = Kamailio::start(|_, _| traces_all(&to, 5_512, answers));
    let relays = format!("$du = \"sip:127.0.0.1:{}\"; forward();", second.port);
    let first = Kamailio::start(|_, _| traces_all(&to, 5_511, &relays));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", first.port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let us = socket.local_addr().unwrap().port();
    let ways = [(us, first.port), (first.port, second.port), (second.port, first.port), (first.port, us)];
    let mut by_agents = std::collections::BTreeSet::new();
    for number in 1..=REQUESTS {
        ask(&socket, number);
        let mut seen: Vec<(u16, u16)> = (0..ways.len())
            .map(|_| {
                let packet = hepgate::wire::decode(bytes::Bytes::from(sink.next())).unwrap();
                by_agents.insert(packet.head().agent_id);
                (packet.head().source_port, packet.head().destination_port)
            })
            .collect();
        seen.sort_unstable();
        let mut expected = ways;
        expected.sort_unstable();
        assert_eq!(seen, expected, "{number}");
    }
    gateway.await_metric("hepgate_guest_removed_total", &[], u64::try_from(2 * REQUESTS).unwrap());
    gateway.await_metric("hepgate_tenant_filter_dropped_packets_total", &[], u64::try_from(2 * REQUESTS).unwrap());
    assert!(by_agents.contains(&5_511), "{by_agents:?}");
    assert!(sink.is_empty());
    gateway.stop();
}
