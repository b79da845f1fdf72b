use std::io::Write;
use std::net::{TcpStream, UdpSocket};

use bytes::Bytes;
use hepgate::wire::{CapturedAt, ChunkId, Pack, PayloadType, Version, decode};

use crate::corpus;
use crate::support::captures::payloads;
use crate::support::gateway::{Gateway, files_in};
use crate::support::peers::{Nobody, TcpSink, UdpSink, next_packet, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, packet, sip};
use crate::support::{PATIENCE, eventually};

const SENT: &str = "hepgate_collector_sent_packets_total";
const DROPPED: &str = "hepgate_collector_dropped_packets_total";
const WAITING: &str = "hepgate_collector_waiting_packets";

fn start(collector: &str) -> Gateway {
    Gateway::start(&[BOTH_LISTENERS, collector, ROUTE].concat())
}

fn numbered(number: usize) -> Vec<u8> {
    packet(format!("number {number}").as_bytes())
}

#[test]
fn the_collectors_of_hep_id_are_sent_to_as_opensips_would() {
    let (udp, tcp) = (UdpSink::new(), TcpSink::new());
    let (udp_to, tcp_to) = (udp.to().replace("hep_udp:", ""), tcp.to().replace("hep_tcp:", ""));
    let hep_ids = format!("[proto_hep]\nhep_id = [\"[old] {udp_to}; version=2\", \"[homer] {tcp_to}\"]\n");
    let route = "[[tenant]]\nname = \"default\"\nroute = [\"homer\", \"old\"]\n";
    let gateway = Gateway::start(&[&hep_ids, BOTH_LISTENERS, route].concat());
    let pack = sip("OPTIONS sip:a SIP/2.0\r\n\r\n");
    udp_agent(gateway.listener("udp")).send(&pack.encode(Version::Hep3).unwrap()).unwrap();
    assert_eq!(udp.next(), pack.encode(Version::Hep2).unwrap());
    assert_eq!(next_packet(&mut tcp.accept()), pack.encode(Version::Hep3).unwrap());
    gateway.stop();
}

#[test]
fn udp_collectors_take_each_version_as_configured() {
    let flow = Some(("192.0.2.1:5060".parse().unwrap(), "192.0.2.2:5070".parse().unwrap()));
    let pack = Pack {
        ip_protocol: 17,
        flow,
        captured_at: Some(CapturedAt { seconds: 1_800_000_000, microseconds: 5 }),
        payload_type: PayloadType::SIP,
        agent_id: 77,
        chunks: vec![(ChunkId::CORRELATION_ID, Bytes::from_static(b"call"))],
        payload: Some(Bytes::from_static(b"OPTIONS sip:a SIP/2.0\r\n\r\n")),
    };
    for out in [Version::Hep1, Version::Hep2, Version::Hep3] {
        let sink = UdpSink::new();
        let to = format!("{}version = \"{}\"\n", collector("out", &sink.to()), out.number());
        let gateway = start(&to);
        let agent = udp_agent(gateway.listener("udp"));
        for came in [Version::Hep1, Version::Hep2, Version::Hep3] {
            let octets = pack.encode(came).unwrap();
            agent.send(&octets).unwrap();
            let sent = sink.next();
            if came == out {
                assert_eq!(sent, octets, "one that has the version keeps its octets");
            }
            let head = *decode(sent.into()).unwrap().head();
            assert_eq!((head.version, head.ip_protocol, head.payload_type), (out, 17, PayloadType::SIP));
            assert_eq!((head.source, head.source_port), (flow.map(|(from, _)| from.ip()), 5_060));
            if out != Version::Hep1 {
                // HEP1 has no agent id: it gets hep_capture_id. And no time: it gets that of its receipt.
                assert_eq!(head.agent_id, if came == Version::Hep1 { 1 } else { 77 });
                let time = head.captured_at.unwrap().seconds;
                assert!(if came == Version::Hep1 { time != 1_800_000_000 } else { time == 1_800_000_000 });
            }
        }
        gateway.stop();
    }
}

#[test]
fn what_a_version_cannot_hold_and_what_fits_no_datagram_is_dropped_and_counted() {
    let sink = UdpSink::new();
    let gateway = start(&format!("{}version = \"2\"\n", collector("out", &sink.to())));
    // No addresses.
    udp_agent(gateway.listener("udp")).send(&packet(b"pass")).unwrap();
    gateway.await_metric(DROPPED, &[("reason", "cannot-encode")], 1);
    gateway.stop();
    let gateway = start(&collector("out", &sink.to()));
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let longest = packet(&vec![b'x'; 65_507 - 12]);
    stream.write_all(&longest).unwrap();
    assert_eq!(sink.next(), longest);
    stream.write_all(&packet(&vec![b'x'; 65_508 - 12])).unwrap();
    gateway.await_metric(DROPPED, &[("reason", "too-long")], 1);
    gateway.stop();
}

/// What is not sent takes no room either, once it is dropped.
#[test]
fn packets_that_cannot_be_sent_leave_the_room_that_they_took() {
    let sink = UdpSink::new();
    let more = "mailbox_octets_max = 65536\n";
    for (version, octets, reason) in [("2", 60_000, "cannot-encode"), ("3", 65_508 - 12, "too-long")] {
        let to = format!("{}version = \"{version}\"\n{more}", collector("out", &sink.to()));
        let gateway = start(&to);
        let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
        for number in 1..=20 {
            stream.write_all(&packet(&vec![b'x'; octets])).unwrap();
            gateway.await_metric(DROPPED, &[("reason", reason)], number);
        }
        assert_eq!(gateway.metrics().sum(DROPPED), 20);
        gateway.stop();
    }
}

#[test]
fn a_udp_collector_that_nobody_runs_harms_nobody() {
    let (out, nobody) = (UdpSink::new(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &collector("nobody", &format!("hep_udp:{address}")),
        "[[tenant]]\nname = \"default\"\nroute = [\"nobody\", \"out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    for number in 0..50 {
        agent.send(&numbered(number)).unwrap();
        assert_eq!(out.next(), numbered(number));
    }
    assert!(gateway.metrics().get("hepgate_collector_broken_total", &[("collector", "nobody")]) > 0);
    // Somebody comes: what is sent from now on arrives.
    let somebody = UdpSocket::bind(address).unwrap();
    somebody.set_read_timeout(Some(PATIENCE)).unwrap();
    agent.send(&packet(b"now")).unwrap();
    let mut octets = [0; 100];
    let length = somebody.recv(&mut octets).unwrap();
    assert_eq!(octets[..length], packet(b"now"));
    gateway.stop();
}

#[test]
fn a_tcp_collector_that_comes_late_gets_what_waited_in_order_and_what_did_not_fit_is_counted() {
    let nobody = Nobody::new();
    let gateway = start(&format!(
        "{}hep_async_max_postponed_chunks = 5\nhep_max_retries = 0\nbackoff_min = \"10ms\"\nbackoff_max = \"20ms\"\n",
        collector("out", &nobody.to())
    ));
    let agent = udp_agent(gateway.listener("udp"));
    for number in 0..5 {
        agent.send(&numbered(number)).unwrap();
    }
    gateway.await_metric(WAITING, &[], 5);
    assert_eq!(gateway.metrics().get(DROPPED, &[]), 0, "as many wait as may");
    agent.send(&numbered(5)).unwrap();
    gateway.await_metric(DROPPED, &[("reason", "postponed-full")], 1);
    let mut stream = nobody.come().accept();
    for number in 0..5 {
        assert_eq!(next_packet(&mut stream), numbered(number));
    }
    gateway.await_metric(SENT, &[], 5);
    assert!(gateway.metrics().sum("hepgate_collector_connect_failures_total") >= 1);
    gateway.stop();
}

#[test]
fn a_tcp_collector_that_breaks_is_connected_again_and_gets_whole_packets() {
    let sink = TcpSink::new();
    let gateway = start(&format!("{}backoff_min = \"5ms\"\n", collector("out", &sink.to())));
    let agent = udp_agent(gateway.listener("udp"));
    for round in 0..3 {
        let mut stream = sink.accept();
        for number in 0..4 {
            agent.send(&numbered(round * 10 + number)).unwrap();
            assert_eq!(next_packet(&mut stream), numbered(round * 10 + number));
        }
        drop(stream);
        gateway.await_metric("hepgate_collector_broken_total", &[], u64::try_from(round).unwrap() + 1);
    }
    gateway.await_metric(SENT, &[], 12);
    gateway.stop();
}

/// Sends packets of 60 000 octets until a collector that does not read has no room for more.
fn send_until(gateway: &Gateway, what: &str, done: impl Fn() -> bool) -> u64 {
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let mut sent = 0;
    eventually(what, || {
        stream.write_all(&packet(&vec![u8::try_from(sent % 251).unwrap(); 60_000])).unwrap();
        sent += 1;
        gateway.await_metric("hepgate_tenant_routed_packets_total", &[], sent);
        done()
    });
    sent
}

#[test]
fn a_collector_that_never_reads_is_broken_when_one_more_waits_than_may() {
    let sink = TcpSink::new();
    let gateway = start(&format!(
        "{}hep_async_max_postponed_chunks = 3\nhep_send_timeout = 600000\nbackoff_min = \"1h\"\nbackoff_max = \"1h\"\n",
        collector("out", &sink.to())
    ));
    let stuck = sink.accept();
    let full = || gateway.metrics().sum("hepgate_collector_broken_total") == 1;
    let sent = send_until(&gateway, "the connection is broken", full);
    let metrics = gateway.metrics();
    // One half written, the others whole: all that it held is dropped, and counted.
    assert_eq!(metrics.get(DROPPED, &[("reason", "postponed-full")]), 3);
    assert_eq!(metrics.get(DROPPED, &[("reason", "connection-broken")]), 1);
    assert_eq!(metrics.sum(SENT), sent - 4);
    drop(stuck);
    gateway.stop();
}

#[test]
fn a_collector_that_never_reads_is_broken_after_hep_send_timeout_and_no_packet_is_continued_or_sent_twice() {
    let sink = TcpSink::new();
    let gateway = start(&format!(
        "{}hep_async_max_postponed_chunks = 1000\nhep_send_timeout = 50\nbackoff_min = \"1ms\"\n",
        collector("out", &sink.to())
    ));
    let mut stuck = sink.accept();
    let broken = || gateway.metrics().sum("hepgate_collector_broken_total") >= 1;
    let sent = send_until(&gateway, "the connection is broken", broken);
    // What arrived on the first connection, up to the packet that was cut, and on the next one what waited.
    let mut first = Vec::new();
    let mut octets = vec![0; 60_012];
    while std::io::Read::read_exact(&mut stuck, &mut octets).is_ok() {
        first.push(octets[12]);
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.get(DROPPED, &[("reason", "connection-broken")]), 1);
    let mut second = sink.accept();
    let rest = usize::try_from(sent).unwrap() - first.len() - 1;
    let second: Vec<u8> = (0..rest).map(|_| next_packet(&mut second)[12]).collect();
    let mut all = first.clone();
    all.push(u8::try_from(first.len() % 251).unwrap());
    all.extend(second);
    let expected: Vec<u8> = (0..sent).map(|number| u8::try_from(number % 251).unwrap()).collect();
    assert_eq!(all, expected, "but for the one that was cut, each is there once and in order");
    gateway.stop();
}

#[test]
fn a_collector_that_is_down_or_stuck_harms_no_other() {
    let (out, stuck) = (UdpSink::new(), TcpSink::new());
    let config = [
        BOTH_LISTENERS,
        &collector("out", &out.to()),
        &collector("stuck", &stuck.to()),
        &collector("down", "hep_tcp:127.0.0.1:1"),
        "[[tenant]]\nname = \"default\"\nroute = [\"stuck\", \"down\", \"out\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let _never_read = stuck.accept();
    let agent = udp_agent(gateway.listener("udp"));
    for number in 0..500 {
        let mine = packet(format!("{number}{}", "x".repeat(50_000)).as_bytes());
        agent.send(&mine).unwrap();
        assert_eq!(out.next(), mine);
    }
    gateway.stop();
}

#[test]
fn the_default_file_holds_the_captured_packets_and_the_other_format_the_hep_packets() {
    let config = [
        BOTH_LISTENERS,
        &collector("captured", "file:out"),
        &format!("{}format = \"hep\"\n", collector("hep", "file:out")),
        "[[tenant]]\nname = \"default\"\nroute = [\"captured\", \"hep\"]\n",
    ];
    let gateway = Gateway::start(&config.concat());
    let agent = udp_agent(gateway.listener("udp"));
    let mut sent = Vec::new();
    for exchange in corpus::exchanges() {
        let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
        for frame in exchange.frames {
            if frame.is_tcp {
                stream.write_all(&frame.octets).unwrap();
            } else {
                agent.send(&frame.octets).unwrap();
            }
            sent.push(frame.octets);
            gateway.await_metric(SENT, &[("collector", "hep")], u64::try_from(sent.len()).unwrap());
        }
    }
    let ended = gateway.stop();
    let hep = payloads(&ended.files("out", "hep-")[0]);
    assert_eq!(hep, sent);
    let captured = payloads(&ended.files("out", "captured-")[0]);
    let expected: Vec<Vec<u8>> =
        sent.into_iter().map(|octets| decode(octets.into()).unwrap().payload().to_vec()).collect();
    assert_eq!(captured, expected);
}

#[test]
fn a_file_is_rotated_by_size_and_the_oldest_go() {
    let config = [BOTH_LISTENERS, &collector("out", "file:out"), "rotate_octets = 65536\nfiles_max = 3\n", ROUTE];
    let gateway = Gateway::start(&config.concat());
    let folder = gateway.folder.path().join("out");
    std::fs::write(folder.join("out-of-this-world.txt"), "not ours").unwrap();
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    // 20 000 octets each, three to a file.
    for number in 0..20 {
        stream.write_all(&packet(&vec![number; 20_000])).unwrap();
    }
    gateway.await_metric(SENT, &[], 20);
    let files = files_in(&folder, "out-2");
    assert_eq!(files.len(), 3);
    let kept: Vec<u8> = files.iter().flat_map(|file| payloads(file)).map(|payload| payload[0]).collect();
    assert_eq!(kept, (12..20).collect::<Vec<u8>>(), "the newest, in order");
    for file in &files {
        assert!(std::fs::metadata(file).unwrap().len() <= 65_536);
    }
    assert!(folder.join("out-of-this-world.txt").exists());
    gateway.stop();
}

#[test]
fn a_file_is_rotated_by_age() {
    let config = [BOTH_LISTENERS, &collector("out", "file:out"), "rotate_after = \"1s\"\n", ROUTE];
    let gateway = Gateway::start(&config.concat());
    let folder = gateway.folder.path().join("out");
    let agent = udp_agent(gateway.listener("udp"));
    let mut sent = 0;
    eventually("a second file", || {
        agent.send(&numbered(sent)).unwrap();
        sent += 1;
        files_in(&folder, "out-2").len() >= 2
    });
    gateway.await_metric(SENT, &[], u64::try_from(sent).unwrap());
    let kept: Vec<Vec<u8>> = files_in(&folder, "out-2").iter().flat_map(|file| payloads(file)).collect();
    let expected: Vec<Vec<u8>> = (0..sent).map(|number| format!("number {number}").into_bytes()).collect();
    assert_eq!(kept, expected);
    gateway.stop();
}

#[test]
fn a_file_that_cannot_be_written_costs_its_packets_and_is_begun_again() {
    let config = [BOTH_LISTENERS, &collector("out", "file:out"), "rotate_octets = 65536\n", ROUTE];
    let gateway = Gateway::start(&config.concat());
    let folder = gateway.folder.path().join("out");
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    // The folder goes, and a file is in its place: the next file cannot be begun.
    eventually("the first file", || files_in(&folder, "out-2").len() == 1);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    for number in 0..6 {
        stream.write_all(&packet(&vec![number; 20_000])).unwrap();
    }
    eventually("packets are dropped", || gateway.metrics().get(DROPPED, &[("reason", "write-failed")]) > 0);
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    eventually("a new file", || {
        stream.write_all(&packet(b"again")).unwrap();
        files_in(&folder, "out-2").iter().flat_map(|file| payloads(file)).any(|payload| payload == b"again")
    });
    gateway.stop();
}

#[test]
fn a_file_that_somebody_removes_is_begun_again_with_the_next_packets() {
    let config = [BOTH_LISTENERS, &collector("out", "file:out"), ROUTE];
    let gateway = Gateway::start(&config.concat());
    let folder = gateway.folder.path().join("out");
    let agent = udp_agent(gateway.listener("udp"));
    agent.send(&numbered(0)).unwrap();
    gateway.await_metric(SENT, &[], 1);
    std::fs::remove_file(&files_in(&folder, "out-2")[0]).unwrap();
    agent.send(&numbered(1)).unwrap();
    gateway.await_metric(SENT, &[], 2);
    let kept: Vec<Vec<u8>> = files_in(&folder, "out-2").iter().flat_map(|file| payloads(file)).collect();
    assert_eq!(kept, [b"number 1"]);
    gateway.stop();
}

#[test]
fn files_without_a_packet_are_not_left_and_take_no_real_ones_place() {
    let config = [BOTH_LISTENERS, &collector("out", "file:out"), "files_max = 1\n", ROUTE];
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("out/out-20261123T071718Z-000001.pcapng");
    std::fs::create_dir(folder.path().join("out")).unwrap();
    std::fs::write(&kept, "of another day").unwrap();
    let gateway = Gateway::start_in(folder, &config.concat());
    let ended = gateway.stop();
    assert_eq!(ended.files("out", "out-").len(), 1, "only the one of another day");
    let kept = ended.folder.path().join("out/out-20261123T071718Z-000001.pcapng");
    assert!(kept.exists());
    // With the first packet its place is needed.
    let gateway = Gateway::start_in(ended.folder, &config.concat());
    udp_agent(gateway.listener("udp")).send(&numbered(1)).unwrap();
    gateway.await_metric(SENT, &[], 1);
    let ended = gateway.stop();
    assert!(!kept.exists());
    assert_eq!(payloads(&ended.files("out", "out-")[0]), [b"number 1"]);
}

/// The collector is well; it is the gateway that stands still for longer than `hep_send_timeout`.
#[test]
fn a_stall_of_the_gateway_breaks_no_healthy_collector() {
    use nix::sys::signal::Signal;
    let sink = TcpSink::new();
    let more = "hep_async_max_postponed_chunks = 100000\nhep_send_timeout = 3000\n";
    let config = [BOTH_LISTENERS, &collector("out", &sink.to()), more, ROUTE];
    let gateway = Gateway::start(&config.concat());
    let mut out = sink.accept();
    let mut agent = TcpStream::connect(gateway.listener("tcp")).unwrap();
    // Until something waits, which begins the time in which the collector must take something.
    let mut sent = 0;
    while gateway.metrics().sum(WAITING) == 0 {
        agent.write_all(&packet(&vec![1; 60_000])).unwrap();
        sent += 1;
    }
    gateway.signal(Signal::SIGSTOP);
    out.set_nonblocking(true).unwrap();
    let mut read = 0;
    // The collector takes all that the system has for it, and more time passes than the collector is given.
    let begun = std::time::Instant::now();
    let mut octets = vec![0; 1 << 20];
    while begun.elapsed() < std::time::Duration::from_millis(4_000) {
        match std::io::Read::read(&mut out, &mut octets) {
            Ok(length) => read += length,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    gateway.signal(Signal::SIGCONT);
    out.set_nonblocking(false).unwrap();
    let mut rest = vec![0; sent * packet(&vec![1; 60_000]).len() - read];
    std::io::Read::read_exact(&mut out, &mut rest).unwrap();
    assert_eq!(gateway.metrics().sum("hepgate_collector_broken_total"), 0, "{}", gateway.log_text());
    gateway.await_metric(SENT, &[], u64::try_from(sent).unwrap());
    gateway.stop();
}
