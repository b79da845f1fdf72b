use std::io::Write;
use std::net::TcpStream;

use crate::corpus;
use crate::support::gateway::Gateway;
use crate::support::guest::{self, Guest};
use crate::support::peers::{TcpSink, UdpSink, next_packet, udp_agent};

const BOTH_LISTENERS: &str = r#"
[[listener]]
name = "udp"
listen = "hep_udp:127.0.0.1:0"
[[listener]]
name = "tcp"
listen = "hep_tcp:127.0.0.1:0"
"#;

fn collector(name: &str, to: &str) -> String {
    format!("[[collector]]\nname = \"{name}\"\nto = \"{to}\"\n")
}

fn filter(name: &str, more: &str) -> String {
    format!("[[filter]]\nname = \"{name}\"\ncomponent = \"{name}.wasm\"\n{more}\n")
}

/// A HEP3 packet with nothing but a payload.
fn packet(payload: &[u8]) -> Vec<u8> {
    let mut octets = b"HEP3\0\0".to_vec();
    octets.extend_from_slice(&[0, 0, 0, 0x0f]);
    octets.extend_from_slice(&u16::try_from(payload.len() + 6).unwrap().to_be_bytes());
    octets.extend_from_slice(payload);
    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
    octets[4..6].copy_from_slice(&length);
    octets
}

/// Skips packets whose payload begins with `s`, drops those with `d`, traps at `t`, never ends at `l`, and passes the
/// others.
const BY_FIRST_OCTET: Guest<'_> = Guest {
    imports: r#"
        (import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))
        (import "hep:filter/packets@0.1.0" "[method]batch.payload" (func $payload (param i32 i32 i32 i32 i32)))"#,
    definitions: "",
    init: "",
    on_batch: r#"
        (local.set $j (call $len (local.get $batch)))
        (i32.store (global.get $verdicts) (i32.const 1024))
        (i32.store offset=4 (global.get $verdicts) (local.get $j))
        (block $done (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $j)))
          (call $payload (local.get $batch) (local.get $i) (i32.const 0) (i32.const 1) (global.get $out))
          (local.set $k (i32.load8_u (i32.load (global.get $out))))
          (if (i32.eq (local.get $k) (i32.const 116)) (then unreachable))                       ;; t
          (if (i32.eq (local.get $k) (i32.const 108)) (then (loop $forever (br $forever))))     ;; l
          (i32.store8 (i32.add (i32.const 1024) (local.get $i))
            (i32.add (i32.eq (local.get $k) (i32.const 115))                                    ;; s
              (i32.mul (i32.const 2) (i32.eq (local.get $k) (i32.const 100)))))                 ;; d
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))"#,
    on_tick: "",
};

#[test]
fn every_packet_of_the_corpus_leaves_octet_for_octet() {
    let (udp, tcp) = (UdpSink::new(), TcpSink::new());
    let config = [
        BOTH_LISTENERS,
        &collector("udp-out", &udp.to()),
        &collector("tcp-out", &tcp.to()),
        "[[tenant]]\nname = \"default\"\nroute = [\"udp-out\", \"tcp-out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let mut out = tcp.accept();
    let agent = udp_agent(gateway.listener("udp"));
    let mut count = 0;
    for exchange in corpus::exchanges() {
        let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
        for frame in &exchange.frames {
            if frame.is_tcp {
                stream.write_all(&frame.octets).unwrap();
            } else {
                agent.send(&frame.octets).unwrap();
            }
            assert_eq!(udp.next(), frame.octets, "{} over UDP", exchange.name);
            let over_tcp = next_packet(&mut out);
            if frame.octets.starts_with(b"HEP3") {
                assert_eq!(over_tcp, frame.octets, "{} over TCP", exchange.name);
            }
            count += 1;
        }
    }
    assert!(count > 70);
    gateway.await_metric("hepgate_collector_sent_packets_total", &[("collector", "tcp-out")], count);
    gateway.stop();
}

#[test]
fn skip_and_drop_keep_a_packet_from_the_route_and_only_that_packet() {
    let udp = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "first", BY_FIRST_OCTET);
    let config = [
        BOTH_LISTENERS,
        &collector("out", &udp.to()),
        &filter("first", ""),
        "[[tenant]]\nname = \"default\"\nfilters = [\"first\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    for payload in ["pass 1", "skip", "drop", "pass 2"] {
        agent.send(&packet(payload.as_bytes())).unwrap();
    }
    assert_eq!(udp.take(2), [packet(b"pass 1"), packet(b"pass 2")]);
    for (metric, value) in [("skipped", 1), ("filter_dropped", 1), ("routed", 2)] {
        gateway.await_metric(&format!("hepgate_tenant_{metric}_packets_total"), &[], value);
    }
    assert!(udp.is_empty());
    gateway.stop();
}

#[test]
fn a_filter_that_traps_costs_only_its_own_packet() {
    let udp = UdpSink::new();
    let folder = tempfile::tempdir().unwrap();
    guest::write(folder.path(), "first", BY_FIRST_OCTET);
    let config = [
        BOTH_LISTENERS,
        &collector("out", &udp.to()),
        &filter("first", "on_error = \"drop\""),
        "[[tenant]]\nname = \"default\"\nfilters = [\"first\"]\nroute = [\"out\"]\n",
    ];
    let gateway = Gateway::start_in(folder, &config.concat());
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let mut octets = Vec::new();
    let mut expected = Vec::new();
    for index in 0..60 {
        let payload = if index == 41 { "trap".to_owned() } else { format!("pass {index}") };
        octets.extend_from_slice(&packet(payload.as_bytes()));
        if index != 41 {
            expected.push(packet(payload.as_bytes()));
        }
    }
    // In one write, so that the packet that traps is in a batch with others.
    stream.write_all(&octets).unwrap();
    assert_eq!(udp.take(59), expected);
    gateway.await_metric("hepgate_tenant_dropped_packets_total", &[("reason", "filter-failed")], 1);
    assert!(gateway.metrics().get("hepgate_filter_faults_total", &[("kind", "trap")]) >= 1);
    assert!(udp.is_empty());
    gateway.stop();
}
