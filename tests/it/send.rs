//! The binary, sending to receivers that the tests are.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hepgate::cli::capture::{Capture, Found, SipFinder};
use hepgate::wire::{self, CapturedAt, ChunkId, Framer, Packet, PayloadType, Version};
use socket2::{Domain, Socket, Type};

use crate::capture::build::{OPTIONS, built, ethernet, file, fragments, frames, hep3, tcp, udp};
use crate::dump::{corpus, hepgate};

/// How long a test waits for octets before it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(read: &Path, to: &str, options: &[&str]) -> Child {
    let mut command = hepgate();
    command.arg("send").arg("--read").arg(read).arg("--to").arg(to).args(options);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(read: &Path, to: &str, options: &[&str]) -> Output {
    start(read, to, options).wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A UDP receiver, and the target that it is.
fn udp_receiver() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = format!("udp:{}", socket.local_addr().unwrap());
    (socket, to)
}

fn datagrams(socket: &UdpSocket, count: usize) -> Vec<Bytes> {
    let mut buffer = [0; 65_536];
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        let octets = again_if_interrupted(|| socket.recv(&mut buffer));
        datagrams.push(Bytes::copy_from_slice(&buffer[..octets]));
    }
    datagrams
}

/// The end of a child may interrupt a call that waits.
fn again_if_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> usize {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.unwrap(),
        }
    }
}

fn no_more_datagrams(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    matches!(socket.recv(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Runs the sender against a TCP receiver that reads to the end, and gives what that has read.
fn send_to_tcp(read: &Path, options: &[&str]) -> (Vec<u8>, Output) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = start(read, &format!("tcp:{}", listener.local_addr().unwrap()), options);
    let mut octets = Vec::new();
    accept(&listener).read_to_end(&mut octets).unwrap();
    (octets, child.wait_with_output().unwrap())
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn cut(octets: Vec<u8>) -> Vec<Packet> {
    let mut framer = Framer::new(u32::MAX);
    framer.push(octets.into());
    let mut packets = Vec::new();
    while let Some(packet) = framer.next_packet().unwrap() {
        packets.push(wire::decode(packet).unwrap());
    }
    assert_eq!(framer.partial_octets(), 0);
    packets
}

fn sip_of(file: &Path) -> Vec<Found<Bytes>> {
    Capture::open(file, &[]).unwrap().find(SipFinder::new()).map(Result::unwrap).collect()
}

/// The same payload, time and addresses.
fn check(packet: &Packet, message: &Found<Bytes>) {
    let head = packet.head();
    let address = |ip: Option<_>, port| SocketAddr::new(ip.unwrap(), port);
    assert_eq!(packet.payload(), message.what);
    assert_eq!(address(head.source, head.source_port), message.flow.source);
    assert_eq!(address(head.destination, head.destination_port), message.flow.destination);
    assert_eq!(head.ip_protocol, message.flow.transport.ip_protocol());
    assert_eq!(head.payload_type, PayloadType::SIP);
    if head.version != Version::Hep1 {
        assert_eq!(head.captured_at, message.at.micros.map(CapturedAt::from_micros));
    }
}

#[test]
fn sip_arrives_in_every_version_with_its_payload_time_and_addresses() {
    let file = corpus("sip-call.pcap");
    let messages = sip_of(&file);
    assert_eq!(messages.len(), 12);
    for (number, agent_id, id_options) in
        [("1", 0, [].as_slice()), ("2", 2001, &["--agent-id", "2001"]), ("3", 70_000, &["--agent-id", "70000"])]
    {
        let (socket, to) = udp_receiver();
        let options = [["--as", number, "--pace", "max"].as_slice(), id_options].concat();
        let output = send(&file, &to, &options);
        let packets = datagrams(&socket, 12);
        assert!(no_more_datagrams(&socket));
        for (octets, message) in packets.into_iter().zip(&messages) {
            let packet = wire::decode(octets).unwrap();
            check(&packet, message);
            assert_eq!(packet.head().version.number().to_string(), number);
            assert_eq!(packet.head().agent_id, agent_id);
        }
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).starts_with("sent 12 packets, "), "{}", out(&output));
        assert!(out(&output).ends_with(" packets/s, 0 errors\n"), "{}", out(&output));
    }
}

#[test]
fn sip_arrives_over_tcp_with_name_and_key() {
    let file = corpus("sip-call.pcap");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "s3cr3t-Key\r\n").unwrap();
    let options = ["--pace", "max", "--agent-name", "edge-1", "--key-file", key.to_str().unwrap()];
    let (octets, output) = send_to_tcp(&file, &options);
    let packets = cut(octets);
    assert_eq!((packets.len(), output.status.code()), (12, Some(0)));
    for (packet, message) in packets.iter().zip(&sip_of(&file)) {
        check(packet, message);
        assert_eq!(packet.head().agent_id, 1);
        assert_eq!(packet.chunk(ChunkId::AGENT_NAME), Some(b"edge-1".as_slice()));
        assert_eq!(packet.chunk(ChunkId::AUTH_KEY), Some(b"s3cr3t-Key".as_slice()));
    }
    assert!(!errors(&output).contains("s3cr3t") && !out(&output).contains("s3cr3t"));
    assert!(errors(&output).contains("packing its SIP as HEP3 of agent 1 and sending it to tcp:127.0.0.1:"));
}

#[test]
fn hep_arrives_octet_by_octet_as_it_was_captured() {
    for name in ["sngrep-v2-udp", "kamailio-siptrace-v1-udp", "rtpengine-v3-udp", "opensips-tracer-v3-tcp"] {
        let wanted = hex_lines(&corpus(&format!("{name}.frames.jsonl")));
        let (socket, to) = udp_receiver();
        let output = send(&corpus(&format!("{name}.pcap")), &to, &["--pace", "max"]);
        assert_eq!(datagrams(&socket, wanted.len()), wanted, "{name}");
        assert!(no_more_datagrams(&socket));
        assert_eq!(output.status.code(), Some(0));
        assert!(errors(&output).contains("holds HEP: sending it as it is to udp:127.0.0.1:"));
    }
    let (octets, _) = send_to_tcp(&corpus("kamailio-siptrace-v3-udp.pcap"), &["--pace", "max"]);
    assert_eq!(octets, hex_lines(&corpus("kamailio-siptrace-v3-udp.frames.jsonl")).concat());
}

fn hex_lines(file: &Path) -> Vec<Bytes> {
    let packet = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    fs::read_to_string(file).unwrap().lines().map(packet).collect()
}

#[test]
fn sip_can_be_packed_although_there_is_hep_too() {
    let hep = udp("198.51.100.1:40000", "198.51.100.2:9060", &hep3(0, OPTIONS));
    let sip = udp("198.51.100.1:5060", "198.51.100.3:5060", OPTIONS);
    let (_folder, path) = built([sip, hep]);
    for (options, agent_id) in [(["--pace", "max"].as_slice(), 2000), (&["--sip"], 1), (&["--port", "5060"], 1)] {
        let (socket, to) = udp_receiver();
        assert!(send(&path, &to, options).status.success());
        let packet = wire::decode(datagrams(&socket, 1).remove(0)).unwrap();
        assert!(no_more_datagrams(&socket));
        assert_eq!((packet.head().agent_id, packet.payload()), (agent_id, OPTIONS));
    }
}

#[test]
fn sip_of_a_tcp_connection_is_cut_into_messages() {
    let invite = b"INVITE sip:bob@example.com SIP/2.0\r\nContent-Length: 4\r\n\r\nbody".as_slice();
    let stream = [b"\r\n\r\n", invite, OPTIONS].concat();
    let (from, to) = ("198.51.100.1:5060", "198.51.100.3:5060");
    let segment = |at: usize, end: usize| tcp(from, to, u32::try_from(at).unwrap() + 1, "", &stream[at..end]);
    let (_folder, path) =
        built([tcp(from, to, 0, "S", b""), segment(0, 30), segment(60, stream.len()), segment(20, 60)]);
    let (octets, output) = send_to_tcp(&path, &["--pace", "max"]);
    let packets = cut(octets);
    let payloads: Vec<&[u8]> = packets.iter().map(Packet::payload).collect();
    assert_eq!((payloads.as_slice(), output.status.code()), ([invite, OPTIONS].as_slice(), Some(0)));
    assert_eq!((packets[0].head().ip_protocol, packets[0].head().destination_port), (6, 5060));
}

#[test]
fn the_capture_is_sent_as_often_and_as_fast_as_is_asked_for() {
    let (socket, to) = udp_receiver();
    let begun = Instant::now();
    let output = send(&corpus("sip-call.pcap"), &to, &["--loop", "3", "--pace", "100/s"]);
    // The last of 36 packets is due after 350 ms.
    assert!(begun.elapsed() >= Duration::from_millis(350));
    assert_eq!(datagrams(&socket, 36).len(), 36);
    assert!(out(&output).starts_with("sent 36 packets, "));

    let begun = Instant::now();
    let _ = send(&corpus("sip-call.pcap"), &to, &[]);
    assert!(begun.elapsed() >= Duration::from_micros(703_622), "as it was captured");
    assert_eq!(datagrams(&socket, 12).len(), 12);
}

#[test]
fn a_receiver_may_read_as_slowly_and_in_as_small_parts_as_it_likes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("hep_tcp:{}", listener.local_addr().unwrap());
    let child = start(&corpus("sip-call.pcap"), &to, &["--pace", "max", "--loop", "1500"]);
    let mut stream = accept(&listener);
    // Far more than the buffers of both sides hold: the sender meets partial writes and full buffers.
    let mut octets = Vec::new();
    let mut part = [0; 1009];
    loop {
        match again_if_interrupted(|| stream.read(&mut part)) {
            0 => break,
            read => octets.extend_from_slice(&part[..read]),
        }
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(cut(octets).len(), 18_000);
    assert!(out(&output).starts_with("sent 18 000 packets, "), "{}", out(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn nobody_listening_is_an_error_over_both_transports() {
    // A socket that talks to somebody else, and one that does not listen: nobody else can take these ports.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.connect("127.0.0.1:1").unwrap();
    let closed = elsewhere.local_addr().unwrap();
    let output = send(&corpus("sip-call.pcap"), &format!("udp:{closed}"), &["--pace", "max"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains(&format!("{closed} refuses packets: nobody listens on that port")));
    assert!(out(&output).contains(" refused)"), "{}", out(&output));

    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let closed = silent.local_addr().unwrap().as_socket().unwrap();
    let output = send(&corpus("sip-call.pcap"), &format!("tcp:{closed}"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("hepgate: cannot connect to tcp:{closed}: Connection refused (os error 111)\n");
    assert!(errors(&output).ends_with(&sentence), "{}", errors(&output));
}

#[test]
fn a_connection_that_breaks_says_how_much_was_written() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = start(&corpus("sip-call.pcap"), &format!("tcp:{address}"), &["--pace", "max", "--loop", "0"]);
    let mut stream = accept(&listener);
    stream.read_exact(&mut [0; 100]).unwrap();
    // With octets unread this is a reset.
    drop(stream);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains(&format!("the connection to {address} broke: ")), "{}", errors(&output));
    assert!(errors(&output).contains(" octets of the packet were written\n"), "{}", errors(&output));
    assert!(out(&output).contains("sent "), "{}", out(&output));
}

#[test]
fn a_receiver_that_leaves_before_it_has_read_everything_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = start(&corpus("sip-call.pcap"), &format!("tcp:{address}"), &["--pace", "max"]);
    let mut stream = accept(&listener);
    // All of it has come, nothing more was taken than this.
    stream.read_exact(&mut [0; 5000]).unwrap();
    drop(stream);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}{}", out(&output), errors(&output));
}

#[test]
fn a_packet_that_does_not_fit_a_datagram_is_an_error_and_the_others_are_sent() {
    let long = hep3(1, &[b'x'; 65_400]);
    let to = "198.51.100.2:9060";
    let from = "198.51.100.1:40000";
    let stream = [hep3(0, OPTIONS), long.clone(), hep3(2, OPTIONS)].concat();
    let segment = |(n, part): (usize, &[u8])| tcp(from, to, 1 + u32::try_from(n * 1000).unwrap(), "", part);
    let segments = stream.chunks(1000).enumerate().map(segment);
    let (_folder, path) = built([tcp(from, to, 0, "S", b"")].into_iter().chain(segments));
    let (socket, target) = udp_receiver();
    let output = send(&path, &target, &["--pace", "max"]);
    if long.len() <= wire::DATAGRAM_OCTETS_MAX {
        panic!("the packet must be too long for a datagram: {}", long.len());
    }
    let packets: Vec<_> = datagrams(&socket, 2).into_iter().map(|octets| wire::decode(octets).unwrap()).collect();
    assert_eq!(packets.iter().map(|packet| packet.head().agent_id).collect::<Vec<_>>(), [2000, 2002]);
    let sentence = format!("a packet of {} octets does not fit a datagram, which holds 65507 at most", long.len());
    assert!(errors(&output).contains(&sentence), "{}", errors(&output));
    assert_eq!(output.status.code(), Some(1));
    // Over TCP it fits.
    assert_eq!(send_to_tcp(&path, &["--pace", "max"]).0, stream);
}

#[test]
fn sip_that_does_not_fit_hep_is_an_error() {
    let head = "MESSAGE sip:bob@example.com SIP/2.0\r\n\r\n";
    let message = [head.as_bytes(), &[b'x'; 65_450]].concat();
    let packet = udp("198.51.100.1:5060", "198.51.100.3:5060", &message);
    let (_folder, path) = built(fragments(&packet, 1480));
    let (octets, output) = send_to_tcp(&path, &[]);
    assert_eq!(octets.len(), 0);
    assert!(errors(&output).contains("frame 45: the packet would have 655"), "{}", errors(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn old_versions_do_not_go_over_tcp() {
    let (octets, output) = send_to_tcp(&corpus("sngrep-v2-udp.pcap"), &["--pace", "max"]);
    assert_eq!((octets.len(), output.status.code()), (0, Some(1)));
    assert!(errors(&output).contains("frame 1: HEP2 goes over UDP only"), "{}", errors(&output));
    assert!(errors(&output).contains("further errors are only counted"), "twelve are too many to tell");
    assert!(out(&output).ends_with("12 errors\n"));
}

#[test]
fn what_cannot_be_read_in_the_capture_is_an_error_and_the_rest_is_sent() {
    let packets = [hep3(0, OPTIONS), Bytes::from_static(b"HEP3\x01\0short"), hep3(1, OPTIONS)];
    let (_folder, path) = built(packets.iter().map(|packet| udp("198.51.100.1:40000", "198.51.100.2:9060", packet)));
    let (socket, to) = udp_receiver();
    let output = send(&path, &to, &[]);
    assert_eq!((datagrams(&socket, 2).len(), output.status.code()), (2, Some(1)));
    let sentence =
        "frame 2, udp 198.51.100.1:40000 -> 198.51.100.2:9060: the header says 256 octets, the datagram has 11";
    assert!(errors(&output).contains(sentence), "{}", errors(&output));
}

#[test]
fn options_that_cannot_be_meant_so_are_refused() {
    let (hep, sip) = (corpus("sngrep-v3-udp.pcap"), corpus("sip-call.pcap"));
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("key");
    fs::write(&empty, "\n").unwrap();
    let empty = empty.to_str().unwrap();
    for (read, to, options, wanted) in [
        (&hep, "udp:127.0.0.1:9", ["--as", "1"], "holds HEP, which goes out as it is: --as is for SIP"),
        (&hep, "udp:127.0.0.1:9", ["--agent-name", "x"], "--agent-name is for SIP"),
        (&sip, "tcp:127.0.0.1:9", ["--as", "2"], "HEP2 goes over UDP only"),
        (&sip, "udp:127.0.0.1:9", ["--key-file", empty], "must hold 1 to 1024 octets"),
        (
            &sip,
            "udp:127.0.0.1:9",
            ["--key-file", "/nonexistent"],
            "the key file /nonexistent cannot be read: No such file",
        ),
        (&sip, "udp:127.0.0.1:9", ["--port", "1"], "holds neither HEP nor SIP on the ports that --port names"),
        (
            &sip,
            "udp:no.such.name.invalid",
            ["--pace", "max"],
            "udp:no.such.name.invalid:5656: the name cannot be resolved: ",
        ),
    ] {
        let output = send(read, to, &options);
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        assert!(errors(&output).contains(wanted), "{options:?}: {}", errors(&output));
    }
    for options in [
        ["--as", "1", "--agent-id", "7"].as_slice(),
        &["--as", "2", "--agent-id", "65536"],
        &["--as", "2", "--agent-name", "x"],
    ] {
        let output = send(&sip, "udp:127.0.0.1:9", options);
        assert_eq!(output.status.code(), Some(1), "{options:?}");
    }
    for (to, options) in [
        ("127.0.0.1:9", [].as_slice()),
        ("tls:127.0.0.1:9", &[]),
        ("udp:127.0.0.1:9", &["--as", "4"]),
        ("udp:127.0.0.1:9", &["--pace", "0/s"]),
        ("udp:127.0.0.1:9", &["--port", "0"]),
    ] {
        assert_eq!(send(&sip, to, options).status.code(), Some(2), "{to} {options:?}");
    }
}

#[test]
fn ctrl_c_ends_it_with_the_sums() {
    let (socket, to) = udp_receiver();
    let child = start(&corpus("sip-call.pcap"), &to, &["--loop", "0", "--pace", "500/s"]);
    let _ = datagrams(&socket, 5);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(out(&output).starts_with("stopped: sent "), "{}", out(&output));
    assert!(out(&output).ends_with(" 0 errors\n"));
}

#[test]
fn ctrl_c_ends_it_even_if_nothing_can_be_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", listener.local_addr().unwrap());
    let mut child = start(&corpus("sngrep-v2-udp.pcap"), &to, &["--loop", "0"]);
    let stream = accept(&listener);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap() == "further errors are only counted"));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    drop(stream);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn ctrl_c_does_not_wait_for_a_packet_that_is_due_next_year() {
    let sip = ethernet(&[], &udp("198.51.100.1:5060", "198.51.100.3:5060", OPTIONS));
    let mut all = frames([sip.clone(), sip]);
    all[1].micros += 365 * 24 * 3600 * 1_000_000;
    let (_folder, path) = file(&all);
    let (socket, to) = udp_receiver();
    let mut child = start(&path, &to, &[]);
    let _ = datagrams(&socket, 1);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("stopped: sent 1 packet, "), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn ipv6_targets_are_reached() {
    let Ok(socket) = UdpSocket::bind("[::1]:0") else { return };
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = format!("hep_udp:{}", socket.local_addr().unwrap());
    assert!(send(&corpus("sip-call.pcap"), &to, &["--pace", "max"]).status.success());
    assert_eq!(datagrams(&socket, 12).len(), 12);
    let localhost = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:localhost:{}", localhost.local_addr().unwrap().port());
    let child = start(&corpus("sip-call.pcap"), &to, &["--pace", "max"]);
    let mut octets = Vec::new();
    accept(&localhost).read_to_end(&mut octets).unwrap();
    assert!(child.wait_with_output().unwrap().status.success(), "a name with several addresses");
    assert_eq!(cut(octets).len(), 12);
}

#[test]
fn frames_without_time_are_sent_at_once_and_say_no_time() {
    use crate::capture::build::Pcapng;
    let mut pcapng = Pcapng::new(false);
    pcapng.interface(101, 0, &[]);
    let packet = udp("198.51.100.1:5060", "198.51.100.3:5060", OPTIONS);
    pcapng.simple_packet(&frames([packet])[0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("built.pcapng");
    fs::File::create(&path).unwrap().write_all(&pcapng.file).unwrap();
    let (socket, to) = udp_receiver();
    assert!(send(&path, &to, &[]).status.success());
    let packet = wire::decode(datagrams(&socket, 1).remove(0)).unwrap();
    assert_eq!((packet.head().captured_at, packet.payload()), (None, OPTIONS));
}
