//! Kamailio's sipcapture as the collector: what it reads in the packets that we send.

use std::path::Path;

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, Version};

use super::kamailio::Kamailio;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::peers::udp_agent;
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, sip};

/// A Kamailio that says every field of what comes, and also keeps it as a collector would, in a file for a table.
///
/// Over TCP it reads HEP whole and then looks for a Content-Length in it, unless `tcp_accept_no_cl` is set too.
/// With `nonsip_hook` it gives HEP to the event route; without, it takes the SIP out of it, and HEP2 too.
fn settings(folder: &Path, event: bool) -> String {
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
tcp_accept_hep3=yes
tcp_accept_no_cl=yes
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

fn start(event: bool) -> Kamailio {
    Kamailio::start(|_, folder| settings(folder, event))
}

/// The fields of each packet, as Kamailio said them.
fn packets(kamailio: &Kamailio) -> Vec<String> {
    let said = kamailio.program.said();
    said.split("[[").skip(1).filter_map(|rest| Some(rest.split_once("]]")?.0.to_owned())).collect()
}

/// The lines that it keeps.
fn kept(kamailio: &Kamailio) -> Vec<String> {
    let files = std::fs::read_dir(kamailio.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let kept = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("kept_"));
    kept.flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn request(number: u32) -> String {
    format!(
        "OPTIONS sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{number}\r\n\
         From: <sip:alice@192.0.2.1>;tag={number}\r\nTo: <sip:bob@192.0.2.2>\r\nCall-ID: call-{number}\r\n\
         CSeq: {number} OPTIONS\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
    )
}

fn pack(number: u32, v6: bool) -> Pack {
    let mut pack = sip(request(number));
    pack.captured_at = Some(CapturedAt { seconds: 1_795_418_238, microseconds: 797_310 + number });
    if v6 {
        pack.flow = Some(("[2001:db8::1]:5060".parse().unwrap(), "[2001:db8::2]:5070".parse().unwrap()));
    }
    pack
}

fn gateway(to: &str, more: &str) -> Gateway {
    Gateway::start(&[BOTH_LISTENERS, &collector("out", to), more, ROUTE].concat())
}

fn reads_hep3(transport: &str) {
    let kamailio = start(true);
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
    eventually("Kamailio has them all", || packets(&kamailio).len() >= 6);
    let unnull = |text: String| text.replace("<null>", "");
    let read: Vec<String> = packets(&kamailio).into_iter().map(unnull).collect();
    assert_eq!(read, expected, "{}", kamailio.program.said());
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
        let kamailio = start(false);
        let to = format!("hep_udp:127.0.0.1:{}", kamailio.port);
        let gateway = gateway(&to, &format!("version = \"{version}\"\n"));
        let agent = udp_agent(gateway.listener("udp"));
        for number in 1..=5 {
            // It comes as HEP3 and is packed anew.
            agent.send(&pack(number, false).encode(Version::Hep3).unwrap()).unwrap();
        }
        eventually("Kamailio keeps them all", || kept(&kamailio).len() >= 5);
        let lines = kept(&kamailio);
        assert_eq!(lines.len(), 5);
        for (line, number) in lines.iter().zip(1..) {
            assert!(line.contains(&request(number).replace('\r', "\\x0D").replace('\n', "\\x0A")), "{line}");
            assert!(line.contains("|192.0.2.1|5060|192.0.2.2|5070|"), "{line}");
            // HEP1 has no time: Kamailio takes its own.
            let time = format!("1795418238|{}|", 1_795_418_238_797_310_u64 + u64::from(number));
            assert_eq!(line.contains(&time), version != 1, "{line}");
        }
        gateway.stop();
    }
}
