use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use nix::sys::signal::Signal;

use crate::support::PATIENCE;
use crate::support::gateway::Gateway;
use crate::support::peers::{UdpSink, await_unread, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, packet};

const REJECTED: &str = "hepgate_listener_rejected_packets_total";
const CLOSED: &str = "hepgate_listener_closed_connections_total";

/// A TCP listener with these further keys, and a collector `out`.
fn start(keys: &str) -> (Gateway, UdpSink) {
    let out = UdpSink::new();
    let config = [
        "[[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:127.0.0.1:0\"\n",
        keys,
        "\n",
        &collector("out", &out.to()),
        ROUTE,
    ];
    (Gateway::start(&config.concat()), out)
}

fn start_both() -> (Gateway, UdpSink) {
    let out = UdpSink::new();
    (Gateway::start(&[BOTH_LISTENERS, &collector("out", &out.to()), ROUTE].concat()), out)
}

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Waits until the other side has closed, with or without a reset.
fn await_close(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Ok(_) => panic!("hepgate says something"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn garbage_is_counted_by_its_reason_costs_nothing_else_and_floods_no_log() {
    let (gateway, out) = start_both();
    let agent = udp_agent(gateway.listener("udp"));
    let mut gzip = vec![0x1f, 0x8b];
    gzip.extend_from_slice(&[8; 30]);
    let mut wrong_width = packet(b"x");
    wrong_width[7..10].copy_from_slice(&[0, 0, 0x0c]);
    for (reason, octets) in [
        ("not-hep", b"GET / HTTP/1.1\r\n".to_vec()),
        ("not-hep", Vec::new()),
        ("gzip", gzip),
        ("too-short", b"HEP3".to_vec()),
        ("family", vec![1, 16, 3, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("stated-length", b"HEP3\0\x05".to_vec()),
        ("truncated", b"HEP3\0\x20".to_vec()),
        ("chunk-header", b"HEP3\0\x07\0".to_vec()),
        ("chunk-length", b"HEP3\0\x0c\0\0\0\x01\0\x05".to_vec()),
        ("chunk-width", b"HEP3\0\x0c\0\0\0\x01\0\x06".to_vec()),
    ] {
        let before = gateway.metrics().get(REJECTED, &[("reason", reason)]);
        agent.send(&octets).unwrap();
        gateway.await_metric(REJECTED, &[("reason", reason), ("listener", "udp")], before + 1);
    }
    for _ in 0..2_000 {
        agent.send(b"garbage").unwrap();
    }
    agent.send(&packet(b"still here")).unwrap();
    assert_eq!(out.next(), packet(b"still here"));
    gateway.await_metric(REJECTED, &[], 2_010);
    let lines = gateway.await_lines("rejected: ").len();
    assert!((1..=10).contains(&lines), "{lines} lines\n{}", gateway.log_text());
    gateway.stop();
}

#[test]
fn a_header_alone_is_a_keep_alive_and_octets_behind_a_datagram_s_packet_are_cut() {
    let (gateway, out) = start_both();
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(b"HEP3\0\x06").unwrap();
    let mut trailing = packet(b"pass");
    trailing.extend_from_slice(b"xyz");
    agent.send(&trailing).unwrap();
    let mut stream = connect(&gateway);
    stream.write_all(b"HEP3\0\x06HEP3\0\x06").unwrap();
    stream.write_all(&packet(b"pass")).unwrap();
    assert_eq!(out.take(2), [packet(b"pass"), packet(b"pass")]);
    let dropped = "hepgate_listener_dropped_packets_total";
    gateway.await_metric(dropped, &[("reason", "keep-alive"), ("listener", "udp")], 1);
    gateway.await_metric(dropped, &[("reason", "keep-alive"), ("listener", "tcp")], 2);
    gateway.await_metric("hepgate_listener_trimmed_octets_total", &[("listener", "udp")], 3);
    gateway.stop();
}

#[test]
fn a_dual_stack_listener_takes_both_and_shows_ipv4_as_ipv4() {
    let out = UdpSink::new();
    let config = [
        "[[listener]]\nname = \"udp\"\nlisten = \"hep_udp:*:0\"\n[[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:[::]:0\"\n",
        &collector("out", &out.to()),
        "[[tenant]]\nname = \"default\"\nroute = [\"out\"]\n[[tenant.match]]\nsource = \"127.0.0.0/8\"\n\
         [[tenant.match]]\nsource = \"::1\"\n",
    ];
    let gateway = Gateway::start(&config.concat());
    for ip in ["127.0.0.1", "::1"] {
        let at = |name: &str| std::net::SocketAddr::new(ip.parse().unwrap(), gateway.listener(name).port());
        udp_agent(at("udp")).send(&packet(ip.as_bytes())).unwrap();
        assert_eq!(out.next(), packet(ip.as_bytes()));
        TcpStream::connect(at("tcp")).unwrap().write_all(&packet(ip.as_bytes())).unwrap();
        assert_eq!(out.next(), packet(ip.as_bytes()));
    }
    gateway.stop();
}

#[test]
fn a_packet_may_take_as_many_reads_as_hep_max_msg_chunks_and_not_one_more() {
    let (gateway, out) = start("hep_max_msg_chunks = 4");
    let whole = packet(b"split");
    // Each octet is known to have been read before the next is sent, so each is a read of its own.
    let send_split = |parts: &[&[u8]]| {
        let mut stream = connect(&gateway);
        for part in parts {
            stream.write_all(part).unwrap();
            await_unread(&stream);
        }
        stream
    };
    let mut fits = send_split(&[&whole[..1], &whole[1..2], &whole[2..3], &whole[3..]]);
    assert_eq!(out.next(), whole);
    fits.write_all(&whole).unwrap();
    assert_eq!(out.next(), whole, "the connection goes on");
    let mut too_many = send_split(&[&whole[..1], &whole[1..2], &whole[2..3]]);
    too_many.write_all(&whole[3..4]).unwrap();
    await_close(&mut too_many);
    gateway.await_metric(CLOSED, &[("reason", "too-many-reads")], 1);
    gateway.await_metric(REJECTED, &[("reason", "truncated")], 1);
    gateway.stop();
}

#[test]
fn what_is_not_hep3_closes_the_connection_with_its_reason_and_no_other() {
    let (gateway, out) = start("");
    let mut healthy = connect(&gateway);
    let mut hep1 = vec![1, 16, 2, 17];
    hep1.extend_from_slice(&[0; 20]);
    let mut not_hep = 0;
    for octets in [b"HELLO HFP\r\n".to_vec(), hep1, b"\x1f\x8b\x08\0".to_vec(), b"HEP4\0\x10".to_vec()] {
        let mut stream = connect(&gateway);
        stream.write_all(&octets).unwrap();
        await_close(&mut stream);
        not_hep += 1;
        gateway.await_metric(CLOSED, &[("reason", "not-hep")], not_hep);
    }
    for stated in 0..6 {
        let mut stream = connect(&gateway);
        stream.write_all(&[b'H', b'E', b'P', b'3', 0, stated]).unwrap();
        await_close(&mut stream);
        gateway.await_metric(CLOSED, &[("reason", "stated-length")], u64::from(stated) + 1);
    }
    // What came before the fault is kept.
    let mut stream = connect(&gateway);
    stream.write_all(&[packet(b"before"), b"GARBAGE".to_vec()].concat()).unwrap();
    assert_eq!(out.next(), packet(b"before"));
    await_close(&mut stream);
    healthy.write_all(&packet(b"healthy")).unwrap();
    assert_eq!(out.next(), packet(b"healthy"));
    gateway.await_metric("hepgate_listener_open_connections", &[], 1);
    gateway.stop();
}

#[test]
fn a_peer_that_closes_in_the_middle_of_a_packet_is_told_from_one_that_does_not() {
    let (gateway, out) = start("");
    let mut stream = connect(&gateway);
    stream.write_all(&packet(b"whole")).unwrap();
    assert_eq!(out.next(), packet(b"whole"));
    stream.shutdown(Shutdown::Write).unwrap();
    await_close(&mut stream);
    gateway.await_metric(CLOSED, &[("reason", "peer-closed")], 1);
    let mut stream = connect(&gateway);
    stream.write_all(&packet(b"half")[..9]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    await_close(&mut stream);
    gateway.await_metric(CLOSED, &[("reason", "peer-closed-mid-packet")], 1);
    gateway.await_metric(REJECTED, &[("reason", "truncated")], 1);
    gateway.stop();
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed_and_one_that_sends_now_and_then_is_not() {
    let (gateway, out) = start("idle = \"300ms\"");
    let mut silent = connect(&gateway);
    let mut talking = connect(&gateway);
    let mut closed = false;
    while !closed {
        talking.write_all(&packet(b"here")).unwrap();
        assert_eq!(out.next(), packet(b"here"));
        closed = gateway.metrics().get(CLOSED, &[("reason", "idle")]) == 1;
    }
    await_close(&mut silent);
    talking.write_all(&packet(b"still here")).unwrap();
    assert_eq!(out.next(), packet(b"still here"));
    gateway.stop();
}

#[test]
fn connections_beyond_a_limit_are_refused_and_counted_and_there_is_room_again_when_one_closes() {
    for (keys, reason) in
        [("connections_max = 2", "connections-full"), ("connections_per_peer_max = 2", "peer-connections-full")]
    {
        let (gateway, out) = start(keys);
        let mut first = connect(&gateway);
        let mut second = connect(&gateway);
        for stream in [&mut first, &mut second] {
            stream.write_all(&packet(b"in")).unwrap();
            assert_eq!(out.next(), packet(b"in"));
        }
        await_close(&mut connect(&gateway));
        gateway.await_metric(CLOSED, &[("reason", reason)], 1);
        drop(first);
        gateway.await_metric("hepgate_listener_open_connections", &[], 1);
        connect(&gateway).write_all(&packet(b"in again")).unwrap();
        assert_eq!(out.next(), packet(b"in again"));
        gateway.stop();
    }
}

#[test]
fn a_stopping_gateway_finishes_the_packet_at_hand_and_what_the_kernel_has() {
    let (gateway, out) = start_both();
    let whole = packet(b"at hand");
    let mut stream = connect(&gateway);
    stream.write_all(&whole[..10]).unwrap();
    await_unread(&stream);
    let agent = udp_agent(gateway.listener("udp"));
    for index in 0..100 {
        agent.send(&packet(format!("udp {index}").as_bytes())).unwrap();
    }
    gateway.signal(Signal::SIGTERM);
    crate::support::eventually("it stops", || !gateway.lines_saying("stopping").is_empty());
    stream.write_all(&whole[10..]).unwrap();
    await_close(&mut stream);
    let mut received = out.take(101);
    received.sort();
    let mut expected: Vec<Vec<u8>> = (0..100).map(|index| packet(format!("udp {index}").as_bytes())).collect();
    expected.push(whole);
    expected.sort();
    assert_eq!(received, expected);
    let ended = gateway.wait();
    assert!(ended.status.success());
    ended.check_ledger();
}

#[test]
fn ten_thousand_packets_of_every_version_arrive_over_udp_and_tcp_with_many_workers() {
    let (out, folder) = (UdpSink::new(), tempfile::tempdir().unwrap());
    let config = [BOTH_LISTENERS, &collector("out", &out.to()), ROUTE].concat();
    let gateway = Gateway::start_with(folder, "workers = 3\nsummary = \"0s\"", &config);
    let mut expected = Vec::new();
    let senders: Vec<_> = (0..10).map(|_| (udp_agent(gateway.listener("udp")), connect(&gateway))).collect();
    let mut received = Vec::new();
    for round in 0..100 {
        for (index, (agent, stream)) in senders.iter().enumerate() {
            for number in 0..5 {
                let mine = packet(format!("{round} {index} {number}").as_bytes());
                agent.send(&mine).unwrap();
                (&*stream).write_all(&mine).unwrap();
                expected.extend([mine.clone(), mine]);
            }
        }
        // The sink's socket buffer is not the gateway's: it is emptied before it can run over.
        received.extend(out.take(100));
    }
    assert_eq!(received.len(), 10_000);
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
    gateway.stop();
}
