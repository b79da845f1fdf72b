use std::io::Write;
use std::net::TcpStream;

use crate::corpus;
use crate::support::gateway::Gateway;
use crate::support::guest;
use crate::support::peers::{TcpSink, UdpSink, next_packet, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, collector, filter, packet};

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
