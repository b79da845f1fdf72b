//! `HEPGATE_FILTERS=FOLDER` has them faced with the components of another folder: those that were just rebuilt.

mod correlate;
mod dedup;
mod fix_time;
mod pages;
mod redact;
mod route_by;
mod sample;
mod traffic;

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hepgate::wire::{Packet, Payload, PayloadType, decode};
use serde_json::Value;

use crate::corpus;
use crate::support::gateway::Gateway;
use crate::support::guest::{self, Guest};
use crate::support::peers::{UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter};

fn folder() -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters");
    std::env::var_os("HEPGATE_FILTERS").map_or(shipped, PathBuf::from)
}

/// A `[[filter]]` that is one of the shipped ones.
pub(crate) fn shipped(name: &str, more: &str) -> String {
    let component = folder().join(format!("{name}.wasm"));
    assert!(component.exists(), "{}", component.display());
    format!("[[filter]]\nname = \"{name}\"\ncomponent = \"{}\"\n{more}\n", component.display())
}

/// One shipped filter between UDP and a sink.
pub(crate) fn through(name: &str, more: &str, sink: &UdpSink) -> Gateway {
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &shipped(name, more),
        &format!("[[tenant]]\nname = \"default\"\nfilters = [\"{name}\"]\nroute = [\"out\"]\n"),
    ];
    Gateway::start(&config.concat())
}

fn corpus_packets() -> Vec<(String, Vec<u8>)> {
    let of = |exchange: corpus::Exchange| {
        let name = exchange.name;
        exchange.frames.into_iter().map(move |frame| (name.clone(), frame.octets))
    };
    corpus::exchanges().into_iter().flat_map(of).collect()
}

fn read(octets: &[u8]) -> Packet {
    decode(Bytes::copy_from_slice(octets)).unwrap()
}

fn is_plain_sip(packet: &Packet) -> bool {
    packet.head().payload_type == PayloadType::SIP && matches!(packet.head().payload, Payload::Plain(_))
}

/// The method of a request, or that in the CSeq of a response, read in another way than the filter does.
fn method(packet: &Packet) -> Option<String> {
    let text = String::from_utf8_lossy(packet.payload()).into_owned();
    let cseq = text.lines().find_map(|line| line.strip_prefix("CSeq:"))?;
    is_plain_sip(packet).then(|| cseq.split_whitespace().nth(1).unwrap().to_owned())
}

/// Every `sip:` user of a payload, and the words of display names.
fn people(payload: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(payload).into_owned();
    let mut people = Vec::new();
    for after in text.split("sip:").skip(1) {
        let uri = after.split(['>', ' ', ';', '\r']).next().unwrap();
        if let Some((user, _)) = uri.split_once('@') {
            people.push(user.to_owned());
        }
    }
    people
}

#[test]
fn discard_drops_the_methods_types_and_agents_that_it_is_told_and_nothing_else() {
    for (config, wanted) in [
        ("methods = \"INVITE, OPTIONS\"", "method"),
        ("payload_types = \"100,5\"", "type"),
        ("agents = \"5510\"", "agent"),
    ] {
        let drops = |packet: &Packet| match wanted {
            "method" => method(packet).is_some_and(|method| ["INVITE", "OPTIONS"].contains(&method.as_str())),
            "type" => [100, 5].contains(&packet.head().payload_type.0),
            _ => packet.head().agent_id == 5_510,
        };
        let sink = UdpSink::new();
        let gateway = through("discard", &format!("config = {{ {config} }}"), &sink);
        let agent = udp_agent(gateway.listener("udp"));
        let mut dropped = 0;
        for (name, octets) in corpus_packets() {
            agent.send(&octets).unwrap();
            if drops(&read(&octets)) {
                dropped += 1;
            } else {
                assert_eq!(sink.next(), octets, "{name} with {config}");
            }
        }
        assert!(dropped > 0, "{config}");
        gateway.await_metric("hepgate_tenant_filter_dropped_packets_total", &[], dropped);
        assert!(sink.is_empty());
        gateway.stop();
    }
}

#[test]
fn redact_leaves_no_user_of_any_sender_and_every_length_true() {
    let sink = UdpSink::new();
    let gateway = through("redact", "on_error = \"drop\"\nconfig = { pass_types = \"5,100\" }", &sink);
    let agent = udp_agent(gateway.listener("udp"));
    let mut redacted = 0;
    for (name, octets) in corpus_packets() {
        agent.send(&octets).unwrap();
        let (before, after) = (read(&octets), read(&sink.next()));
        if !is_plain_sip(&before) {
            assert_eq!(after.octets()[..], octets[..], "{name}");
            continue;
        }
        let users = people(before.payload());
        let left = String::from_utf8_lossy(after.payload()).into_owned();
        for user in &users {
            assert!(!people(after.payload()).contains(user), "{name}: {user} in {left}");
            assert!(!left.contains(&format!("{user}@")), "{name}: {user} in {left}");
        }
        assert!(!users.is_empty(), "{name}");
        assert_eq!(after.octets().len(), octets.len(), "{name}");
        assert_eq!(after.payload().len(), before.payload().len(), "{name}");
        // Only the payload was touched.
        let span = before.head().payload.span().unwrap();
        assert_eq!(after.octets()[..span.start()], octets[..span.start()], "{name}");
        assert_eq!(after.octets()[span.end()..], octets[span.end()..], "{name}");
        assert_eq!(method(&after), method(&before), "{name}");
        let call_id = |packet: &Packet| {
            let text = String::from_utf8_lossy(packet.payload()).into_owned();
            text.lines().find(|line| line.starts_with("Call-ID:")).map(str::to_owned)
        };
        assert_eq!(call_id(&after), call_id(&before), "{name}");
        redacted += 1;
    }
    assert!(redacted > 40, "{redacted}");
    gateway.stop();
}

#[test]
fn redact_gives_a_user_one_pseudonym_that_depends_on_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for key in ["0123456789abcdef", "fedcba9876543210"] {
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{key}\n")).unwrap();
        let sink = UdpSink::new();
        let more = format!("config = {{ key = {{ file = \"{}\" }} }}", path.display());
        let gateway = through("redact", &more, &sink);
        let agent = udp_agent(gateway.listener("udp"));
        let invite =
            corpus_packets().into_iter().find(|(_, octets)| method(&read(octets)).as_deref() == Some("INVITE"));
        let invite = invite.unwrap().1;
        agent.send(&invite).unwrap();
        agent.send(&invite).unwrap();
        let (first, second) = (sink.next(), sink.next());
        assert_eq!(first, second);
        assert_ne!(first, invite);
        seen.push(people(read(&first).payload()));
        assert!(!gateway.stop().log_text().contains(key), "the key is in the log");
    }
    assert_eq!(seen[0].len(), seen[1].len());
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn redact_drops_what_it_cannot_read() {
    let sink = UdpSink::new();
    let gateway = through("redact", "", &sink);
    let agent = udp_agent(gateway.listener("udp"));
    // A log packet; SIP that is compressed; SIP with another payload beside it; no SIP although it says so.
    let cases: Vec<Vec<u8>> = vec![
        hep3(&[(0, 0x0b, &[100]), (0, 0x0f, b"alice called")]),
        hep3(&[(0, 0x0b, &[1]), (0, 0x10, b"\x78\x9c...")]),
        hep3(&[(0, 0x0b, &[1]), (0, 0x0f, b"BYE sip:alice@h SIP/2.0\r\n"), (8, 0x0f, b"alice")]),
        hep3(&[(0, 0x0b, &[1]), (0, 0x0f, b"alice")]),
    ];
    for packet in &cases {
        agent.send(packet).unwrap();
    }
    gateway.await_metric("hepgate_tenant_filter_dropped_packets_total", &[], 4);
    agent.send(&hep3(&[(0, 0x0b, &[1]), (0, 0x0f, b"BYE sip:alice@h.org SIP/2.0\r\n\r\n")])).unwrap();
    assert_eq!(read(&sink.next()).payload(), b"BYE sip:xxxxx@h.org SIP/2.0\r\n\r\n");
    assert!(sink.is_empty());
    gateway.stop();
}

/// Redacted by the first filter, and judged by the second: responses are skipped, which no verdict of the first undoes.
#[test]
fn redact_and_a_filter_that_skips_show_the_callback_rule_over_udp_and_tcp() {
    let responses = BY_FIRST_OCTET.on_batch.replace("(i32.const 115)", "(i32.const 83)");
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "no-responses", Guest { on_batch: &responses, ..BY_FIRST_OCTET });
    let sink = UdpSink::new();
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &shipped("redact", "on_error = \"drop\""),
        &filter("no-responses", ""),
        "[[tenant]]\nname = \"default\"\nfilters = [\"redact\", \"no-responses\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let (mut skipped, mut passed) = (0, 0);
    let calls = corpus_packets().into_iter().filter(|(_, octets)| octets.starts_with(b"HEP3"));
    for (name, octets) in calls.filter(|(_, octets)| is_plain_sip(&read(octets))) {
        let is_response = read(&octets).payload().starts_with(b"SIP/2.0");
        for over_tcp in [false, true] {
            if over_tcp {
                stream.write_all(&octets).unwrap();
            } else {
                agent.send(&octets).unwrap();
            }
            if is_response {
                skipped += 1;
                continue;
            }
            let arrived = read(&sink.next());
            assert!(arrived.payload() != read(&octets).payload(), "{name}: not redacted");
            assert!(!arrived.payload().starts_with(b"SIP/2.0"), "{name}: a response");
            passed += 1;
        }
        gateway.await_metric("hepgate_tenant_skipped_packets_total", &[], skipped);
    }
    gateway.await_metric("hepgate_tenant_routed_packets_total", &[], passed);
    assert!(skipped > 10 && passed > 10, "{skipped} {passed}");
    assert!(sink.is_empty());
    gateway.stop();
}

#[test]
fn report_sends_what_it_counted_after_so_many_packets() {
    let (sink, reports) = (UdpSink::new(), UdpSink::new());
    let packets = corpus_packets();
    let every = packets.len();
    // What an instance has counted goes with it, so a busy machine must not move the chain to the slow lane meanwhile.
    let more = format!(
        "collectors = [\"reports\"]\nconfig = {{ collector = \"reports\", every = {every}, calls = true }}\n\
         [filter.limits]\nfast_deadline = \"10s\""
    );
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &collector("reports", &reports.to()),
        &shipped("report", &more),
        "[[tenant]]\nname = \"default\"\nfilters = [\"report\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let mut methods = 0;
    for (name, octets) in &packets {
        agent.send(octets).unwrap();
        assert_eq!(sink.next(), *octets, "{name}");
        let packet = read(octets);
        let begins_as_request = is_plain_sip(&packet) && !packet.payload().starts_with(b"SIP/2.0");
        methods += u64::from(begins_as_request);
    }
    let report = read(&reports.next());
    assert_eq!(report.head().payload_type, PayloadType::LOG);
    assert_eq!(report.head().agent_id, 1, "hep_capture_id");
    let report: Value = serde_json::from_slice(report.payload()).unwrap();
    assert_eq!(report["packets"], every);
    let sum = |what: &str| report[what].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("requests"), methods, "{report}");
    let all = sum("requests") + sum("responses") + report["not_sip"].as_u64().unwrap();
    assert_eq!(all, u64::try_from(every).unwrap(), "{report}");
    assert!(report["calls"].as_u64().unwrap() > 5, "{report}");
    assert!(reports.is_empty());
    gateway.stop();
}

#[test]
fn report_sends_what_it_counted_on_a_tick() {
    let (sink, reports) = (UdpSink::new(), UdpSink::new());
    let config = [
        BOTH_LISTENERS,
        &collector("out", &sink.to()),
        &collector("reports", &reports.to()),
        &shipped(
            "report",
            "tick = \"50ms\"\ncollectors = [\"reports\"]\nconfig = { collector = \"reports\" }\n\
             [filter.limits]\nfast_deadline = \"10s\"",
        ),
        "[[tenant]]\nname = \"default\"\nfilters = [\"report\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    udp_agent(gateway.listener("udp")).send(&hep3(&[(0, 0x0b, &[1]), (0, 0x0f, b"BYE sip:h SIP/2.0\r\n")])).unwrap();
    let report: Value = serde_json::from_slice(read(&reports.next()).payload()).unwrap();
    assert_eq!((&report["packets"], &report["requests"]["BYE"]), (&1.into(), &1.into()));
    gateway.stop();
}

#[test]
fn a_wrong_configuration_of_a_shipped_filter_is_one_sentence_and_nothing_starts() {
    for (name, config, expected) in [
        ("discard", "methods = \"IN VITE\"", "config key \"methods\": \"IN VITE\" is not a SIP method"),
        (
            "discard",
            "method = \"INVITE\"",
            "config key \"method\" is unknown; known here: methods, payload_types, agents",
        ),
        ("redact", "key = \"short\"", "config key \"key\": 5 octets are too few, 16 are the least"),
        ("redact", "call_ids = \"pseudonym\"", "config key \"call_ids\": \"pseudonym\" needs a \"key\""),
        ("dedup", "window = \"2m\"", "config key \"window\": 120s is not 1ms to 60s"),
        ("dedup", "payload_types = \"sip\"", "config key \"payload_types\": \"sip\" is not a payload type (0 to 255)"),
        (
            "dedup",
            "entries = 5",
            "config key \"entries\" is unknown; known here: window, across, action, payload_types, memory, entries_max",
        ),
        (
            "sample",
            "seed = \"x\"",
            "config key \"rate\" is missing: how many of the calls are kept, as \"10%\" or \"0.1\"",
        ),
        ("sample", "rate = 10", "config key \"rate\": \"10\" is not a share, as \"10%\" or \"0.1\" (0 to 1)"),
        ("route-by", "on_full = \"drop\"", "config key \"rule_1\" is missing: what goes where"),
        (
            "route-by",
            "rule_1 = \"type=1 -> out\"",
            "a rule names \"out\", which is not among this filter's collectors = [...]",
        ),
        (
            "route-by",
            "rule_7 = \"agents=1 -> pass\"",
            "config key \"rule_7\": \"agents\" is no condition; there are agent,",
        ),
        ("correlate", "mode = \"send\"", "config key \"collector\" is missing: where pairs are sent"),
        (
            "correlate",
            "mode = \"both\", collector = \"out\"",
            "config key \"collector\": \"out\" is not among this filter's collectors = [...]",
        ),
        ("correlate", "remember = \"500ms\"", "config key \"remember\": 500ms is not 1s to 7d"),
        ("fix-time", "zero = \"now\"", "config key \"zero\": \"now\" is not received, leave or drop"),
        (
            "fix-time",
            "max_past = 5",
            "config key \"max_past\": \"5\" is not a time, as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"",
        ),
        ("report", "every = 5", "config key \"collector\" is missing: where the reports go"),
        (
            "report",
            "collector = \"out\"",
            "config key \"collector\": \"out\" is not among this filter's collectors = [...]",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hepgate.toml");
        let text = [
            "[admin]\nlisten = \"\"\n",
            BOTH_LISTENERS,
            &collector("out", "hep_udp:127.0.0.1:9"),
            &shipped(name, &format!("config = {{ {config} }}")),
            &format!("[[tenant]]\nname = \"t\"\nfilters = [\"{name}\"]\nroute = [\"out\"]\n"),
        ];
        std::fs::write(&path, text.concat()).unwrap();
        let out = std::process::Command::new(crate::support::gateway::HEPGATE)
            .args(["run", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let errors = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{errors}");
        assert!(errors.contains(&format!("filter \"{name}\" does not start: init: {expected}")), "{errors}");
    }
}

#[test]
fn the_configuration_that_ships_runs_with_the_filters_that_ship() {
    let out = std::process::Command::new(crate::support::gateway::HEPGATE)
        .args(["check", "config/hepgate.toml"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A HEP3 packet of these chunks: vendor, type, body.
fn hep3(chunks: &[(u16, u16, &[u8])]) -> Vec<u8> {
    let mut octets = b"HEP3\0\0".to_vec();
    for (vendor, kind, body) in chunks {
        octets.extend_from_slice(&vendor.to_be_bytes());
        octets.extend_from_slice(&kind.to_be_bytes());
        octets.extend_from_slice(&u16::try_from(body.len() + 6).unwrap().to_be_bytes());
        octets.extend_from_slice(body);
    }
    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
    octets[4..6].copy_from_slice(&length);
    octets
}
