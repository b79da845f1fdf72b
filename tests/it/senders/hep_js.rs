//! hep-js, the library of many a HOMER tool: as the sender, and as the collector.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Version};
use serde_json::{Value, json};

use super::Rig;
use super::program::{Program, free_port};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::peers::udp_agent;
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, sip};

fn node() -> Command {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command.arg(house.join("tests/it/senders/hep.js")).env("NODE_PATH", house.join("target/npm/node_modules"));
    command
}

fn send(port: u16, lines: &[Value]) {
    let mut child =
        node().args(["send", &port.to_string()]).stdin(Stdio::piped()).spawn().expect("node; tests/run installs it");
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success(), "hep-js; tests/run installs it");
}

#[test]
#[ignore = "needs node and hep-js; tests/run runs it"]
fn hep_js_sends_hep3() {
    let rig = Rig::start();
    let full = json!({
        "payload": "OPTIONS sip:a SIP/2.0\r\n\r\n",
        "info": {
            "protocolFamily": 2, "protocol": 17, "srcIp": "192.0.2.1", "dstIp": "192.0.2.2", "srcPort": 5060,
            "dstPort": 5070, "timeSeconds": 1_795_418_238, "timeUseconds": 797_310, "payloadType": 1,
            "captureId": 2_001, "capturePass": "a key", "hepNodeName": "node", "correlation_id": "a call"
        }
    });
    // The names of its README are not those that it reads: nothing of it arrives but the addresses of nobody.
    let by_its_readme = json!({
        "payload": "x",
        "info": { "type": "HEP", "version": 3, "payload_type": "SIP", "ip_family": 2, "captureId": "2001",
            "protocolFamily": 0, "protocol": 0, "payloadType": 0, "time_sec": 1_433_719_443, "capturePass": "myHep" }
    });
    send(rig.tap.udp.port(), &[full, by_its_readme]);
    let arrived = rig.finish(2);
    let (full, poor) = (&arrived.packets[0], &arrived.packets[1]);
    let head = full.head();
    assert_eq!((head.version, head.ip_protocol, head.payload_type), (Version::Hep3, 17, PayloadType::SIP));
    assert_eq!((head.source.unwrap().to_string(), head.source_port), ("192.0.2.1".to_owned(), 5_060));
    assert_eq!((head.destination.unwrap().to_string(), head.destination_port), ("192.0.2.2".to_owned(), 5_070));
    assert_eq!(head.captured_at, Some(CapturedAt { seconds: 1_795_418_238, microseconds: 797_310 }));
    assert_eq!((head.agent_id, full.payload()), (2_001, &b"OPTIONS sip:a SIP/2.0\r\n\r\n"[..]));
    let body = |id| full.chunks().find(|chunk| chunk.id == id).map(|chunk| chunk.body.to_vec());
    assert_eq!(body(ChunkId::AUTH_KEY).unwrap(), b"a key");
    assert_eq!(body(ChunkId::AGENT_NAME).unwrap(), b"node");
    // Family 0, no time, no type: it is a packet all the same.
    assert_eq!((poor.head().payload_type.0, poor.head().source_port, poor.payload()), (0, 0, &b"x"[..]));
    assert_eq!(poor.head().captured_at, Some(CapturedAt { seconds: 0, microseconds: 0 }));
}

#[test]
#[ignore = "needs node and hep-js; tests/run runs it"]
fn hep_js_reads_the_hep3_that_we_send() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let program = Program::start(node().args(["receive", &port.to_string()]), folder.path());
    eventually("node is ready", || program.said().contains("ready"));
    let to = collector("out", &format!("hep_udp:127.0.0.1:{port}"));
    let gateway = Gateway::start(&[BOTH_LISTENERS, &to, "version = \"3\"\n", ROUTE].concat());
    let agent = udp_agent(gateway.listener("udp"));
    // As HEP2, so that what it reads is ours.
    let pack = sip("OPTIONS sip:a SIP/2.0\r\n\r\n");
    agent.send(&pack.encode(Version::Hep2).unwrap()).unwrap();
    // And one as it came, with what HEP2 has no place for, on IPv6.
    let v6 = Pack {
        flow: Some(("[2001:db8::1]:5060".parse().unwrap(), "[2001:db8::2]:5070".parse().unwrap())),
        chunks: vec![(ChunkId::CORRELATION_ID, Bytes::from_static(b"a call"))],
        ..pack
    };
    agent.send(&v6.encode(Version::Hep3).unwrap()).unwrap();
    eventually("both are there", || program.said().lines().filter(|line| line.starts_with('{')).count() == 2);
    let said = program.said();
    let packets: Vec<Value> =
        said.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    for (packet, (source, destination)) in
        packets.iter().zip([("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
    {
        let info = &packet["rcinfo"];
        assert_eq!(packet["payload"], "OPTIONS sip:a SIP/2.0\r\n\r\n", "{packet}");
        assert_eq!((&info["srcPort"], &info["dstPort"]), (&5_060.into(), &5_070.into()), "{packet}");
        assert_eq!((&info["payloadType"], &info["protocol"]), (&1.into(), &17.into()), "{packet}");
        assert_eq!(info["timeSeconds"], 1_795_418_238, "{packet}");
        assert_eq!(info["timeUseconds"], 797_310, "{packet}");
        // It writes IPv6 in its own way.
        if source.contains('.') {
            assert_eq!((&info["srcIp"], &info["dstIp"]), (&source.into(), &destination.into()), "{packet}");
        }
    }
    assert_eq!(packets[1]["rcinfo"]["correlation_id"], "a call", "{}", packets[1]);
    gateway.stop();
}
