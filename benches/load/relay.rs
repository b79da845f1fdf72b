//! The floor: octets from one socket to the next, not looked at. What no gateway can go below on this system.

use std::io::{BufRead, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use super::traffic::{BATCH, Transport, connected, large_buffer};

/// Octets of one read of a stream.
const READ_OCTETS: usize = 65_536;

/// What came: datagrams, or octets of a stream. Counted only if it goes nowhere.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Relays until it is killed. Its first line on the standard output is the port it listens at; then it answers each line
/// with what it has counted.
pub(crate) fn run(from: Transport, to: Option<Transport>, port: u16, slot_octets: usize) {
    let listen = |listening: u16| {
        println!("{listening}");
        std::thread::spawn(|| {
            for _ in std::io::stdin().lock().lines() {
                println!("{}", TAKEN.load(Ordering::Relaxed));
            }
        });
    };
    match from {
        Transport::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            large_buffer(&socket);
            listen(socket.local_addr().unwrap().port());
            match to {
                None => receive(&socket, slot_octets, |datagrams| count(datagrams.len())),
                Some(Transport::Udp) => udp_to_udp(&socket, &connected(port), slot_octets),
                Some(Transport::Tcp) => {
                    udp_to_tcp(&socket, TcpStream::connect(("127.0.0.1", port)).unwrap(), slot_octets);
                }
            }
        }
        Transport::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listen(listener.local_addr().unwrap().port());
            match to {
                None => read(listener.accept().unwrap().0, |octets| count(octets.len())),
                Some(Transport::Tcp) => {
                    let mut to = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    read(listener.accept().unwrap().0, |octets| to.write_all(octets).unwrap());
                }
                Some(Transport::Udp) => panic!("no such path"),
            }
        }
    }
}

fn count(taken: usize) {
    TAKEN.fetch_add(taken, Ordering::Relaxed);
}

fn udp_to_udp(from: &UdpSocket, to: &UdpSocket, slot_octets: usize) {
    receive(from, slot_octets, |datagrams| {
        let slices: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|octets| [IoSlice::new(octets)]).collect();
        let mut sent = 0;
        while sent < slices.len() {
            let mut headers = MultiHeaders::<()>::preallocate(slices.len() - sent, None);
            let none = vec![None; slices.len() - sent];
            let results = sendmmsg(to.as_raw_fd(), &mut headers, &slices[sent..], none, [], MsgFlags::empty()).unwrap();
            sent += results.count();
        }
    });
}

fn udp_to_tcp(from: &UdpSocket, mut to: TcpStream, slot_octets: usize) {
    receive(from, slot_octets, |datagrams| {
        let mut slices: Vec<IoSlice<'_>> = datagrams.iter().map(|octets| IoSlice::new(octets)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let written = to.write_vectored(left).unwrap();
            IoSlice::advance_slices(&mut left, written);
        }
    });
}

/// Hands over what one read brings, until the stream ends.
fn read(mut from: TcpStream, mut take: impl FnMut(&[u8])) {
    let mut octets = vec![0; READ_OCTETS];
    loop {
        match from.read(&mut octets).unwrap() {
            0 => return,
            length => take(&octets[..length]),
        }
    }
}

/// Hands over what one system call brings, again and again.
fn receive(socket: &UdpSocket, slot_octets: usize, mut take: impl FnMut(&[&[u8]])) {
    let mut slab = vec![0; BATCH * slot_octets];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    loop {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        {
            let mut buffers: Vec<[IoSliceMut<'_>; 1]> =
                slab.chunks_exact_mut(slot_octets).map(|slot| [IoSliceMut::new(slot)]).collect();
            // Blocks for the first, takes the others that are there.
            let flags = MsgFlags::MSG_WAITFORONE;
            for result in recvmmsg(socket.as_raw_fd(), &mut headers, buffers.iter_mut(), flags, None).unwrap() {
                lengths[count] = result.bytes;
                count += 1;
            }
        }
        let slots = slab.chunks_exact(slot_octets).zip(&lengths[..count]);
        let datagrams: Vec<&[u8]> = slots.map(|(slot, length)| &slot[..*length]).collect();
        take(&datagrams);
    }
}
