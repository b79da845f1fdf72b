use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::peers::{Nobody, Silence, TcpSink, UdpSink, next_packet, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, packet};

const SENT: &str = "hepgate_collector_sent_packets_total";
const DROPPED: &str = "hepgate_collector_dropped_packets_total";
const WAITING: &str = "hepgate_collector_waiting_packets";
const ROUTED: &str = "hepgate_tenant_routed_packets_total";
const BROKEN: &str = "hepgate_collector_broken_total";
const FAILED: &str = "hepgate_collector_connect_failures_total";
const COOL_DOWNS: &str = "hepgate_collector_cool_downs_total";

/// No collector is given up for what it does not take.
const PATIENT: &str = "hep_send_timeout = 600000\n";
const QUICK: &str = "backoff_min = \"1ms\"\nbackoff_max = \"5ms\"\n";

fn start(to: &str, more: &[&str]) -> Gateway {
    Gateway::start(&[BOTH_LISTENERS, &collector("out", to), &more.concat(), ROUTE].concat())
}

fn numbered(number: usize, octets: usize) -> Vec<u8> {
    packet(format!("{number:octets$}").as_bytes())
}

/// Sends so many packets of about so many octets, and waits until they are routed.
fn send(gateway: &Gateway, packets: std::ops::Range<usize>, octets: usize) {
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let all = u64::try_from(packets.end).unwrap();
    for number in packets {
        stream.write_all(&numbered(number, octets)).unwrap();
    }
    gateway.await_metric(ROUTED, &[], all);
}

#[test]
fn a_connect_is_tried_for_its_local_time_before_the_bound_counts() {
    let silence = Silence::new();
    let more = |local: &str| ["connect_timeout = \"1h\"\nhep_async_max_postponed_chunks = 3\n", local].concat();
    // As long as it is tried, any number may wait.
    let gateway = start(&silence.to(), &[&more("hep_async_local_connect_timeout = 600000\n")]);
    send(&gateway, 0..10, 10);
    gateway.await_metric(WAITING, &[], 10);
    assert_eq!(gateway.metrics().sum(DROPPED), 0);
    gateway.stop();
    // Not at all; as long as the module says; and until nothing but the clock tells that it is over.
    for local in ["hep_async_local_connect_timeout = 0\n", "", "hep_async_local_connect_timeout = 2000\n"] {
        let gateway = start(&silence.to(), &[&more(local)]);
        send(&gateway, 0..3, 10);
        gateway.await_metric(WAITING, &[], 3);
        send(&gateway, 3..10, 10);
        gateway.await_metric(DROPPED, &[("reason", "postponed-full")], 7);
        gateway.await_metric(WAITING, &[], 3);
        assert_eq!((gateway.metrics().sum(BROKEN), gateway.metrics().sum(FAILED)), (0, 0));
        gateway.stop();
    }
}

#[test]
fn a_write_is_tried_for_its_local_time_before_the_bound_counts() {
    let sink = TcpSink::new();
    let gateway =
        start(&sink.to(), &[PATIENT, "hep_async_max_postponed_chunks = 3\nhep_async_local_write_timeout = 600000\n"]);
    let mut out = sink.accept();
    // More than the systems between us hold.
    send(&gateway, 0..200, 60_000);
    let metrics = gateway.metrics();
    assert!(metrics.get(WAITING, &[]) > 3, "{}", metrics.get(WAITING, &[]));
    assert_eq!((metrics.sum(BROKEN), metrics.sum(DROPPED)), (0, 0));
    for number in 0..200 {
        assert_eq!(next_packet(&mut out), numbered(number, 60_000));
    }
    gateway.stop();
    // Nothing but the clock tells that it is over.
    let gateway =
        start(&sink.to(), &[PATIENT, "hep_async_max_postponed_chunks = 3\nhep_async_local_write_timeout = 2000\n"]);
    let _out = sink.accept();
    send(&gateway, 0..200, 60_000);
    gateway.await_metric(BROKEN, &[], 1);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(SENT) + metrics.sum(DROPPED), 200);
    assert!(metrics.get(DROPPED, &[("reason", "postponed-full")]) > 3);
    gateway.stop();
}

#[test]
fn with_hep_async_0_packets_wait_for_a_connection_as_long_as_hep_send_timeout_says() {
    let nobody = Nobody::new();
    let more = "hep_async = 0\nhep_async_max_postponed_chunks = 3\nhep_max_retries = 0\n";
    // All are dropped when their time is over, of which only the clock tells.
    let gateway = start(&nobody.to(), &[more, QUICK]);
    send(&gateway, 0..20, 10);
    gateway.await_metric(DROPPED, &[("reason", "not-connected")], 20);
    assert_eq!((gateway.metrics().sum(DROPPED), gateway.metrics().sum(WAITING)), (20, 0));
    gateway.stop();
    // None is before, however many there are.
    let gateway = start(&nobody.to(), &[more, QUICK, PATIENT]);
    send(&gateway, 0..20, 10);
    gateway.await_metric(WAITING, &[], 20);
    let mut out = nobody.come().accept();
    for number in 0..20 {
        assert_eq!(next_packet(&mut out), numbered(number, 10));
    }
    gateway.await_metric(SENT, &[], 20);
    assert_eq!(gateway.metrics().sum(DROPPED), 0);
    gateway.stop();
}

#[test]
fn with_hep_async_0_no_number_of_packets_breaks_a_connection() {
    let sink = TcpSink::new();
    let more = "hep_async = 0\nhep_async_max_postponed_chunks = 3\nhep_async_local_write_timeout = 0\n";
    let gateway = start(&sink.to(), &[PATIENT, more]);
    let mut out = sink.accept();
    send(&gateway, 0..200, 60_000);
    assert!(gateway.metrics().get(WAITING, &[]) > 3);
    for number in 0..200 {
        assert_eq!(next_packet(&mut out), numbered(number, 60_000));
    }
    assert_eq!((gateway.metrics().sum(BROKEN), gateway.metrics().sum(DROPPED)), (0, 0));
    gateway.stop();
    // It is hep_send_timeout that does, and what has waited as long for it does not wait for another one.
    let gateway = start(&sink.to(), &[more, "backoff_min = \"1h\"\nbackoff_max = \"1h\"\n"]);
    let _out = sink.accept();
    send(&gateway, 0..200, 60_000);
    gateway.await_metric(BROKEN, &[], 1);
    gateway.await_metric(WAITING, &[], 0);
    let metrics = gateway.metrics();
    assert_eq!(metrics.get(DROPPED, &[("reason", "connection-broken")]), 1);
    assert!(metrics.get(DROPPED, &[("reason", "not-connected")]) > 3);
    assert_eq!(metrics.sum(SENT) + metrics.sum(DROPPED), 200);
    gateway.stop();
}

/// Whatever the other bounds say, a collector costs no more memory than it may.
#[test]
fn what_waits_for_a_collector_is_bounded_in_octets_and_room_comes_back_when_it_leaves() {
    let sink = TcpSink::new();
    let more = "hep_async_local_write_timeout = 600000\nmailbox_octets_max = 1048576\n";
    let gateway = start(&sink.to(), &[PATIENT, more]);
    let mut out = sink.accept();
    send(&gateway, 0..200, 60_000);
    let metrics = gateway.metrics();
    // 17 of them, with what each counts for beside its octets, are a mebioctet.
    assert!((1..=17).contains(&metrics.get(WAITING, &[])), "{}", metrics.get(WAITING, &[]));
    let dropped = metrics.get(DROPPED, &[("reason", "mailbox-full")]);
    assert!(dropped > 0 && dropped == metrics.sum(DROPPED), "{dropped}");
    for _ in 0..200 - dropped {
        next_packet(&mut out);
    }
    gateway.await_metric(WAITING, &[], 0);
    for number in 200..300 {
        udp_agent(gateway.listener("udp")).send(&numbered(number, 60_000)).unwrap();
        assert_eq!(next_packet(&mut out), numbered(number, 60_000));
    }
    assert_eq!(gateway.metrics().sum(DROPPED), dropped);
    gateway.stop();
}

#[test]
fn a_collector_is_left_alone_after_hep_max_retries_and_tried_again_after_hep_retry_cooldown() {
    // As in the module: five attempts, then none for an hour. Another collector is not concerned.
    let (nobody, out) = (Nobody::new(), UdpSink::new());
    let config = [
        BOTH_LISTENERS,
        &collector("out", &nobody.to()),
        QUICK,
        &collector("endless", &Nobody::new().to()),
        QUICK,
        "hep_max_retries = 0\n",
        &collector("other", &out.to()),
        "[[tenant]]\nname = \"default\"\nroute = [\"out\", \"other\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    gateway.await_metric(COOL_DOWNS, &[("collector", "out")], 1);
    let lines = gateway.await_lines("hep_max_retries");
    assert_eq!((lines.len(), lines[0]["failed"].as_u64()), (1, Some(5)), "{lines:?}");
    assert_eq!(lines[0]["again_ms"], "3600000");
    let sink = nobody.come();
    udp_agent(gateway.listener("udp")).send(&packet(b"one")).unwrap();
    assert_eq!(out.next(), packet(b"one"));
    eventually("others go on trying", || gateway.metrics().get(FAILED, &[("collector", "endless")]) > 50);
    let metrics = gateway.metrics();
    assert_eq!(metrics.get(FAILED, &[("collector", "out")]), 5);
    assert_eq!(metrics.get(WAITING, &[("collector", "out")]), 1);
    assert_eq!(metrics.get(COOL_DOWNS, &[("collector", "endless")]), 0);
    gateway.stop();
    drop(sink);
    // After each cool-down as many attempts follow.
    let nobody = Nobody::new();
    let gateway = start(&nobody.to(), &[QUICK, "hep_max_retries = 2\nhep_retry_cooldown = 1\n"]);
    eventually("two cool-downs", || {
        let metrics = gateway.metrics();
        let (failed, cool_downs) = (metrics.sum(FAILED), metrics.sum(COOL_DOWNS));
        assert_eq!(failed / 2, cool_downs, "{failed}");
        cool_downs == 2
    });
    udp_agent(gateway.listener("udp")).send(&packet(b"patience")).unwrap();
    assert_eq!(next_packet(&mut nobody.come().accept()), packet(b"patience"));
    gateway.stop();
}

/// A collector that is slow, but not stuck, is not given up, and loses nothing.
#[test]
fn a_slow_collector_gets_everything_in_order() {
    let sink = TcpSink::new();
    let more = "hep_async_max_postponed_chunks = 1000\nhep_send_timeout = 5000\n";
    let gateway = start(&sink.to(), &[more]);
    let mut out = sink.accept();
    let reader = std::thread::spawn(move || {
        for number in 0..150 {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(next_packet(&mut out), numbered(number, 60_000));
        }
        out
    });
    send(&gateway, 0..150, 60_000);
    let _out = reader.join().unwrap();
    gateway.await_metric(SENT, &[], 150);
    assert_eq!(gateway.metrics().sum(BROKEN), 0);
    gateway.stop();
}
