//! The binary, run on the corpus and on captures that want to do harm.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Vendor, Version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::capture::build::{ETHERNET, OPTIONS, ethernet, frames, hep3, parts, udp};

/// Every capture of the corpus with HEP in it.
const CORPUS: [&str; 10] = [
    "kamailio-siptrace-v1-udp",
    "kamailio-siptrace-v2-udp",
    "kamailio-siptrace-v3-tcp",
    "kamailio-siptrace-v3-udp",
    "opensips-tracer-v1-udp",
    "opensips-tracer-v2-udp",
    "opensips-tracer-v3-tcp",
    "rtpengine-v3-udp",
    "sngrep-v2-udp",
    "sngrep-v3-udp",
];

pub(crate) fn corpus(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file)
}

pub(crate) fn hepgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hepgate"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn dump(file: &Path, options: &[&str]) -> Output {
    hepgate().arg("dump").arg("--read").arg(file).args(options).output().unwrap()
}

/// Dumps a capture of Ethernet frames around these packets, each sent to port 9060.
fn dump_packets(packets: &[&[u8]], options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("built.pcap");
    let frame = |packet: &&[u8]| ethernet(&[], &udp("198.51.100.1:40000", "198.51.100.2:9060", packet));
    fs::write(&file, ETHERNET.file(&frames(packets.iter().map(frame)))).unwrap();
    dump(&file, options)
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

fn json_lines(output: &Output) -> Vec<Value> {
    lines(output).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_packet_of_the_corpus_is_read_as_the_independent_decoder_reads_it() {
    for name in CORPUS {
        for options in [["--json"].as_slice(), &["--json", "--port", "19160"]] {
            let output = dump(&corpus(&format!("{name}.pcap")), options);
            let expected = fs::read(corpus(&format!("{name}.expected.json"))).unwrap();
            let expected: Value = serde_json::from_slice(&expected).unwrap();
            let expected = expected["frames"].as_array().unwrap();
            let got = json_lines(&output);
            assert_eq!((got.len(), output.status.code()), (expected.len(), Some(0)), "{name}");
            for (got, expected) in got.iter().zip(expected) {
                check(name, got, expected);
            }
            assert_eq!(errors(&output), format!("{} packets, 0 errors\n", expected.len()));
        }
    }
}

/// Compares a line with the independent decoder's fields.
fn check(name: &str, got: &Value, expected: &Value) {
    let text = |address: &str, port: &str| {
        format!("{}:{}", expected[address].as_str().unwrap(), expected[port].as_u64().unwrap())
    };
    let or = |field: &str, other: Value| expected.get(field).cloned().unwrap_or(other);
    assert_eq!(got["version"], expected["version"], "{name}");
    assert_eq!(got["source"], text("src_ip", "src_port"), "{name}");
    assert_eq!(got["destination"], text("dst_ip", "dst_port"), "{name}");
    assert_eq!(got["ip_protocol"], expected["proto"], "{name}");
    assert_eq!(got["payload_type"], or("proto_type", json!(1)), "{name}");
    assert_eq!(got["agent_id"], or("capture_id", json!(0)), "{name}");
    assert_eq!(got["agent_name"], Value::Null, "{name}");
    assert_eq!(got["correlation_id"], or("correlation_id", Value::Null), "{name}");
    assert_eq!(got["auth_key_present"], expected.get("auth_key").is_some(), "{name}");
    assert_eq!(got["payload_len"], expected["payload_len"], "{name}");
    assert_eq!(got["payload_sha256"], expected["payload_sha256"], "{name}");
    let seconds = |value: &Value| value.as_str().map(|text| text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let time =
        expected.get("ts_sec").map(|at| at.as_i64().unwrap() * 1_000_000 + expected["ts_usec"].as_i64().unwrap());
    assert_eq!(seconds(&got["captured_at"]), time, "{name}");
    let chunks = or("chunks", json!([]));
    let (got, expected) = (got["chunks"].as_array().unwrap(), chunks.as_array().unwrap());
    assert_eq!(got.len(), expected.len(), "{name}");
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!([&got["vendor"], &got["type"]], [&expected[0], &expected[1]], "{name}");
        let is_key = expected[1] == json!(ChunkId::AUTH_KEY.kind);
        assert_eq!(got["hex"].is_null(), is_key, "{name}");
        if !is_key {
            assert_eq!(json!(got["hex"].as_str().unwrap().len() / 2), expected[2], "{name}");
            assert!(expected.get(3).is_none_or(|hex| *hex == got["hex"]), "{name}");
        }
    }
}

#[test]
fn a_line_of_json_has_exactly_the_promised_fields_in_their_order() {
    let output = dump(&corpus("rtpengine-v3-udp.pcap"), &["--json", "--count", "1"]);
    let line = lines(&output).remove(0);
    let mut at = 0;
    for field in [
        "version",
        "source",
        "destination",
        "ip_protocol",
        "captured_at",
        "payload_type",
        "agent_id",
        "agent_name",
        "correlation_id",
        "auth_key_present",
        "payload_len",
        "payload_sha256",
        "chunks",
    ] {
        let found = line.find(&format!("\"{field}\":")).unwrap_or_else(|| panic!("{field}"));
        assert!(found >= at, "{field}");
        at = found;
    }
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 13);
    assert_eq!(value["chunks"][0].as_object().unwrap().len(), 3);
}

#[test]
fn a_packet_for_people_is_a_line_of_aligned_columns() {
    let output = dump(&corpus("kamailio-siptrace-v3-tcp.pcap"), &["--count", "3"]);
    assert_eq!(
        lines(&output),
        [
            "2026-11-23 07:19:14.165292   HEP3  udp 127.0.0.1:15060 -> 127.0.0.1:15070  agent 5510  SIP  502  \
             INVITE sip:bob@127.0.0.1:15070 SIP/2.0",
            "2026-11-23 07:19:14.165859   HEP3  udp 127.0.0.1:15070 -> 127.0.0.1:19160  agent 5510  LOG   33",
            "2026-11-23 07:19:14.165947   HEP3  udp 127.0.0.1:15070 -> 127.0.0.1:15060  agent 5510  SIP  321  SIP/2.0 200 OK",
        ]
    );
    assert_eq!(errors(&output), "3 packets, 0 errors\n");
    let output = dump(&corpus("opensips-tracer-v1-udp.pcap"), &["--count", "1"]);
    let line = "2026-11-23 07:21:14.722072~  HEP1  udp 127.0.0.1:15060 -> 127.0.0.1:15070  agent -  SIP  510  \
                INVITE sip:bob@127.0.0.1:15070 SIP/2.0";
    assert_eq!(lines(&output), [line]);
}

#[test]
fn what_a_packet_lacks_is_null_and_no_time_makes_it_panic() {
    let nothing = b"HEP3\0\x06".as_slice();
    let odd = Pack {
        flow: Some(("[2001:db8::1]:5060".parse().unwrap(), "[::1]:0".parse().unwrap())),
        captured_at: Some(CapturedAt { seconds: 1, microseconds: 2_500_000 }),
        chunks: vec![
            (ChunkId::AGENT_NAME, Bytes::from_static(b"edge \xff\x1b[2J")),
            (ChunkId::CORRELATION_ID, Bytes::new()),
        ],
        payload: None,
        ..parts(0, b"")
    };
    let odd = odd.encode(Version::Hep3).unwrap();
    let latest = Pack {
        flow: None,
        captured_at: Some(CapturedAt { seconds: u32::MAX, microseconds: u32::MAX }),
        ..parts(0, OPTIONS)
    };
    let latest = latest.encode(Version::Hep3).unwrap();
    let output = dump_packets(&[nothing, &odd, &latest], &["--json"]);
    let got = json_lines(&output);
    let no_octets = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(
        got[0],
        json!({
            "version": 3, "source": null, "destination": null, "ip_protocol": 0, "captured_at": null,
            "payload_type": 0, "agent_id": 0, "agent_name": null, "correlation_id": null,
            "auth_key_present": false, "payload_len": 0, "payload_sha256": no_octets, "chunks": [],
        })
    );
    assert_eq!(got[1]["source"], "[2001:db8::1]:5060");
    assert_eq!(got[1]["destination"], "[::1]:0");
    assert_eq!(got[1]["captured_at"], "1970-01-01T00:00:03.500000Z");
    assert_eq!(got[1]["agent_name"], "edge \u{fffd}\u{1b}[2J");
    assert_eq!(got[1]["correlation_id"], "");
    assert_eq!(got[2]["captured_at"], "2106-02-07T07:39:49.967295Z");
    assert_eq!(got[2]["payload_sha256"], hex(&Sha256::digest(OPTIONS)));

    let output = dump_packets(&[nothing, &odd, &latest], &[]);
    assert_eq!(
        lines(&output),
        [
            "2026-11-23 07:16:40.000000~  HEP3  - - -> -  agent 0  type 0  -  (keep-alive)",
            "1970-01-01 00:00:03.500000   HEP3  udp [2001:db8::1]:5060 -> [::1]:0  agent 2000 edge \u{fffd}\\u{1b}[2J  \
             SIP     -  (no payload)",
            "2106-02-07 07:39:49.967295   HEP3  udp -                  -> -        agent 2000 edge-1           \
             SIP     58  OPTIONS sip:bob@example.com SIP/2.0",
        ]
    );
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn the_authentication_key_is_never_printed() {
    let key = "s3cr3t-Key";
    let mut pack = parts(0, OPTIONS);
    pack.chunks.push((ChunkId::AUTH_KEY, Bytes::from_static(key.as_bytes())));
    let good = pack.encode(Version::Hep3).unwrap();
    // Twice, and in a packet that cannot be read.
    pack.chunks.push((ChunkId::AUTH_KEY, Bytes::from_static(key.as_bytes())));
    let twice = pack.encode(Version::Hep3).unwrap();
    let broken = [&good[..4], &good[4..6], &good[12..], b"123456"].concat();
    for options in [["--json"].as_slice(), &[]] {
        let output = dump_packets(&[&good, &twice, &broken], options);
        let all = [output.stdout.as_slice(), &output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        assert!(!all.contains(key) && !all.contains(&hex(key.as_bytes())), "{all}");
    }
    let got = json_lines(&dump_packets(&[&good], &["--json"]));
    assert_eq!(got[0]["auth_key_present"], true);
    let chunks = got[0]["chunks"].as_array().unwrap();
    assert!(chunks.contains(&json!({"vendor": 0, "type": 14, "hex": null})));
}

#[test]
fn another_vendors_chunk_with_the_number_of_the_key_is_an_ordinary_chunk() {
    let mut pack = parts(0, OPTIONS);
    pack.chunks.push((ChunkId { vendor: Vendor::GENESYS, kind: 14 }, Bytes::from_static(b"\x01\x02")));
    let got = json_lines(&dump_packets(&[&pack.encode(Version::Hep3).unwrap()], &["--json"]));
    assert_eq!(got[0]["auth_key_present"], false);
    assert!(got[0]["chunks"].as_array().unwrap().contains(&json!({"vendor": 8, "type": 14, "hex": "0102"})));
}

#[test]
fn nothing_in_a_packet_can_play_with_the_terminal() {
    let name = "a\u{e0041}\u{1b}]0;title\u{7}\u{9b}31m\u{202e}gnirts\r\n\t\u{0}\u{85}";
    let mut pack = parts(0, "INVITE sip:\u{1b}[31mbob\u{8}\u{200f} SIP/2.0\r\nX: y\r\n\r\n".as_bytes());
    pack.chunks = vec![(ChunkId::AGENT_NAME, Bytes::from(name))];
    let output = dump_packets(&[&pack.encode(Version::Hep3).unwrap()], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.strip_suffix('\n').unwrap();
    assert!(
        !line.chars().any(|character| character.is_control() || "\u{202e}\u{200f}".contains(character)),
        "{line:?}"
    );
    assert!(line.contains("INVITE sip:\\u{1b}[31mbob\\u{8}\\u{200f} SIP/2.0"), "{line}");

    let output = dump_packets(&[&pack.encode(Version::Hep3).unwrap()], &["--json"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.chars().any(|character| character.is_control() || character == '\u{202e}'), "{line:?}");
    assert_eq!(json_lines(&output)[0]["agent_name"], name);
}

#[test]
fn what_is_no_packet_is_an_error_line_with_frame_and_flow() {
    let packets = [hep3(0, OPTIONS), Bytes::from_static(b"HEP3\x01\0short"), hep3(1, OPTIONS)];
    let packets = packets.each_ref().map(Bytes::as_ref);
    let output = dump_packets(&packets, &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        json_lines(&output)[1],
        json!({
            "error": "the header says 256 octets, the datagram has 11", "frame": 2,
            "flow": {"transport": "udp", "source": "198.51.100.1:40000", "destination": "198.51.100.2:9060"},
        })
    );
    assert_eq!(errors(&output), "2 packets, 1 error\n");
    let output = dump_packets(&packets, &[]);
    assert_eq!(
        lines(&output)[1],
        "error in frame 2, udp 198.51.100.1:40000 -> 198.51.100.2:9060: the header says 256 octets, the datagram has 11"
    );
}

#[test]
fn what_is_not_hep_is_passed_over_and_counted() {
    let output = dump(&corpus("sip-call.pcap"), &[]);
    assert_eq!((lines(&output).len(), output.status.code()), (0, Some(0)));
    assert_eq!(errors(&output), "0 packets, 0 errors; 12 passed over (datagrams and streams that are not HEP)\n");
    let output = dump(&corpus("sip-call.pcap"), &["--port", "15061", "--port", "1"]);
    assert_eq!(errors(&output), "0 packets, 12 errors\n");
}

#[test]
fn a_file_that_cannot_be_read_is_one_sentence_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pcap");
    let output = dump(&missing, &[]);
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("hepgate: {} cannot be read: No such file or directory (os error 2)\n", missing.display());
    assert_eq!(errors(&output), wanted);

    let text = folder.path().join("text");
    fs::write(&text, "not a capture").unwrap();
    let output = dump(&text, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).ends_with("is neither pcap nor pcapng: it begins with 6e 6f 74 20\n"));

    let cut = folder.path().join("cut.pcap");
    let whole = fs::read(corpus("sngrep-v3-udp.pcap")).unwrap();
    fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    let output = dump(&cut, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors(&output), "11 packets, 1 error\n");
    assert!(lines(&output)[11].starts_with("error in frame 12: ends inside a frame: "));
}

#[test]
fn standard_input_can_be_read_while_it_is_written() {
    let mut child = hepgate()
        .args(["dump", "--read", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let file = fs::read(corpus("sngrep-v3-udp.pcap")).unwrap();
    let frame = 24 + 16 + usize::from(u16::from_le_bytes([file[32], file[33]]));
    // The line of the first packet comes before the second packet is there.
    input.write_all(&file[..frame]).unwrap();
    assert!(output.next().unwrap().unwrap().contains("INVITE"));
    input.write_all(&file[frame..]).unwrap();
    drop(input);
    assert_eq!(output.count(), 11);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.pcap");
    // Far more lines than a pipe holds.
    let frame = ethernet(&[], &udp("198.51.100.1:40000", "198.51.100.2:9060", &hep3(0, OPTIONS)));
    fs::write(&file, ETHERNET.file(&frames(std::iter::repeat_n(frame, 20_000)))).unwrap();
    for options in [[].as_slice(), &["--json"]] {
        let mut command = hepgate();
        command.arg("dump").arg("--read").arg(&file).args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("192.0.2.10:5060"));
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), errors(&output).as_str()), (Some(0), ""));
    }
}

#[test]
fn there_are_no_colours_in_a_pipe() {
    let output = dump(&corpus("sngrep-v3-udp.pcap"), &[]);
    assert!(!output.stdout.contains(&0x1b));
}

#[test]
fn a_compressed_payload_is_named_and_counted_as_it_came() {
    let mut pack = parts(0, b"");
    pack.payload = None;
    pack.payload_type = PayloadType(99);
    pack.chunks = vec![(ChunkId::COMPRESSED_PAYLOAD, Bytes::from_static(b"\x78\x9c\x03\0\0\0\0\x01"))];
    let packet = pack.encode(Version::Hep3).unwrap();
    let got = json_lines(&dump_packets(&[&packet], &["--json"]));
    assert_eq!(got[0]["payload_len"], 8);
    let text = lines(&dump_packets(&[&packet], &[])).remove(0);
    assert!(text.ends_with("agent 2000  type 99  8  (compressed)"), "{text}");
}
