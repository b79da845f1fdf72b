//! Kamailio's sipcapture as the collector: what it reads in the packets that we send.

use std::net::SocketAddr;
use std::process::Command;

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Version};

use super::program::{Program, await_udp_port, free_port};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::peers::udp_agent;
use crate::support::settings::{BOTH_LISTENERS, collector};

/// A Kamailio that says every field of what comes, and also keeps it as a collector would, in a file for a table.
///
/// Over TCP it reads HEP whole and then looks for a Content-Length in it, unless `tcp_accept_no_cl` is set too.
/// With `nonsip_hook` it gives HEP to the event route; without, it takes the SIP out of it, and HEP2 too.
fn settings(port: u16, folder: &std::path::Path, event: bool) -> String {
    let (hook, route) = if event {
        (
            "modparam(\"sipcapture\", \"nonsip_hook\", 1)",
            r#"event_route[sipcapture:request] {
    xlog("L_ERR", "[[$hep(version)|$hep(0x001)|$hep(0x002)|$hep(0x003)$hep(0x005)|$hep(0x007)|$hep(0x004)$hep(0x006)|$hep(0x008)|$hep(0x009)|$hep(0x00a)|$hep(0x00b)|$hep(0x00c)|$hep(0x00e)|$hep(0x011)|$hep(0x00f)]]");
    return 1;
}"#,
        )
    } else {
        ("", "")
    };
    format!(
        r#"
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=1
auto_aliases=no
dns=no
rev_dns=no
tcp_accept_hep3=yes
tcp_accept_no_cl=yes
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "db_flatstore.so"
loadmodule "sipcapture.so"
modparam("sipcapture", "db_url", "flatstore:{folder}")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
{hook}
request_route {{
    sip_capture("kept");
    drop;
}}
onreply_route {{
    sip_capture("kept");
    drop;
}}
{route}
"#,
        folder = folder.display()
    )
}

struct Kamailio {
    program: Program,
    port: u16,
    folder: tempfile::TempDir,
}

impl Kamailio {
    fn start(event: bool) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let path = folder.path().join("kamailio.cfg");
        std::fs::write(&path, settings(port, folder.path(), event)).unwrap();
        let mut command = Command::new("kamailio");
        command.arg("-f").arg(&path).args(["-DD", "-E", "-m", "32", "-M", "4", "-Y"]).arg(folder.path());
        let mut program = Program::start(&mut command, folder.path());
        await_udp_port(port, || program.assert_running());
        Self { program, port, folder }
    }

    /// The fields of each packet, as it said them.
    fn packets(&self) -> Vec<String> {
        let said = self.program.said();
        said.split("[[").skip(1).filter_map(|rest| Some(rest.split_once("]]")?.0.to_owned())).collect()
    }

    /// The lines that it keeps.
    fn kept(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let kept = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("kept_"));
        kept.flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

fn request(number: u32) -> String {
    format!(
        "OPTIONS sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{number}\r\n\
         From: <sip:alice@192.0.2.1>;tag={number}\r\nTo: <sip:bob@192.0.2.2>\r\nCall-ID: call-{number}\r\n\
         CSeq: {number} OPTIONS\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
    )
}

fn pack(number: u32, v6: bool) -> Pack {
    let addresses =
        if v6 { ("[2001:db8::1]:5060", "[2001:db8::2]:5070") } else { ("192.0.2.1:5060", "192.0.2.2:5070") };
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    Pack {
        ip_protocol: 17,
        flow: Some((parse(addresses.0), parse(addresses.1))),
        captured_at: Some(CapturedAt { seconds: 1_795_418_238, microseconds: 797_310 + number }),
        payload_type: PayloadType::SIP,
        agent_id: 2_001,
        chunks: Vec::new(),
        payload: Some(Bytes::from(request(number))),
    }
}

fn gateway(to: &str, more: &str) -> Gateway {
    let route = "[[tenant]]\nname = \"default\"\nroute = [\"out\"]\n";
    Gateway::start(&[BOTH_LISTENERS, &collector("out", to), more, route].concat())
}

fn reads_hep3(transport: &str) {
    let kamailio = Kamailio::start(true);
    let gateway = gateway(&format!("hep_{transport}:127.0.0.1:{}", kamailio.port), "");
    let agent = udp_agent(gateway.listener("udp"));
    let mut expected = Vec::new();
    for number in 1..=6 {
        let v6 = number % 2 == 0;
        let mut pack = pack(number, v6);
        pack.chunks = vec![
            (ChunkId::AUTH_KEY, Bytes::from_static(b"a key")),
            (ChunkId::CORRELATION_ID, Bytes::from_static(b"a call")),
        ];
        agent.send(&pack.encode(Version::Hep3).unwrap()).unwrap();
        let (family, from, to) = if v6 { (10, "2001:db8::1", "2001:db8::2") } else { (2, "192.0.2.1", "192.0.2.2") };
        expected.push(format!(
            "3|{family}|17|{from}|5060|{to}|5070|1795418238|{}|1|2001|a key|a call|{}",
            797_310 + number,
            request(number)
        ));
    }
    eventually("Kamailio has them all", || kamailio.packets().len() >= 6);
    let unnull = |text: String| text.replace("<null>", "");
    let packets: Vec<String> = kamailio.packets().into_iter().map(unnull).collect();
    assert_eq!(packets, expected, "{}", kamailio.program.said());
    gateway.stop();
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_reads_the_hep3_that_we_send_over_udp() {
    reads_hep3("udp");
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_reads_the_hep3_that_we_send_over_tcp() {
    reads_hep3("tcp");
}

#[test]
#[ignore = "needs kamailio; tests/run runs it"]
fn kamailio_keeps_the_sip_of_every_version_that_we_send() {
    for version in [1, 2, 3] {
        let kamailio = Kamailio::start(false);
        let to = format!("hep_udp:127.0.0.1:{}", kamailio.port);
        let gateway = gateway(&to, &format!("version = \"{version}\"\n"));
        let agent = udp_agent(gateway.listener("udp"));
        for number in 1..=5 {
            // It comes as HEP3 and is packed anew.
            agent.send(&pack(number, false).encode(Version::Hep3).unwrap()).unwrap();
        }
        eventually("Kamailio keeps them all", || kamailio.kept().len() >= 5);
        let kept = kamailio.kept();
        assert_eq!(kept.len(), 5);
        for (line, number) in kept.iter().zip(1..) {
            assert!(line.contains(&request(number).replace('\r', "\\x0D").replace('\n', "\\x0A")), "{line}");
            assert!(line.contains("|192.0.2.1|5060|192.0.2.2|5070|"), "{line}");
            // HEP1 has no time: Kamailio takes its own.
            let time = format!("1795418238|{}|", 1_795_418_238_797_310_u64 + u64::from(number));
            assert_eq!(line.contains(&time), version != 1, "{line}");
        }
        gateway.stop();
    }
}
