use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use hepgate::wire::{ChunkId, Pack, PayloadType, Vendor, Version};
use serde_json::Value;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{FunctionKind, Resolve};

use crate::capture::build::{Frame, TIME, address, built, ethernet, file, parts, udp};
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
    let mut functions = BTreeSet::new();
    for (interface, id) in &resolve.packages[package].interfaces {
        for function in resolve.interfaces[*id].functions.values() {
            functions.insert(match function.kind {
                FunctionKind::Method(resource) | FunctionKind::Static(resource) => {
                    let resource = resolve.types[resource].name.as_deref().unwrap();
                    format!("{interface}.{resource}.{}", function.item_name())
                }
                _ => format!("{interface}.{}", function.name),
            });
        }
    }
    functions
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

/// A filter that passes all, made with another interface than ours: of `packets` it has `batch`, and beside that `more`;
/// `import` is what its module imports of it.
fn made_with(batch: &str, more: &str, import: &str) -> Vec<u8> {
    let wit = format!(
        "package hep:filter@0.1.0;
        interface types {{ enum verdict {{ pass, skip, drop }} }}
        interface packets {{ resource batch {{ {batch} }} }}
        interface callbacks {{
          use types.{{verdict}};
          use packets.{{batch}};
          init: func() -> result<_, string>;
          on-batch: func(packets: borrow<batch>) -> list<verdict>;
        }}
        {more}"
    );
    let module = format!(
        r#"(module
        {import}
        (import "hep:filter/packets@0.1.0" "[resource-drop]batch" (func $drop-batch (param i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (func (export "hep:filter/callbacks@0.1.0#init") (result i32) (i32.const 16))
        (func (export "hep:filter/callbacks@0.1.0#on-batch") (param $batch i32) (result i32)
          (call $drop-batch (local.get $batch))
          (i32.const 32)))"#
    );
    let mut resolve = Resolve::default();
    let package = resolve.push_str("other.wit", &wit).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Whether it runs over a packet, and what is said if it does not.
fn tried(component: &[u8]) -> Result<(), String> {
    let hep = parts(0, INVITE).encode(Version::Hep3).unwrap();
    let (folder, capture) = built([udp("192.0.2.1:40000", "192.0.2.2:9060", &hep)]);
    let path = folder.path().join("f.wasm");
    std::fs::write(&path, component).unwrap();
    let output = Command::new(HEPGATE).args(["filter", "test", "--quiet", "--read"]).args([&capture, &path]).output();
    let output = output.unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

const LEN: &str = r#"(import "hep:filter/packets@0.1.0" "[method]batch.len" (func (param i32) (result i32)))"#;

/// The rules of compatibility in wit/README.md.
#[test]
fn a_filter_built_against_an_interface_of_less_runs() {
    let world = "world filter { import types; import packets; export callbacks; }";
    assert_eq!(tried(&made_with("len: func() -> u32;", world, LEN)), Ok(()));
}

#[test]
fn a_filter_built_against_an_interface_of_more_runs_as_long_as_it_does_not_use_it() {
    let more = "interface later { shout: func(); }
        world filter { import types; import packets; import later; export callbacks; }";
    let batch = "len: func() -> u32; colour: func(index: u32) -> u8;";
    assert_eq!(tried(&made_with(batch, more, LEN)), Ok(()));
    let colour = r#"(import "hep:filter/packets@0.1.0" "[method]batch.colour" (func (param i32 i32) (result i32)))"#;
    let said = tried(&made_with(batch, more, colour)).unwrap_err();
    assert!(said.contains("does not fit the interface") && said.contains("batch.colour"), "{said}");
    let shout = r#"(import "hep:filter/later@0.1.0" "shout" (func))"#;
    let said = tried(&made_with(batch, more, shout)).unwrap_err();
    assert!(said.contains("hep:filter/later@0.1.0"), "{said}");
}

/// Of the tables of config/migration.md: what they say stands in wit/, and that the kit has it.
#[test]
fn what_the_calls_of_scripts_become_is_there() {
    let functions = functions();
    let sources = ["kit/src/view.rs", "filter/src/generated.rs"];
    let sources = sources.map(|path| std::fs::read_to_string(repository("filters/bindings").join(path)).unwrap());
    let page = std::fs::read_to_string(repository("config/migration.md")).unwrap();
    let rows = page.split("| in `wit/` | in Rust |").skip(1).flat_map(|table| {
        let lines = table.lines().skip(2);
        lines.take_while(|line| line.starts_with("| "))
    });
    let (mut named, mut count) = (BTreeSet::new(), 0);
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [_, ours, rust] = cells[..] else { panic!("{row}") };
        for name in ours.split(", ").map(str::trim).filter(|name| *name != "none") {
            let name = name.trim_matches('`');
            let found = functions.iter().find(|function| *function == name || function.ends_with(&format!(".{name}")));
            named.insert(found.unwrap_or_else(|| panic!("{name} is no function of wit/: {row}")));
            count += 1;
        }
        for call in rust.split("`packet.").skip(1) {
            let method = call.split(['(', '`']).next().unwrap();
            let is_there = sources.iter().any(|source| source.contains(&format!("fn {method}(")));
            assert!(is_there, "packet.{method} is not there: {row}");
        }
    }
    assert!(count > 70, "{count}");
    let packets = functions.iter().filter(|name| name.starts_with("packing.") || name.starts_with("sending."));
    let missing: Vec<_> = packets.filter(|name| !named.contains(name)).collect();
    assert_eq!(missing, ["packing.packet.set-extra-correlation"], "OpenSIPS has it as one of its correlations");
}
