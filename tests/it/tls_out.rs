use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::date_time_ymd;
use rustls::version::{TLS12, TLS13};

use crate::corpus;
use crate::support::certificates::{Authority, write};
use crate::support::eventually;
use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::peers::{TcpSink, TlsSink, next_packet, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, packet};

const SENT: &str = "hepgate_collector_sent_packets_total";
const DROPPED: &str = "hepgate_collector_dropped_packets_total";
const WAITING: &str = "hepgate_collector_waiting_packets";
const ROUTED: &str = "hepgate_tenant_routed_packets_total";
const BROKEN: &str = "hepgate_collector_broken_total";

/// The collector is at 127.0.0.1; that is not what its certificate says.
const NAME: &str = "server_name = \"homer.test\"\n";
const QUICK: &str = "hep_max_retries = 0\nbackoff_min = \"1ms\"\nbackoff_max = \"20ms\"\n";

fn config(to: &str, more: &[&str]) -> String {
    let ca = if to.starts_with("hep_tls:") { "ca = \"ca.pem\"\n" } else { "" };
    [BOTH_LISTENERS, &collector("out", to), QUICK, ca, &more.concat(), ROUTE].concat()
}

/// A gateway that trusts that authority.
fn start(authority: &Authority, to: &str, more: &[&str]) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    Gateway::start_in(folder, &config(to, more))
}

fn numbered(number: usize) -> Vec<u8> {
    packet(format!("{number} {}", "x".repeat(number * 37 % 3_000)).as_bytes())
}

fn error_of(gateway: &Gateway, message: &str) -> String {
    let mut error = String::new();
    eventually(message, || match gateway.lines_with(message).first() {
        Some(line) => {
            error = line["error"].as_str().unwrap().to_owned();
            true
        }
        None => false,
    });
    error
}

#[test]
fn packets_reach_a_collector_through_tls_octet_for_octet_and_in_order() {
    let authority = Authority::new("ours");
    for version in [&TLS12, &TLS13] {
        let sink = TlsSink::new(&authority.sign("homer.test"), None, &[version]);
        let gateway = start(&authority, &sink.to(), &[NAME]);
        let mut out = sink.accept().unwrap();
        assert_eq!(out.conn.server_name(), Some("homer.test"));
        let agent = udp_agent(gateway.listener("udp"));
        let mut sent = 0;
        for exchange in corpus::exchanges() {
            for frame in exchange.frames.iter().filter(|frame| frame.octets.starts_with(b"HEP3")) {
                agent.send(&frame.octets).unwrap();
                assert_eq!(next_packet(&mut out), frame.octets, "{}", exchange.name);
                sent += 1;
            }
        }
        assert!(sent > 30, "{sent}");
        // Many in a record, and one in many.
        let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
        let many: Vec<Vec<u8>> = (0..1_000).map(numbered).collect();
        for some in many.chunks(25) {
            stream.write_all(&some.concat()).unwrap();
            for packet in some {
                assert_eq!(&next_packet(&mut out), packet);
            }
        }
        let longest = packet(&vec![b'x'; 65_535 - 12]);
        stream.write_all(&longest).unwrap();
        assert_eq!(next_packet(&mut out), longest);
        gateway.await_metric(SENT, &[], sent + 1_001);
        let ended = gateway.stop();
        // The goodbye of TLS, and not just the end of the stream.
        assert_eq!(out.read(&mut [0]).unwrap(), 0, "{}", ended.log_text());
    }
}

#[test]
fn a_collector_that_wants_a_certificate_gets_ours() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    for version in [&TLS12, &TLS13] {
        for (own, expected) in [
            (Some(authority.sign("probe")), None),
            (None, Some(["CertificateRequired", "HandshakeFailure", "certificate"])),
            (Some(other.sign("probe")), Some(["UnknownCA", "DecryptError", "certificate"])),
        ] {
            let sink = TlsSink::new(&authority.sign("homer.test"), Some(&authority), &[version]);
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
            let mut more = NAME.to_owned();
            if let Some(own) = &own {
                write(folder.path(), "probe", own);
                more.push_str("certificate = \"probe.pem\"\nkey = \"probe.key\"\n");
            }
            let gateway = Gateway::start_in(folder, &config(&sink.to(), &[&more]));
            let Some(expected) = expected else {
                let mut out = sink.accept().unwrap();
                udp_agent(gateway.listener("udp")).send(&packet(b"let in")).unwrap();
                assert_eq!(next_packet(&mut out), packet(b"let in"));
                gateway.stop();
                continue;
            };
            assert!(sink.accept().is_err());
            // In TLS 1.3 we hear of it only after our side of the handshake is done.
            let message =
                if version.version == rustls::ProtocolVersion::TLSv1_2 { "cannot connect" } else { "connection lost" };
            let error = error_of(&gateway, message);
            assert!(expected.iter().any(|expected| error.contains(expected)), "{version:?}: {error}");
            gateway.stop();
        }
    }
}

#[test]
fn a_collector_whom_we_do_not_trust_gets_nothing_and_the_log_says_why() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let expired = authority.sign_with("homer.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    for (shown, name, expected) in [
        (other.sign("homer.test"), NAME, "UnknownIssuer"),
        (authority.sign("homer.test"), "", "not valid for name \"127.0.0.1\""),
        (authority.sign("else.test"), NAME, "not valid for name \"homer.test\""),
        (expired, NAME, "certificate expired"),
    ] {
        let sink = TlsSink::new(&shown, None, &[&TLS12, &TLS13]);
        let gateway = start(&authority, &sink.to(), &[name]);
        udp_agent(gateway.listener("udp")).send(&packet(b"secret")).unwrap();
        assert!(sink.accept().is_err(), "{expected}");
        let error = error_of(&gateway, "cannot connect");
        assert!(error.contains(expected), "{expected}: {error}");
        gateway.await_metric(WAITING, &[], 1);
        assert_eq!(gateway.metrics().sum(SENT), 0);
        gateway.stop();
    }
    // Too old a version is no handshake either.
    let sink = TlsSink::new(&authority.sign("homer.test"), None, &[&TLS12]);
    let gateway = start(&authority, &sink.to(), &[NAME, "tls_min_version = \"1.3\"\n"]);
    assert!(sink.accept().is_err());
    let error = error_of(&gateway, "cannot connect");
    assert!(error.contains("ProtocolVersion"), "{error}");
    gateway.stop();
}

#[test]
fn a_handshake_that_does_not_end_and_one_that_is_none_are_failed_attempts() {
    let authority = Authority::new("ours");
    for (answer, expected) in [
        (None, "no end of the TLS handshake in 200 ms (handshake_timeout)"),
        (Some("HTTP/1.1 400 Bad Request\r\n\r\n"), "corrupt message"),
        (Some(""), "closed by the collector in the TLS handshake"),
    ] {
        let sink = TcpSink::new();
        let to = sink.to().replace("hep_tcp", "hep_tls");
        let gateway = start(&authority, &to, &[NAME, "handshake_timeout = \"200ms\"\n"]);
        let mut out = sink.accept();
        // A hello of theirs, which is read so that the end is none with a reset.
        out.read_exact(&mut [0]).unwrap();
        let read = out.read(&mut [0; 4_096]).unwrap();
        assert!(read < 4_096);
        if let Some(answer) = answer {
            out.write_all(answer.as_bytes()).unwrap();
            out.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let error = error_of(&gateway, "cannot connect");
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(gateway.metrics().sum("hepgate_collector_connected_total"), 0);
        gateway.stop();
    }
}

#[test]
fn files_that_cannot_be_used_are_one_sentence_with_the_collector_and_the_reason() {
    let authority = Authority::new("ours");
    let (good, other) = (authority.sign("probe"), authority.sign("probe"));
    let expired = authority.sign_with("probe", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let (ca, nothing) = (authority.pem(), String::new());
    for (ca, certificate, key, expected) in [
        (None, &good.0, &good.1, "ca.pem: No such file or directory"),
        (Some(&nothing), &good.0, &good.1, "ca.pem: has no certificate in it"),
        (Some(&ca), &expired.0, &expired.1, "probe.pem: its certificate is valid from "),
        (Some(&ca), &good.0, &other.1, "probe.pem: the certificate in it and the key in "),
        (Some(&ca), &nothing, &good.1, "probe.pem: has no certificate in it"),
        (Some(&ca), &good.0, &good.0, "probe.key: has no private key in it"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "probe", &(certificate.clone(), key.clone()));
        if let Some(ca) = ca {
            std::fs::write(folder.path().join("ca.pem"), ca).unwrap();
        }
        let more = "certificate = \"probe.pem\"\nkey = \"probe.key\"\n";
        let text = format!("[admin]\nlisten = \"\"\n{}", config("hep_tls:127.0.0.1:1", &[more]));
        std::fs::write(folder.path().join("hepgate.toml"), text).unwrap();
        let mut command = std::process::Command::new(HEPGATE);
        let out = command.args(["run", "--config", "hepgate.toml"]).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("hepgate: collector \"out\": ") && said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("listening"), "{said}");
    }
}

#[test]
fn new_certificates_are_taken_for_the_next_connection() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut sink = TlsSink::new(&old.sign("homer.test"), None, &[&TLS13]);
    let gateway = start(&old, &sink.to(), &[NAME]);
    let mut before = sink.accept().unwrap();
    // The collector has a new certificate, of an authority that we do not know yet.
    sink = sink.with_certificate(&new.sign("homer.test"));
    std::fs::write(gateway.folder.path().join("ca.pem"), "no certificate").unwrap();
    udp_agent(gateway.listener("udp")).send(&packet(b"before")).unwrap();
    assert_eq!(next_packet(&mut before), packet(b"before"));
    drop(before);
    eventually("the bad file is told of", || {
        assert!(sink.accept().is_err());
        !gateway.lines_with("new certificates cannot be used; the old ones stay").is_empty()
    });
    std::fs::write(gateway.folder.path().join("ca.pem"), new.pem()).unwrap();
    udp_agent(gateway.listener("udp")).send(&packet(b"after")).unwrap();
    let mut after = None;
    eventually("the new one is used", || {
        after = sink.accept().ok();
        after.is_some()
    });
    assert_eq!(next_packet(&mut after.unwrap()), packet(b"after"));
    // The log has a thread of its own.
    eventually("it is told", || gateway.lines_with("certificates read again").len() == 1);
    gateway.stop();
}

/// As `hep_id` has no place for files.
#[test]
fn without_a_ca_those_are_trusted_that_the_system_trusts() {
    let authority = Authority::new("ours");
    let sink = TlsSink::new(&authority.sign("localhost"), None, &[&TLS12, &TLS13]);
    let to = sink.to().replace("hep_tls:127.0.0.1", "localhost");
    let hep_id = format!("[proto_hep]\nhep_id = [\"[out] {to}; transport=tls\"]\n");
    let config = [&hep_id, BOTH_LISTENERS, ROUTE].concat();
    for trusted in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let roots = folder.path().join("system.pem");
        let known = if trusted { authority.pem() } else { Authority::new("another").pem() };
        std::fs::write(&roots, known).unwrap();
        let gateway = Gateway::start_as(folder, "workers = 1", &config, |command| {
            command.env("SSL_CERT_FILE", &roots).env_remove("SSL_CERT_DIR");
        });
        udp_agent(gateway.listener("udp")).send(&packet(b"one")).unwrap();
        if trusted {
            assert_eq!(next_packet(&mut sink.accept().unwrap()), packet(b"one"));
        } else {
            assert!(sink.accept().is_err());
            assert!(error_of(&gateway, "cannot connect").contains("UnknownIssuer"));
        }
        gateway.stop();
    }
}

/// A connection as its collector has it, and the socket under it.
type Accepted = (Box<dyn Read>, TcpStream);

/// A collector that resets its connections wherever it likes gets no packet twice, and none out of order.
#[test]
fn a_collector_that_resets_its_connections_gets_no_packet_twice_and_keeps_the_order() {
    let authority = Authority::new("ours");
    let plain = TcpSink::new();
    let to = plain.to();
    resets(&authority, &to, "", &|| {
        let stream = plain.accept();
        (Box::new(stream.try_clone().unwrap()), stream)
    });
    let tls = TlsSink::new(&authority.sign("homer.test"), None, &[&TLS13]);
    resets(&authority, &tls.to(), NAME, &|| {
        let stream = tls.accept().unwrap();
        let socket = stream.sock.try_clone().unwrap();
        (Box::new(stream), socket)
    });
}

fn resets(authority: &Authority, to: &str, keys: &str, accept: &dyn Fn() -> Accepted) {
    let more = "hep_async_max_postponed_chunks = 100000\nhep_send_timeout = 600000\n";
    let gateway = start(authority, to, &[keys, more]);
    let to = gateway.listener("tcp");
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(to).unwrap();
        let mut sent = 0;
        while !told.load(Ordering::SeqCst) {
            stream.write_all(&numbered(sent)).unwrap();
            sent += 1;
            std::thread::sleep(Duration::from_micros(200));
        }
        (stream, sent)
    });
    let mut next = 0;
    let mut take = |out: &mut dyn Read| {
        let mut out = out;
        let came = next_packet(&mut out);
        let text = std::str::from_utf8(&came[12..]).unwrap();
        let number: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(came, numbered(number));
        assert!(number >= next, "{number} came after {next}");
        next = number + 1;
        number
    };
    for round in 0..20_usize {
        let (mut out, socket) = accept();
        for _ in 0..round * 7 % 40 {
            take(&mut *out);
        }
        // In the middle of a packet, and of a record; nothing is read any more, so it is a reset.
        out.read_exact(&mut vec![0; round % 6]).unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        drop(out);
    }
    let (mut out, _socket) = accept();
    enough.store(true, Ordering::SeqCst);
    let (mut stream, sent) = sender.join().unwrap();
    stream.write_all(&numbered(sent)).unwrap();
    while take(&mut *out) < sent {}
    gateway.await_metric(WAITING, &[], 0);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(SENT) + metrics.sum(DROPPED), u64::try_from(sent).unwrap() + 1);
    assert_eq!(metrics.get(DROPPED, &[("reason", "connection-broken")]), metrics.sum(DROPPED));
    assert_eq!(metrics.sum(BROKEN), 20);
    gateway.stop();
}

/// As over TCP, and what it did not read is as little continued on another connection.
#[test]
fn a_collector_that_never_reads_is_broken_and_no_packet_comes_twice() {
    let authority = Authority::new("ours");
    let sink = TlsSink::new(&authority.sign("homer.test"), None, &[&TLS13]);
    let more = "hep_async_max_postponed_chunks = 1000\nhep_send_timeout = 200\n";
    let gateway = start(&authority, &sink.to(), &[NAME, more]);
    let mut first = sink.accept().unwrap();
    let large = |number: usize| packet(format!("{number:60000}").as_bytes());
    let mut stream = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let mut all = 0;
    eventually("the connection is broken", || {
        stream.write_all(&large(all)).unwrap();
        all += 1;
        gateway.await_metric(ROUTED, &[], u64::try_from(all).unwrap());
        gateway.metrics().sum(BROKEN) == 1
    });
    let mut second = sink.accept().unwrap();
    let mut octets = vec![0; large(0).len()];
    let mut came = 0;
    while first.read_exact(&mut octets).is_ok() {
        assert_eq!(octets, large(came));
        came += 1;
    }
    let metrics = gateway.metrics();
    let lost = metrics.get(DROPPED, &[("reason", "connection-broken")]);
    assert!(lost <= 1 && lost == metrics.sum(DROPPED), "{lost}");
    for number in came + usize::try_from(lost).unwrap()..all {
        assert_eq!(next_packet(&mut second), large(number));
    }
    gateway.await_metric(SENT, &[], u64::try_from(all).unwrap() - lost);
    gateway.stop();
}
