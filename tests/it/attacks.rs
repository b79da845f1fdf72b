use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::certificates::{Authority, write};
use crate::support::gateway::Gateway;
use crate::support::peers::{UdpSink, await_unread, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector, packet};
use crate::support::{PATIENCE, eventually};

const CLOSED: &str = "hepgate_listener_closed_connections_total";
const OPENED: &str = "hepgate_listener_opened_connections_total";
const OPEN: &str = "hepgate_listener_open_connections";

/// A TCP listener with these further keys, and a collector `out`.
fn start(keys: &str) -> (Gateway, UdpSink) {
    let out = UdpSink::new();
    let listener = format!("[[listener]]\nname = \"tcp\"\nlisten = \"hep_tcp:127.0.0.1:0\"\n{keys}\n");
    (Gateway::start(&[&listener, &collector("out", &out.to()), ROUTE].concat()), out)
}

/// A connection from another address of this machine than the honest agents'.
fn attacker(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&"127.0.0.66:0".parse::<SocketAddr>().unwrap().into())?;
    socket.connect(&to.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// This process holds the other end of each connection.
fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard >= 4_096, "the tests need 4096 descriptors, this machine gives {hard}");
}

/// An agent that is there before the attack, and must not notice it.
struct Honest {
    stream: TcpStream,
    sent: usize,
}

impl Honest {
    fn new(gateway: &Gateway) -> Self {
        Self { stream: TcpStream::connect(gateway.listener("tcp")).unwrap(), sent: 0 }
    }

    fn is_served(&mut self, out: &UdpSink) {
        for _ in 0..20 {
            let mine = packet(format!("honest {}", self.sent).as_bytes());
            self.stream.write_all(&mine).unwrap();
            assert_eq!(out.next(), mine);
            self.sent += 1;
        }
    }
}

/// Octets of memory that the process has, in the machine.
fn resident_octets(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

#[test]
fn ten_thousand_connections_of_one_peer_get_its_share_and_no_other_notices() {
    raise_descriptor_limit();
    let (gateway, out) = start("");
    let mut honest = Honest::new(&gateway);
    honest.is_served(&out);
    let to = gateway.listener("tcp");
    let mut held = Vec::new();
    for number in 0..10_000 {
        // One that is refused is closed as soon as it is taken.
        let connection = attacker(to).unwrap();
        if held.len() < 1_500 {
            held.push(connection);
        }
        if number % 1_000 == 0 {
            honest.is_served(&out);
        }
    }
    gateway.await_metric(CLOSED, &[("reason", "peer-connections-full")], 9_000);
    let metrics = gateway.metrics();
    assert_eq!((metrics.get(OPENED, &[]), metrics.get(OPEN, &[])), (1_001, 1_001), "connections_per_peer_max, and one");
    honest.is_served(&out);
    drop(held);
    gateway.await_metric(OPEN, &[], 1);
    gateway.stop();
}

#[test]
fn half_open_connections_end_when_they_are_idle_and_no_other_notices() {
    let (gateway, out) = start("idle = \"1s\"");
    let mut honest = Honest::new(&gateway);
    let half_open: Vec<TcpStream> = (0..300).map(|_| attacker(gateway.listener("tcp")).unwrap()).collect();
    let reason = [("reason", "idle")];
    eventually("all of them are closed", || {
        honest.is_served(&out);
        std::thread::sleep(Duration::from_millis(100));
        gateway.metrics().get(CLOSED, &reason) == 300
    });
    gateway.await_metric(OPEN, &[], 1);
    drop(half_open);
    gateway.stop();
}

#[test]
fn senders_of_one_octet_at_a_time_are_closed_and_no_other_notices() {
    let (gateway, out) = start("");
    let mut honest = Honest::new(&gateway);
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = attacker(gateway.listener("tcp")).unwrap();
            std::thread::spawn(move || {
                let long = packet(&[b'x'; 1_000]);
                let octets = long.iter().take_while(|octet| {
                    std::thread::sleep(Duration::from_millis(5));
                    stream.write_all(std::slice::from_ref(*octet)).is_ok()
                });
                octets.count()
            })
        })
        .collect();
    honest.is_served(&out);
    for sender in slow {
        // Octets may fall together on the way into one read, but never so many.
        let written = sender.join().unwrap();
        assert!((32..1_000).contains(&written), "{written}");
        honest.is_served(&out);
    }
    gateway.await_metric(CLOSED, &[("reason", "too-many-reads")], 20);
    gateway.stop();
}

/// What bounds it: `connections_per_peer_max` times one packet, of which no connection keeps more than it states.
#[test]
fn packets_that_never_end_hold_no_more_memory_than_one_packet_for_each_connection() {
    let (gateway, out) = start("idle = \"1h\"\nconnections_per_peer_max = 500");
    let mut honest = Honest::new(&gateway);
    honest.is_served(&out);
    let before = resident_octets(&gateway);
    // As long as a datagram to the collector may be.
    let longest = packet(&vec![b'x'; 65_507 - 12]);
    let mut held = Vec::new();
    for _ in 0..500 {
        let mut connection = attacker(gateway.listener("tcp")).unwrap();
        connection.write_all(&longest[..longest.len() - 1]).unwrap();
        held.push(connection);
    }
    // All of it is read: then each is a packet that lacks one octet.
    held.iter().for_each(await_unread);
    honest.is_served(&out);
    gateway.await_metric(OPEN, &[], 501);
    let grown = resident_octets(&gateway).saturating_sub(before);
    assert!(grown < 2 * 500 * 65_535, "{grown} octets more");
    // They were packets indeed.
    for connection in &mut held {
        connection.write_all(b"x").unwrap();
        assert_eq!(out.next(), longest);
    }
    gateway.stop();
}

/// The gateway has nothing to say to an agent over TCP, and over TLS no more than a socket's buffer holds.
#[test]
fn a_peer_that_never_reads_is_taken_from_as_any_other() {
    let (authority, folder, out) = (Authority::new("ours"), tempfile::tempdir().unwrap(), UdpSink::new());
    write(folder.path(), "server", &authority.sign("gateway.test"));
    let tls = "[[listener]]\nname = \"tls\"\nlisten = \"hep_tls:127.0.0.1:0\"\ncertificate = \"server.pem\"\n\
               key = \"server.key\"\n";
    let gateway = Gateway::start_in(folder, &[BOTH_LISTENERS, tls, &collector("out", &out.to()), ROUTE].concat());
    let mut plain = TcpStream::connect(gateway.listener("tcp")).unwrap();
    let mut agent = crate::tls::agent(gateway.listener("tls"), &authority, None);
    for number in 0..500 {
        let mine = packet(format!("{number:3000}").as_bytes());
        plain.write_all(&mine).unwrap();
        assert_eq!(out.next(), mine);
        agent.write_all(&mine).unwrap();
        assert_eq!(out.next(), mine);
    }
    // Handshakes that are never read on from: the agent's hello, and then nothing.
    let hello = {
        let mut connection = crate::tls::hello(&authority);
        let mut octets = Vec::new();
        connection.write_tls(&mut octets).unwrap();
        octets
    };
    let mut silent: Vec<TcpStream> = (0..50).map(|_| attacker(gateway.listener("tls")).unwrap()).collect();
    for connection in &mut silent {
        connection.write_all(&hello).unwrap();
    }
    plain.write_all(&packet(b"still")).unwrap();
    assert_eq!(out.next(), packet(b"still"));
    gateway.await_metric(CLOSED, &[("listener", "tls"), ("reason", "handshake-timeout")], 50);
    gateway.stop();
}

#[test]
fn greetings_that_are_not_hep_end_their_connections_at_once_however_many_come() {
    let (gateway, out) = start("");
    let mut honest = Honest::new(&gateway);
    let greetings: [&[u8]; 5] =
        [b"HELLO HFP\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0", b"SSH-2.0-x\r\n", b"HEP2"];
    for number in 0..500 {
        let mut connection = attacker(gateway.listener("tcp")).unwrap();
        connection.write_all(greetings[number % greetings.len()]).unwrap();
        // Closed, or reset if it came before all was read.
        assert!(!matches!(connection.read(&mut [0; 16]), Ok(1..)));
        if number % 100 == 0 {
            honest.is_served(&out);
        }
    }
    gateway.await_metric(CLOSED, &[("reason", "not-hep")], 500);
    // The log has said so a few times, not five hundred.
    let said = gateway.await_lines("rejected").len();
    assert!((1..=50).contains(&said), "{said}\n{}", gateway.log_text());
    gateway.stop();
}

/// The datagrams of one peer and the connection of another: what is not HEP costs only its sender.
#[test]
fn a_flood_of_garbage_over_udp_costs_no_connection_a_packet() {
    let out = UdpSink::new();
    let gateway = Gateway::start(&[BOTH_LISTENERS, &collector("out", &out.to()), ROUTE].concat());
    let udp = gateway.listener("udp");
    let mut honest = Honest::new(&gateway);
    let flood = std::thread::spawn(move || {
        let agent = udp_agent(udp);
        for number in 0..20_000_u32 {
            let _ = agent.send(&number.to_be_bytes().repeat(20));
        }
    });
    while !flood.is_finished() {
        honest.is_served(&out);
    }
    flood.join().unwrap();
    honest.is_served(&out);
    gateway.stop();
}
