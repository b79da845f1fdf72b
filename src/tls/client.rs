//! The collector's side: who we say that we are, whom we trust, and the packets of one connection.

use std::collections::VecDeque;
use std::io::{IoSlice, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::files::{self, FileError, Trouble};
use super::reload::{Reloaded, Reloading};
use super::tunnel::{TunnelError, TunnelResult, pour};
use super::{certified, versions};
use crate::config::ClientTls;

/// Octets of packets in one record: the most that TLS has.
const RECORD_OCTETS: usize = 16 << 10;

/// Records that are made before any of them is written.
const RECORDS_MAX: usize = 4;

/// Makes tunnels for the connections to a collector, on all workers, with the certificates that its files hold now.
#[derive(Debug)]
pub struct Connector {
    settings: ClientTls,
    name: ServerName<'static>,
    config: Reloading<ClientConfig>,
}

impl Connector {
    /// With what the files hold.
    ///
    /// # Errors
    /// [`FileError`]: what is wrong with which of them.
    pub fn new(settings: ClientTls) -> Result<Self, FileError> {
        let own = settings.own.iter().flat_map(|own| [&own.certificate, &own.key]);
        let files = settings.ca.iter().chain(own).cloned().collect();
        let config = Reloading::new(files, |now| load(&settings, now))?;
        let name = ServerName::try_from(settings.server_name.clone())
            .map_err(|reason| files::error(Path::new(&settings.server_name), Trouble::Refused(reason.to_string())))?;
        Ok(Self { settings, name, config })
    }

    /// How long a handshake may take.
    #[must_use]
    pub const fn handshake_timeout(&self) -> Duration {
        self.settings.handshake_timeout
    }

    /// A tunnel for a new connection, and whether the files were changed, as in [`super::Acceptor::accept`].
    ///
    /// # Errors
    /// [`TunnelError`].
    pub fn connect(&self, now: Instant) -> Result<(ClientTunnel, Reloaded), TunnelError> {
        let (config, reloaded) = self.config.get(now, |now| load(&self.settings, now));
        let connection = ClientConnection::new(config, self.name.clone()).or_refuse()?;
        let mut tunnel = ClientTunnel { connection, octets: Vec::new(), written: 0, records: VecDeque::new() };
        pour(&mut tunnel.connection, &mut tunnel.octets);
        Ok((tunnel, reloaded))
    }
}

fn load(settings: &ClientTls, now: SystemTime) -> Result<ClientConfig, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &settings.ca {
        Some(ca) => files::roots(ca)?,
        None => system_roots(),
    };
    let refused = |path: &Path, reason: String| files::error(path, Trouble::Refused(reason));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|reason| refused(Path::new("TLS"), reason.to_string()))?
        .with_root_certificates(roots);
    let Some(own) = &settings.own else { return Ok(builder.with_no_client_auth()) };
    let certified = SingleCertAndKey::from(certified(own, now)?);
    Ok(builder.with_client_cert_resolver(Arc::new(certified)))
}

/// Those that the system trusts. A system without any trusts nobody: then no handshake succeeds, and says so.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The TLS of one connection to a collector. Packets go in, octets for the connection come out; both sides say how far
/// they are, so that what is lost with a connection is known to the packet.
#[derive(Debug)]
pub struct ClientTunnel {
    connection: ClientConnection,
    /// What goes to the collector, from its first octet that is not written wholly on.
    octets: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// Where the records that hold packets end in `octets`, and how much of the packets is in each.
    records: VecDeque<Record>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    end: usize,
    of_packets: usize,
}

impl ClientTunnel {
    /// Takes octets that the collector sent. What it says in them is thrown away, as collectors have nothing to say;
    /// what TLS answers is in [`ClientTunnel::outgoing`] then, also after an error.
    ///
    /// # Errors
    /// [`TunnelError`]: the connection cannot go on.
    pub fn take(&mut self, mut octets: &[u8]) -> Result<(), TunnelError> {
        let result = self.take_all(&mut octets);
        pour(&mut self.connection, &mut self.octets);
        result
    }

    fn take_all(&mut self, octets: &mut &[u8]) -> Result<(), TunnelError> {
        let mut said = [0; 1_024];
        while !octets.is_empty() {
            let taken = self.connection.read_tls(octets).or_refuse()?;
            let state = self.connection.process_new_packets().or_refuse()?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let read = std::io::Read::read(&mut self.connection.reader(), &mut said).or_refuse()?;
                if read == 0 {
                    break;
                }
                left = left.saturating_sub(read);
            }
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Whether no packet can be sealed yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What to write next.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.octets.get(self.written..).unwrap_or_default()
    }

    /// So many octets were written. Gives how many octets of packets are in the records that are whole with them: of a
    /// record that is not, a receiver can read nothing.
    pub fn advance(&mut self, octets: usize) -> usize {
        self.written += octets;
        let mut of_packets = 0;
        while let Some(record) = self.records.front().filter(|record| record.end <= self.written) {
            of_packets += record.of_packets;
            self.records.pop_front();
        }
        if self.outgoing().is_empty() {
            self.octets.clear();
            self.written = 0;
        }
        of_packets
    }

    /// Puts packets, or as much of them as a few records hold, behind what is outgoing. Only for parts that were not
    /// sealed before: what is outgoing must have been written.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub fn seal(&mut self, parts: &[IoSlice<'_>]) -> Result<(), TunnelError> {
        let mut parts = parts.iter().map(|part| &**part);
        let mut rest = parts.next().unwrap_or_default();
        for _ in 0..RECORDS_MAX {
            let mut of_packets = 0;
            let mut slices = Vec::new();
            while of_packets < RECORD_OCTETS {
                if rest.is_empty() {
                    match parts.next() {
                        Some(part) => rest = part,
                        None => break,
                    }
                }
                let (now, later) = rest.split_at(rest.len().min(RECORD_OCTETS - of_packets));
                of_packets += now.len();
                slices.push(IoSlice::new(now));
                rest = later;
            }
            if of_packets == 0 {
                break;
            }
            let sealed = self.connection.writer().write_vectored(&slices).or_refuse()?;
            pour(&mut self.connection, &mut self.octets);
            self.records.push_back(Record { end: self.octets.len(), of_packets: sealed });
            if sealed < of_packets {
                break;
            }
        }
        Ok(())
    }

    /// Says goodbye: nothing follows.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
        pour(&mut self.connection, &mut self.octets);
    }
}
