//! The floor: octets from one socket to the next, not looked at. What no gateway can go below on this system.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

use super::traffic::{BATCH, Transport, connected, large_buffer};

/// Octets of a slot for one datagram, as in the gateway.
const SLOT_OCTETS: usize = 2_048;
/// Octets of one read of a stream.
const READ_OCTETS: usize = 65_536;

/// Relays until it is killed. Its first line on the standard output is the port it listens at.
pub(crate) fn run(from: Transport, to: Transport, port: u16) {
    match from {
        Transport::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            large_buffer(&socket);
            println!("{}", socket.local_addr().unwrap().port());
            match to {
                Transport::Udp => udp_to_udp(&socket, &connected(port)),
                Transport::Tcp => udp_to_tcp(&socket, TcpStream::connect(("127.0.0.1", port)).unwrap()),
            }
        }
        Transport::Tcp => {
            assert_eq!(to, Transport::Tcp, "no such path");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            println!("{}", listener.local_addr().unwrap().port());
            let to = TcpStream::connect(("127.0.0.1", port)).unwrap();
            tcp_to_tcp(listener.accept().unwrap().0, to);
        }
    }
}

fn udp_to_udp(from: &UdpSocket, to: &UdpSocket) {
    receive(from, |datagrams| {
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

fn udp_to_tcp(from: &UdpSocket, mut to: TcpStream) {
    let mut joined = Vec::with_capacity(BATCH * SLOT_OCTETS);
    receive(from, |datagrams| {
        joined.clear();
        for octets in datagrams {
            joined.extend_from_slice(octets);
        }
        to.write_all(&joined).unwrap();
    });
}

fn tcp_to_tcp(mut from: TcpStream, mut to: TcpStream) {
    let mut octets = vec![0; READ_OCTETS];
    loop {
        match from.read(&mut octets).unwrap() {
            0 => return,
            length => to.write_all(&octets[..length]).unwrap(),
        }
    }
}

/// Hands over what one system call brings, again and again.
fn receive(socket: &UdpSocket, mut take: impl FnMut(&[&[u8]])) {
    let mut slab = vec![0; BATCH * SLOT_OCTETS];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    loop {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        {
            let mut buffers: Vec<[IoSliceMut<'_>; 1]> =
                slab.chunks_exact_mut(SLOT_OCTETS).map(|slot| [IoSliceMut::new(slot)]).collect();
            // Blocks for the first, takes the others that are there.
            let flags = MsgFlags::MSG_WAITFORONE;
            for result in recvmmsg(socket.as_raw_fd(), &mut headers, buffers.iter_mut(), flags, None).unwrap() {
                lengths[count] = result.bytes;
                count += 1;
            }
        }
        let slots = slab.chunks_exact(SLOT_OCTETS).zip(&lengths[..count]);
        let datagrams: Vec<&[u8]> = slots.map(|(slot, length)| &slot[..*length]).collect();
        take(&datagrams);
    }
}
