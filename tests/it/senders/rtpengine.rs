//! rtpengine, which sends the RTCP that it sees as JSON.

use std::fmt::Write;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use hepgate::wire::{ChunkId, PayloadType};
use serde_json::Value;

use super::Rig;
use super::program::{Program, free_port};
use crate::support::PATIENCE;

const REPORTS: usize = 3;
const SSRC: u32 = 0x1234_5678;

/// rtpengine's control protocol: a cookie, and a bencoded dictionary with its keys in order.
fn ask(control: &UdpSocket, cookie: u32, entries: &[(&str, &str)]) -> String {
    let mut text = format!("{cookie} d");
    for (key, value) in entries {
        write!(text, "{}:{key}{}:{value}", key.len(), value.len()).unwrap();
    }
    text.push('e');
    control.send(text.as_bytes()).unwrap();
    let mut answer = vec![0; 65_536];
    let length = control.recv(&mut answer).expect("rtpengine does not answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn await_rtpengine(control: &UdpSocket, rtpengine: &mut Program) {
    control.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    let pong = |control: &UdpSocket| {
        control.send(b"0 d7:command4:pinge").ok()?;
        control.recv(&mut [0; 64]).ok()
    };
    while pong(control).is_none() {
        rtpengine.assert_running();
        assert!(start.elapsed() < PATIENCE, "rtpengine is never ready\n{}", rtpengine.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Answers to the pings before.
    while control.recv(&mut [0; 64]).is_ok() {}
    control.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn sdp(rtp: u16, rtcp: u16) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {rtp} RTP/AVP 0\r\n\
         a=rtcp:{rtcp}\r\n"
    )
}

fn number_after(text: &str, what: &str) -> u16 {
    let rest = text.split(what).nth(1).unwrap_or_else(|| panic!("no {what} in {text}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// A sender report with one source description, as RFC 3550 has them.
fn rtcp() -> Vec<u8> {
    let mut octets = vec![0x80, 200, 0, 6];
    octets.extend_from_slice(&SSRC.to_be_bytes());
    for word in [1_u32, 2, 3, 1, 160] {
        octets.extend_from_slice(&word.to_be_bytes());
    }
    octets.extend_from_slice(&[0x81, 202, 0, 2]);
    octets.extend_from_slice(&SSRC.to_be_bytes());
    octets.extend_from_slice(&[1, 1, b'a', 0]);
    octets
}

fn reports(protocol: &str) {
    let rig = Rig::start();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let to = if protocol == "tcp" { rig.tap.tcp } else { rig.tap.udp };
    let mut command = Command::new("rtpengine");
    // Neither the kernel's module nor the system's own settings.
    command.args(["-f", "-E", "--table=-1", "--config-file=none", "-i", "127.0.0.1", "-m", "30000", "-M", "34000"]);
    command.args([format!("--listen-ng=127.0.0.1:{port}"), format!("--homer={to}"), "--homer-id=2002".to_owned()]);
    command.arg(format!("--homer-protocol={protocol}"));
    let mut rtpengine = Program::start(&mut command, folder.path());
    let control = UdpSocket::bind("127.0.0.1:0").unwrap();
    control.connect(("127.0.0.1", port)).unwrap();
    await_rtpengine(&control, &mut rtpengine);
    let (media, media_control) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let ours = sdp(media.local_addr().unwrap().port(), media_control.local_addr().unwrap().port());
    let call = ("call-id", "call-of-the-test");
    ask(&control, 1, &[call, ("command", "offer"), ("from-tag", "f"), ("sdp", &ours)]);
    let answer = ask(&control, 2, &[call, ("command", "answer"), ("from-tag", "f"), ("sdp", &ours), ("to-tag", "t")]);
    let to_control = ("127.0.0.1", number_after(&answer, "a=rtcp:"));
    for _ in 0..REPORTS {
        media_control.send_to(&rtcp(), to_control).unwrap();
        // It sends each on before it takes the next: a moment, or the third may be refused as a flood.
        std::thread::sleep(Duration::from_millis(20));
    }
    let arrived = rig.finish(REPORTS);
    for packet in &arrived.packets {
        assert_eq!(packet.head().payload_type, PayloadType::RTCP_JSON);
        assert_eq!(packet.head().agent_id, 2_002);
        assert_eq!(packet.head().ip_protocol, 17);
        let correlation = packet.chunks().find(|chunk| chunk.id == ChunkId::CORRELATION_ID).unwrap();
        assert_eq!(correlation.body, b"call-of-the-test");
        let report: Value = serde_json::from_slice(packet.payload()).unwrap();
        assert_eq!(report["ssrc"], SSRC, "{report}");
    }
    rtpengine.assert_running();
}

#[test]
#[ignore = "needs rtpengine; tests/run runs it"]
fn rtpengine_sends_rtcp_over_udp() {
    reports("udp");
}

#[test]
#[ignore = "needs rtpengine; tests/run runs it"]
fn rtpengine_sends_rtcp_over_tcp() {
    reports("tcp");
}
