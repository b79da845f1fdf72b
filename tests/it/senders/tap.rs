//! Stands between a sender and the gateway and writes down what passes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::peers::next_packet;

pub(super) struct Tap {
    pub(super) udp: SocketAddr,
    pub(super) tcp: SocketAddr,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
    streams: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Its threads end with the test's process.
    pub(super) fn start(udp_to: SocketAddr, tcp_to: SocketAddr) -> Self {
        let datagrams = Arc::new(Mutex::new(Vec::new()));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = socket.local_addr().unwrap();
        let theirs = Arc::clone(&datagrams);
        thread::spawn(move || {
            let mut octets = vec![0; 65_536];
            while let Ok(length) = socket.recv(&mut octets) {
                theirs.lock().unwrap().push(octets[..length].to_vec());
                socket.send_to(&octets[..length], udp_to).unwrap();
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = listener.local_addr().unwrap();
        let theirs = Arc::clone(&streams);
        thread::spawn(move || {
            // One after the other, so that the recording is one stream of whole packets.
            for stream in listener.incoming() {
                copy(&mut stream.unwrap(), &mut TcpStream::connect(tcp_to).unwrap(), &theirs);
            }
        });
        Self { udp, tcp, datagrams, streams }
    }

    /// What was sent: datagrams, then the packets of streams.
    pub(super) fn packets(&self) -> Vec<Vec<u8>> {
        let mut packets = self.datagrams.lock().unwrap().clone();
        let stream = self.streams.lock().unwrap();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            packets.push(next_packet(&mut rest));
        }
        packets
    }
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, record: &Mutex<Vec<u8>>) {
    let mut octets = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut octets) {
        record.lock().unwrap().extend_from_slice(&octets[..length]);
        if to.write_all(&octets[..length]).is_err() {
            return;
        }
    }
}
