use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use hepgate::wire::{ChunkId, Pack, PayloadType, Vendor, Version};
use serde_json::Value;
use wit_parser::{FunctionKind, Resolve};

use crate::capture::build::{Frame, TIME, address, ethernet, file, parts, udp};
use crate::support::gateway::HEPGATE;

const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060\r\n\
    From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: one@192.0.2.10\r\nCSeq: 1 INVITE\r\n\
    User-Agent: telephone\r\nContent-Length: 0\r\n\r\n";
const OK: &[u8] = b"SIP/2.0 200 OK\r\ni: one@192.0.2.10\r\nCSeq: 1 INVITE\r\n\r\n";
const OPTIONS: &[u8] = b"OPTIONS sip:bob@example.com SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n";
const SUBSCRIBE: &[u8] = b"SUBSCRIBE sip:bob@example.com SIP/2.0\r\nCSeq: 1 SUBSCRIBE\r\n\r\n";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The packets that the examples are about: the first sixteen come in one call, and each edit has one of its own.
fn packets() -> Vec<Pack> {
    let plain = |payload: &[u8]| Pack { chunks: Vec::new(), ..parts(0, payload) };
    let mut first = parts(0, INVITE);
    first.chunks.extend([
        (ChunkId::CORRELATION_ID, Bytes::from_static(b"one")),
        (ChunkId::VLAN_ID, Bytes::from_static(&[0, 7])),
        (ChunkId { vendor: Vendor(0x7777), kind: 1 }, Bytes::from_static(b"gold")),
    ]);
    let placed = Pack { chunks: vec![(ChunkId::GEO_LOCATION, Bytes::from_static(b"here"))], ..plain(INVITE) };
    let mut packets = vec![first, plain(OK)];
    packets.extend((2..15).map(|index| if index == 7 { placed.clone() } else { plain(INVITE) }));
    packets.push(plain(OPTIONS));
    // What the filter has not subscribed to: by payload type, agent, method and network.
    packets.push(Pack { payload_type: PayloadType::RTCP_JSON, ..plain(b"{}") });
    packets.push(Pack { agent_id: 9, ..plain(INVITE) });
    packets.push(plain(SUBSCRIBE));
    packets.push(Pack { flow: Some((address("198.51.100.1:5060"), address("198.51.100.2:5060"))), ..plain(INVITE) });
    // After a tick.
    packets.push(plain(INVITE));
    packets
}

/// Every function of the interface, as `INTERFACE.FUNCTION` or `INTERFACE.RESOURCE.FUNCTION`.
fn functions() -> BTreeSet<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(repository("wit")).unwrap();
    let interfaces = resolve.packages[package].interfaces.iter();
    let named = interfaces.flat_map(|(interface, id)| {
        resolve.interfaces[*id].functions.values().map(|function| match function.kind {
            FunctionKind::Method(resource) | FunctionKind::Static(resource) => {
                let resource = resolve.types[resource].name.as_deref().unwrap();
                format!("{interface}.{resource}.{}", function.item_name())
            }
            _ => format!("{interface}.{}", function.name),
        })
    });
    named.collect()
}

/// The filter of the examples looks at what each of them gives, and a wrong result fails its call; what it did to the
/// packets is compared here. After a change of the examples: `HEPGATE_WRITE_BINDINGS=1` writes the results.
#[test]
fn every_function_of_the_interface_has_an_example_that_runs() {
    let after = |index: u64| if index == 20 { 1_500_000 } else { index * 1_000 };
    let frames: Vec<Frame> = (0..)
        .zip(packets())
        .map(|(index, packet)| {
            let hep = packet.encode(Version::Hep3).unwrap();
            let octets = ethernet(&[], &udp("192.0.2.1:40000", "192.0.2.2:9060", &hep));
            Frame { micros: TIME + after(index), stated: octets.len(), octets }
        })
        .collect();
    let (_folder, capture) = file(&frames);
    let mut command = Command::new(HEPGATE);
    command.args(["filter", "test"]).arg(repository("filters/examples.wasm")).arg("--read").arg(&capture);
    command.args(["--set", "greeting=good morning", "--collector", "homer", "--tick", "1s", "--json", "--expect"]);
    command.arg(repository("filters/examples/expected.json"));
    if std::env::var_os("HEPGATE_WRITE_BINDINGS").is_some() {
        command.arg("--update");
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let metrics = results["metrics"].as_array().unwrap().iter().filter_map(Value::as_str);
    let ran = metrics.filter_map(|line| {
        let (name, count) = line.split_once("ran{example=\"")?.1.split_once("\"} ")?;
        assert_eq!(count, "1", "{name}");
        Some(name.to_owned())
    });
    assert_eq!(ran.collect::<BTreeSet<_>>(), functions());
}
