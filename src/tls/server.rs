//! The listener's side: who we say that we are, whom we let in, and the octets of one connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::files::{self, FileError, Trouble};
use super::reload::{Reloaded, Reloading};
use super::tunnel::{TunnelError, TunnelResult, pour};
use super::{certified, versions};
use crate::config::{ClientCertificates, ServerTls};

/// Makes tunnels for the connections of a listener, on all workers, with the certificates that its files hold now. A
/// connection keeps those with which it began.
#[derive(Debug)]
pub struct Acceptor {
    settings: ServerTls,
    config: Reloading<ServerConfig>,
}

impl Acceptor {
    /// With what the files hold.
    ///
    /// # Errors
    /// [`FileError`]: what is wrong with which of them.
    pub fn new(settings: ServerTls) -> Result<Self, FileError> {
        let own = std::iter::once(&settings.own).chain(settings.named.values());
        let pairs = own.flat_map(|own| [&own.certificate, &own.key]);
        let files = pairs.chain(&settings.client_ca).cloned().collect();
        let config = Reloading::new(files, |now| load(&settings, now))?;
        Ok(Self { settings, config })
    }

    /// How long a handshake may take.
    #[must_use]
    pub const fn handshake_timeout(&self) -> Duration {
        self.settings.handshake_timeout
    }

    /// A tunnel for a new connection. If the files were changed, their content is taken from now on; what is wrong with
    /// it is told, and the old one stays.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub fn accept(&self, now: Instant) -> Result<(ServerTunnel, Reloaded), TunnelError> {
        let (config, reloaded) = self.config.get(now, |now| load(&self.settings, now));
        Ok((ServerTunnel { connection: ServerConnection::new(config).or_refuse()? }, reloaded))
    }
}

fn load(settings: &ServerTls, now: SystemTime) -> Result<ServerConfig, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut named = BTreeMap::new();
    for (name, own) in &settings.named {
        named.insert(name.clone(), certified(own, now)?);
    }
    let certificates = Certificates { named, other: certified(&settings.own, now)? };
    let refused = |path: &Path, reason: String| files::error(path, Trouble::Refused(reason));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|reason| refused(&settings.own.certificate, reason.to_string()))?;
    let builder = match (&settings.client_ca, settings.client_certificates) {
        (Some(ca), wanted @ (ClientCertificates::Optional | ClientCertificates::Required)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(files::roots(ca)?), provider);
            let verifier = match wanted {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|reason| refused(ca, reason.to_string()))?)
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(builder.with_cert_resolver(Arc::new(certificates)))
}

/// Those that we show: the one for the name that the agent asks for, or the other.
#[derive(Debug)]
struct Certificates {
    named: BTreeMap<String, Arc<CertifiedKey>>,
    other: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(Arc::clone(name.and_then(|name| self.named.get(&name)).unwrap_or(&self.other)))
    }
}

/// The TLS of one connection.
#[derive(Debug)]
pub struct ServerTunnel {
    connection: ServerConnection,
}

impl ServerTunnel {
    /// Takes octets that came and adds what the agent said in them to `said`: never more octets than came. What has to
    /// go back is in [`ServerTunnel::answer`] then, also after an error: the agent should hear why.
    ///
    /// # Errors
    /// [`TunnelError`]: the connection cannot go on.
    pub fn take(&mut self, mut octets: &[u8], said: &mut Vec<u8>) -> Result<(), TunnelError> {
        while !octets.is_empty() {
            let taken = self.connection.read_tls(&mut octets).or_refuse()?;
            let state = self.connection.process_new_packets().or_refuse()?;
            let new = state.plaintext_bytes_to_read();
            let had = said.len();
            said.resize(had + new, 0);
            let target = said.get_mut(had..).unwrap_or_default();
            std::io::Read::read_exact(&mut self.connection.reader(), target).or_refuse()?;
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What has to be sent to the agent now.
    pub fn answer(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        pour(&mut self.connection, &mut octets);
        octets
    }

    /// The names in the certificate that the agent has shown, in lower case: those of its hosts, or, if it has none, the
    /// common name of its subject. Empty if it has shown none.
    #[must_use]
    pub fn client_names(&self) -> Vec<String> {
        let shown = self.connection.peer_certificates().and_then(|chain| chain.first());
        shown.map(|certificate| files::names(certificate)).unwrap_or_default()
    }

    /// Whether the agent is not let in yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }
}
