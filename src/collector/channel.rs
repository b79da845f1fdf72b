//! What lies between the packets and the octets of a connection: nothing, or TLS. No socket in it.

use std::io::{self, IoSlice};

use super::postponed::{Postponed, Written};
use crate::tls::{ClientTunnel, TunnelError};

/// Octets of one read of what a collector says.
pub(super) const READ_OCTETS: usize = 4 << 10;

/// The way of packets into a stream.
#[derive(Debug)]
pub(super) enum Channel {
    Plain,
    Tls(Box<ClientTunnel>),
}

/// How far a write came.
#[derive(Debug)]
pub(super) struct Progress {
    /// Packets that are in the stream, wholly.
    pub(super) sent: Written,
    /// Whether the system took anything.
    pub(super) moved: bool,
    /// Why it ended, if not because all is written or the system takes no more.
    pub(super) error: Option<io::Error>,
}

impl Channel {
    /// Writes through `write` until all is written, or it would block.
    pub(super) fn write(
        &mut self,
        postponed: &mut Postponed,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Progress {
        let mut progress = Progress { sent: Written::default(), moved: false, error: None };
        while self.has_something(postponed) {
            match self.write_once(postponed, &mut write) {
                Ok((octets, sent)) => {
                    progress.moved |= octets > 0;
                    progress.sent.packets += sent.packets;
                    progress.sent.octets += sent.octets;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    progress.error = Some(error);
                    break;
                }
            }
        }
        progress
    }

    /// Whether anything waits to be written.
    pub(super) fn has_something(&self, postponed: &Postponed) -> bool {
        !postponed.is_empty() || matches!(self, Self::Tls(tunnel) if !tunnel.outgoing().is_empty())
    }

    /// One call of `write`. Gives the octets that it took and the packets that are whole with them.
    fn write_once(
        &mut self,
        postponed: &mut Postponed,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<(usize, Written)> {
        match self {
            Self::Plain => {
                let octets = write(&postponed.parts())?;
                Ok((octets, postponed.advance(octets)))
            }
            Self::Tls(tunnel) => {
                // Packets stay postponed until the records that they are in are written. So nothing is sealed twice
                // only because nothing is sealed while something is outgoing.
                if tunnel.outgoing().is_empty() {
                    tunnel.seal(&postponed.parts()).map_err(broken)?;
                }
                let octets = write(&[IoSlice::new(tunnel.outgoing())])?;
                Ok((octets, postponed.advance(tunnel.advance(octets))))
            }
        }
    }

    /// Takes what the collector sent. Collectors have nothing to say: it is thrown away.
    ///
    /// # Errors
    /// It is not TLS, or says that the connection is over.
    pub(super) fn take(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::Tls(tunnel) => tunnel.take(octets).map_err(broken),
        }
    }

    /// Nothing follows.
    pub(super) fn say_goodbye(&mut self) {
        if let Self::Tls(tunnel) = self {
            tunnel.close();
        }
    }

    /// What TLS still has to say, when no packet follows.
    pub(super) fn last_words(&self) -> &[u8] {
        match self {
            Self::Plain => &[],
            Self::Tls(tunnel) => tunnel.outgoing(),
        }
    }
}

pub(super) fn broken(error: TunnelError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Read;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::config::{ClientTls, TlsVersion};
    use crate::tls::Connector;

    /// Both sides of TLS, as far as they do not belong to one connection.
    struct Sides {
        connector: Connector,
        config: Arc<ServerConfig>,
    }

    impl Sides {
        fn new() -> Self {
            let made = rcgen::generate_simple_self_signed(vec!["homer.test".to_owned()]).unwrap();
            let ca = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(ca.path(), made.cert.pem()).unwrap();
            let connector = Connector::new(ClientTls {
                ca: Some(ca.path().to_owned()),
                own: None,
                server_name: "homer.test".to_owned(),
                min_version: TlsVersion::Tls12,
                handshake_timeout: Duration::from_secs(5),
            });
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
            Self { connector: connector.unwrap(), config: Arc::new(config) }
        }

        fn connect(&self, tls: bool) -> (Channel, Receiver) {
            if !tls {
                return (Channel::Plain, Receiver { tls: None, said: Vec::new() });
            }
            let (mut tunnel, _) = self.connector.connect(Instant::now()).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&self.config)).unwrap();
            while tunnel.is_handshaking() || server.is_handshaking() || !tunnel.outgoing().is_empty() {
                let octets = tunnel.outgoing().to_vec();
                tunnel.advance(octets.len());
                server.read_tls(&mut &octets[..]).unwrap();
                server.process_new_packets().unwrap();
                let mut answer = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut answer).unwrap();
                }
                tunnel.take(&answer).unwrap();
            }
            (Channel::Tls(Box::new(tunnel)), Receiver { tls: Some(server), said: Vec::new() })
        }
    }

    /// The collector's end of one connection.
    struct Receiver {
        tls: Option<ServerConnection>,
        said: Vec<u8>,
    }

    impl Receiver {
        fn take(&mut self, mut octets: &[u8]) {
            let Some(server) = &mut self.tls else { return self.said.extend_from_slice(octets) };
            while !octets.is_empty() {
                server.read_tls(&mut octets).unwrap();
                let state = server.process_new_packets().unwrap();
                let mut said = vec![0; state.plaintext_bytes_to_read()];
                server.reader().read_exact(&mut said).unwrap();
                self.said.extend(said);
            }
        }

        /// The packets that came, each as its number and length say.
        fn packets(&self) -> Vec<u32> {
            let (mut rest, mut packets) = (&self.said[..], Vec::new());
            while let Some((head, behind)) = rest.split_at_checked(HEAD) {
                let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
                let Some((_, behind)) = behind.split_at_checked(usize::try_from(word(4)).unwrap()) else { break };
                packets.push(word(0));
                rest = behind;
            }
            packets
        }
    }

    const HEAD: usize = 8;

    fn packet(number: u32, octets: usize) -> Vec<u8> {
        let length = u32::try_from(octets).unwrap();
        [&number.to_be_bytes()[..], &length.to_be_bytes(), &vec![7; octets]].concat()
    }

    /// What the system does with a write.
    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Takes(usize),
        IsFull,
        Breaks,
    }

    fn answers() -> impl Strategy<Value = Vec<Answer>> {
        let answer = prop_oneof![
            4 => (1..40_000_usize).prop_map(Answer::Takes),
            2 => (1..40_usize).prop_map(Answer::Takes),
            2 => Just(Answer::IsFull),
            1 => Just(Answer::Breaks),
        ];
        prop::collection::vec(answer, 0..40)
    }

    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![4 => 0..600_usize, 1 => 0..66_000_usize], 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Whatever portions the system takes and wherever connections break: at any time the collector has exactly the
        /// packets that are called sent, in order; only one that was half written is lost with a connection.
        #[test]
        fn what_is_called_sent_is_what_the_collector_has(tls: bool, lengths in lengths(), answers in answers()) {
            let sides = Sides::new();
            let (mut channel, mut receiver) = sides.connect(tls);
            let mut postponed = Postponed::new(1_000);
            let mut waiting = VecDeque::new();
            for (number, octets) in (0..).zip(&lengths) {
                postponed.push(packet(number, *octets).into(), 1, Instant::now());
                waiting.push_back(number);
            }
            let mut sent = Vec::new();
            let mut answers = answers.into_iter();
            while channel.has_something(&postponed) {
                let progress = channel.write(&mut postponed, |parts| match answers.next() {
                    Some(Answer::IsFull) => Err(io::ErrorKind::WouldBlock.into()),
                    Some(Answer::Breaks) => Err(io::ErrorKind::ConnectionReset.into()),
                    taken => {
                        let most = if let Some(Answer::Takes(most)) = taken { most } else { usize::MAX };
                        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).take(most).collect();
                        receiver.take(&all);
                        Ok(all.len())
                    }
                });
                sent.extend(waiting.drain(..progress.sent.packets));
                prop_assert_eq!(&receiver.packets(), &sent);
                let octets: usize = waiting.iter().map(|number| lengths[*number as usize] + HEAD).sum();
                prop_assert_eq!(postponed.octets_of_first(usize::MAX), octets);
                if progress.error.is_some() {
                    // The first packet is lost if the collector has some of it, in whole records.
                    let known: usize = sent.iter().map(|number| lengths[*number as usize] + HEAD).sum();
                    let half = usize::from(receiver.said.len() > known);
                    prop_assert_eq!(postponed.forget_half_written(), half);
                    waiting.drain(..half);
                    (channel, receiver) = sides.connect(tls);
                    sent.clear();
                }
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
