//! Datagrams, up to 64 in one system call, into buffers that are used again.

use std::io;
use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::{Bytes, BytesMut};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};

/// Datagrams of one system call. Measured on the floor relay: 64 have nearly all of the gain.
const DATAGRAMS_MAX: usize = 64;
/// The first part of a datagram, which is all of it unless it was fragmented.
const SLOT_OCTETS: usize = 2_048;
/// The rest of the longest datagram.
const REST_OCTETS: usize = 65_536 - SLOT_OCTETS;
/// Octets of the first parts together.
const SLAB_OCTETS: usize = DATAGRAMS_MAX * SLOT_OCTETS;
/// A batch that fills less of its slab than this is copied together and the slab used again, so that a packet that
/// waits somewhere holds at most eight times its size.
const COPIED_BELOW_OCTETS: usize = SLAB_OCTETS / 8;
/// Slabs that were given out with their packets and may come back.
const LENT_MAX: usize = 8;

/// One datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) octets: Bytes,
    pub(super) peer: SocketAddr,
}

/// What a receive says beside the datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Datagrams that the kernel dropped since it last said so.
    pub(super) kernel_dropped: u32,
    /// The system had no more than these.
    pub(super) is_all: bool,
}

/// Receives datagrams in batches.
#[derive(Debug)]
pub(super) struct Receiver {
    /// How many datagrams to ask for: follows the traffic, as each costs the preparation of its headers.
    wanted: usize,
    slab: BytesMut,
    /// Handles of slabs whose packets may still be under way.
    lent: Vec<Bytes>,
    /// What is longer than a slot. Not touched by ordinary traffic, so it takes no memory.
    rests: Vec<u8>,
    /// Who sent the datagrams of the last system call.
    peers: Vec<Option<SocketAddr>>,
    /// The kernel's count of datagrams that it dropped, as last told.
    kernel_dropped: u32,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            wanted: 8,
            slab: BytesMut::zeroed(SLAB_OCTETS),
            lent: Vec::new(),
            rests: vec![0; DATAGRAMS_MAX * REST_OCTETS],
            peers: Vec::new(),
            kernel_dropped: 0,
        }
    }

    /// Takes what is there, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, or what the system says.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, datagrams: &mut Vec<Datagram>) -> io::Result<Arrival> {
        let arrived = self.fill(socket)?;
        let is_all = arrived.count < self.wanted;
        self.wanted = match arrived.count {
            count if count == self.wanted => (self.wanted * 2).min(DATAGRAMS_MAX),
            count if count <= self.wanted / 4 => self.wanted / 2,
            _ => self.wanted,
        };
        let lengths = arrived.lengths.get(..arrived.count).unwrap_or_default();
        self.hand_out(lengths, datagrams);
        let dropped = arrived.kernel_dropped.unwrap_or(self.kernel_dropped);
        let since = dropped.wrapping_sub(self.kernel_dropped);
        self.kernel_dropped = dropped;
        Ok(Arrival { kernel_dropped: since, is_all })
    }

    fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<Arrived> {
        // Made anew for every call: the kernel shortens the lengths in them, and nix does not restore them.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(self.wanted, Some(nix::cmsg_space!(u32)));
        let slots = self.slab.chunks_exact_mut(SLOT_OCTETS).zip(self.rests.chunks_exact_mut(REST_OCTETS));
        let mut buffers: Vec<[IoSliceMut<'_>; 2]> =
            slots.take(self.wanted).map(|(slot, rest)| [IoSliceMut::new(slot), IoSliceMut::new(rest)]).collect();
        let results = recvmmsg(socket.as_raw_fd(), &mut headers, buffers.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut arrived = Arrived::default();
        self.peers.clear();
        for result in results {
            self.peers.push(result.address.as_ref().and_then(socket_address));
            for message in result.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::RxqOvfl(dropped) = message {
                    arrived.kernel_dropped = Some(dropped);
                }
            }
            if let Some(length) = arrived.lengths.get_mut(arrived.count) {
                *length = result.bytes;
                arrived.count += 1;
            }
        }
        Ok(arrived)
    }

    /// The datagrams: slices of the slab, or of a copy if they fill little of it.
    fn hand_out(&mut self, lengths: &[usize], datagrams: &mut Vec<Datagram>) {
        let in_slots: usize = lengths.iter().map(|length| (*length).min(SLOT_OCTETS)).sum();
        let (whole, stride) = if in_slots < COPIED_BELOW_OCTETS {
            (self.copied(lengths, in_slots), None)
        } else {
            (self.lend(), Some(SLOT_OCTETS))
        };
        let mut at = 0;
        for (index, (length, peer)) in lengths.iter().zip(&self.peers).enumerate() {
            let in_slot = (*length).min(SLOT_OCTETS);
            let start = stride.map_or(at, |stride| index * stride);
            let octets = whole.slice(start..start + in_slot);
            at += in_slot;
            let octets = if *length > SLOT_OCTETS { self.joined(index, &octets, *length) } else { octets };
            datagrams.extend(peer.map(|peer| Datagram { octets, peer }));
        }
    }

    fn copied(&self, lengths: &[usize], octets: usize) -> Bytes {
        let mut copy = BytesMut::with_capacity(octets);
        for (slot, length) in self.slab.chunks_exact(SLOT_OCTETS).zip(lengths) {
            copy.extend_from_slice(slot.get(..(*length).min(SLOT_OCTETS)).unwrap_or_default());
        }
        copy.freeze()
    }

    /// Gives the slab out, and takes one that came back, or a new one.
    fn lend(&mut self) -> Bytes {
        let next = self.take_back().unwrap_or_else(|| BytesMut::zeroed(SLAB_OCTETS));
        let slab = std::mem::replace(&mut self.slab, next).freeze();
        if self.lent.len() == LENT_MAX {
            // Its packets are still under way; it goes with the last of them.
            self.lent.remove(0);
        }
        self.lent.push(slab.clone());
        slab
    }

    fn take_back(&mut self) -> Option<BytesMut> {
        let back = self.lent.iter().position(Bytes::is_unique)?;
        self.lent.swap_remove(back).try_into_mut().ok()
    }

    /// A datagram that is longer than its slot.
    fn joined(&self, index: usize, start: &[u8], length: usize) -> Bytes {
        let mut octets = BytesMut::with_capacity(length);
        octets.extend_from_slice(start);
        let rest = self.rests.chunks_exact(REST_OCTETS).nth(index).unwrap_or_default();
        octets.extend_from_slice(rest.get(..length - start.len()).unwrap_or(rest));
        octets.freeze()
    }
}

/// What one system call brought.
struct Arrived {
    count: usize,
    lengths: [usize; DATAGRAMS_MAX],
    kernel_dropped: Option<u32>,
}

impl Default for Arrived {
    fn default() -> Self {
        Self { count: 0, lengths: [0; DATAGRAMS_MAX], kernel_dropped: None }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(ipv4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*ipv4).into());
    }
    let ipv6 = SocketAddrV6::from(*address.as_sockaddr_in6()?);
    // An IPv4 peer of a dual-stack socket is shown and matched as what it is.
    Some(SocketAddr::new(ipv6.ip().to_canonical(), ipv6.port()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    struct Pair {
        sender: UdpSocket,
        socket: UdpSocket,
        receiver: Receiver,
    }

    impl Pair {
        fn new() -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.connect(socket.local_addr().unwrap()).unwrap();
            Self { sender, socket, receiver: Receiver::new() }
        }

        /// Sends these and receives until all are here.
        fn exchange(&mut self, datagrams: &[Vec<u8>]) -> Vec<Datagram> {
            for datagram in datagrams {
                self.sender.send(datagram).unwrap();
            }
            let mut received = Vec::new();
            while received.len() < datagrams.len() {
                match self.receiver.receive(self.socket.as_fd(), &mut received) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            received
        }
    }

    fn datagram(seed: usize, octets: usize) -> Vec<u8> {
        (0..octets).map(|index| u8::try_from((index * 7 + seed) % 251).unwrap()).collect()
    }

    #[test]
    fn datagrams_of_every_length_arrive_as_they_were_sent() {
        let mut pair = Pair::new();
        let lengths = [0, 1, 2_047, 2_048, 2_049, 9_000, 65_507, 738];
        let sent: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(seed, octets)| datagram(seed, *octets)).collect();
        // Twice, so that the slab and the rests were used before.
        for _ in 0..2 {
            for datagram in &sent {
                let received = pair.exchange(std::slice::from_ref(datagram));
                assert_eq!(received[0].octets, datagram);
                assert_eq!(received[0].peer, pair.sender.local_addr().unwrap());
            }
        }
    }

    /// Sends octets in one piece, which the system cuts into datagrams of that length.
    fn send_cut(sender: &UdpSocket, octets: &[u8], segment: u16) {
        let (parts, asks) = ([io::IoSlice::new(octets)], [ControlMessage::UdpGsoSegments(&segment)]);
        sendmsg::<()>(sender.as_raw_fd(), &parts, &asks, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn datagrams_that_are_sent_in_one_piece_are_cut_into_what_was_meant() {
        let mut pair = Pair::new();
        for (octets, segment, datagrams) in [(7_300, 700, 11), (1_400, 700, 2), (40_000, 1_000, 40), (701, 700, 2)] {
            let sent = datagram(octets, octets);
            send_cut(&pair.sender, &sent, segment);
            let mut received = Vec::new();
            while pair.receiver.receive(pair.socket.as_fd(), &mut received).is_ok() {}
            assert_eq!(received.len(), datagrams, "{octets} octets");
            let cut: Vec<&[u8]> = sent.chunks(usize::from(segment)).collect();
            assert!(received.iter().map(|datagram| &datagram.octets[..]).eq(cut), "{octets} octets");
        }
    }

    #[test]
    fn packets_that_are_still_held_are_not_overwritten() {
        let mut pair = Pair::new();
        let mut held = Vec::new();
        for round in 0..40 {
            let sent: Vec<Vec<u8>> = (0..64).map(|index| datagram(round * 64 + index, 1_400)).collect();
            held.push((sent.clone(), pair.exchange(&sent)));
        }
        for (sent, received) in held {
            let received: Vec<&Bytes> = received.iter().map(|datagram| &datagram.octets).collect();
            assert!(sent.iter().zip(received).all(|(sent, received)| sent == received));
        }
    }

    #[test]
    fn slabs_come_back_when_their_packets_are_gone() {
        let mut pair = Pair::new();
        for round in 0..20 {
            let sent: Vec<Vec<u8>> = (0..64).map(|index| datagram(round + index, 1_400)).collect();
            drop(pair.exchange(&sent));
        }
        assert!(pair.receiver.lent.len() <= 2, "{} slabs were lent", pair.receiver.lent.len());
    }

    /// To ask a system again that had fewer than it was asked for is to ask for nothing, mostly; it is not asked then.
    #[test]
    fn all_that_was_there_was_taken_if_there_was_room_for_more() {
        let mut pair = Pair::new();
        let mut received = Vec::new();
        for index in 0..12 {
            pair.sender.send(&datagram(index, 100)).unwrap();
        }
        // It asks for eight at first.
        let first = pair.receiver.receive(pair.socket.as_fd(), &mut received).unwrap();
        assert_eq!((first.is_all, received.len()), (false, 8));
        let second = pair.receiver.receive(pair.socket.as_fd(), &mut received).unwrap();
        assert_eq!((second.is_all, received.len()), (true, 12));
        let nothing = pair.receiver.receive(pair.socket.as_fd(), &mut received).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_lone_packet_holds_no_slab() {
        let mut pair = Pair::new();
        let received = pair.exchange(&[datagram(1, 700)]);
        assert!(pair.receiver.lent.is_empty());
        assert_eq!(received[0].octets.len(), 700);
    }

    #[test]
    fn what_the_kernel_dropped_is_told() {
        let mut pair = Pair::new();
        let socket = socket2::SockRef::from(&pair.socket);
        socket.set_recv_buffer_size(4_096).unwrap();
        nix::sys::socket::setsockopt(&pair.socket, nix::sys::socket::sockopt::RxqOvfl, &1).unwrap();
        for index in 0..100 {
            pair.sender.send(&datagram(index, 1_000)).unwrap();
        }
        // Five to a piece: each counts.
        for index in 0..20 {
            send_cut(&pair.sender, &datagram(index, 5_000), 1_000);
        }
        let mut received = Vec::new();
        let mut dropped = 0;
        while let Ok(arrival) = pair.receiver.receive(pair.socket.as_fd(), &mut received) {
            dropped += arrival.kernel_dropped;
        }
        assert!(!received.is_empty() && received.len() < 200);
        // The count comes with the next datagram that fits.
        pair.sender.send(b"one more").unwrap();
        dropped += pair.receiver.receive(pair.socket.as_fd(), &mut received).unwrap().kernel_dropped;
        assert_eq!(usize::try_from(dropped).unwrap() + received.len(), 201);
    }
}
