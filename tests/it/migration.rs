use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Version, decode};

use crate::support::captures::ip_packets;
use crate::support::gateway::Gateway;
use crate::support::peers::{TcpSink, UdpSink, next_packet, udp_agent};

fn house() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks of that language on the page, in order.
fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(house().join("config/migration.md")).unwrap();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// An example with the addresses of this machine. Each of them must be in it.
fn here(example: &str, addresses: &[(&str, &str)]) -> String {
    addresses.iter().fold(example.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// In a folder that has the filters where the example looks for them.
fn start(config: &str) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(house().join("filters"), folder.path().join("filters")).unwrap();
    Gateway::start_in(folder, config)
}

fn pack(payload: &'static str, agent_id: u32, source: &str) -> Pack {
    Pack {
        ip_protocol: 17,
        flow: Some((source.parse().unwrap(), "192.0.2.9:5070".parse().unwrap())),
        captured_at: Some(CapturedAt { seconds: 1_800_000_000, microseconds: 5 }),
        payload_type: PayloadType::SIP,
        agent_id,
        chunks: Vec::new(),
        payload: Some(Bytes::from_static(payload.as_bytes())),
    }
}

const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n";
const INVITE: &str = "INVITE sip:a SIP/2.0\r\nCSeq: 1 INVITE\r\nUser-Agent: telephone\r\n\r\n";
const CANCEL: &str = "CANCEL sip:a SIP/2.0\r\nCSeq: 1 CANCEL\r\nUser-Agent: telephone\r\nVia: x\r\n\r\n";

#[test]
fn the_opensips_of_the_page_does_in_hepgate_what_the_page_says() {
    let (homer, old) = (TcpSink::new(), UdpSink::new());
    let config = here(
        &blocks("toml")[0],
        &[
            ("hep_udp:192.0.2.10:9060", "hep_udp:127.0.0.1:0"),
            ("hep_tcp:192.0.2.10:9060", "hep_tcp:127.0.0.1:0"),
            ("192.0.2.20:9060", &homer.to().replace("hep_tcp:", "")),
            ("192.0.2.21:9060", &old.to().replace("hep_udp:", "")),
        ],
    );
    let gateway = start(&config);
    let mut homer = homer.accept();
    let encode = |payload, version| pack(payload, 7, "192.0.2.1:5060").encode(version).unwrap();
    // Over UDP and TCP; OPTIONS are dropped, the rest is relayed to both.
    let mut tcp = TcpStream::connect(gateway.listener("tcp")).unwrap();
    tcp.write_all(&encode(OPTIONS, Version::Hep3)).unwrap();
    tcp.write_all(&encode(INVITE, Version::Hep3)).unwrap();
    assert_eq!(next_packet(&mut homer), encode(INVITE, Version::Hep3));
    assert_eq!(old.next(), encode(INVITE, Version::Hep2));
    let udp = udp_agent(gateway.listener("udp"));
    udp.send(&encode(OPTIONS, Version::Hep2)).unwrap();
    udp.send(&encode(CANCEL, Version::Hep2)).unwrap();
    assert_eq!(next_packet(&mut homer), encode(CANCEL, Version::Hep3));
    assert_eq!(old.next(), encode(CANCEL, Version::Hep2));
    // hep_capture_id is for HEP1, which has no agent.
    udp.send(&encode(INVITE, Version::Hep1)).unwrap();
    assert_eq!(decode(next_packet(&mut homer).into()).unwrap().head().agent_id, 2_001);
    gateway.await_quiet();
    let ended = gateway.stop();
    assert_eq!(ip_packets(&ended.files("captures", "captured-")[0]).len(), 3);
}

#[test]
fn the_lua_script_of_the_page_does_as_a_filter_what_the_page_says() {
    let homer = TcpSink::new();
    let config = here(
        &blocks("toml")[1],
        &[("192.0.2.10:9060", "127.0.0.1:0"), ("192.0.2.20:9060", &homer.to().replace("hep_tcp:", ""))],
    );
    let gateway = start(&config);
    let mut homer = homer.accept();
    let udp = udp_agent(gateway.listener("udp"));
    let mut through = |pack: &Pack| {
        udp.send(&pack.encode(Version::Hep3).unwrap()).unwrap();
        decode(next_packet(&mut homer).into()).unwrap()
    };
    // What the script does not mean leaves as it came.
    let plain = pack(INVITE, 7, "192.0.2.1:5060");
    assert_eq!(*through(&plain).octets(), plain.encode(Version::Hep3).unwrap());
    let no_sip = Pack { payload_type: PayloadType::LOG, ..pack(CANCEL, 7, "10.0.0.5:5060") };
    assert_eq!(*through(&no_sip).octets(), no_sip.encode(Version::Hep3).unwrap());
    // What runs inside is hidden.
    let inside = through(&pack(INVITE, 7, "10.0.0.5:5060"));
    assert_eq!((inside.head().source.unwrap().to_string().as_str(), inside.head().source_port), ("192.0.2.5", 5_060));
    assert_eq!(
        (inside.head().destination.unwrap().to_string().as_str(), inside.head().destination_port),
        ("192.0.2.9", 5_070)
    );
    assert_eq!(inside.payload(), INVITE.as_bytes());
    let cancel = through(&pack(CANCEL, 7, "192.0.2.1:5060"));
    assert_eq!(cancel.payload(), CANCEL.replace("telephone", "hidden").as_bytes());
    // Nodes get names.
    let named = through(&pack(INVITE, 2_001, "192.0.2.1:5060"));
    let name = named.chunks().find(|chunk| chunk.id == ChunkId::AGENT_NAME).unwrap();
    assert_eq!((name.body, named.payload()), (&b"edge-1"[..], INVITE.as_bytes()));
    gateway.stop();
}

#[test]
fn the_filter_of_the_page_is_the_one_that_the_tests_run() {
    let source = std::fs::read_to_string(house().join("filters/from-lua/src/lib.rs")).unwrap();
    assert_eq!(blocks("rust"), [source]);
}
