//! The listener's side: who we say that we are, whom we let in, and the octets of one connection.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::files::{self, FileError, Trouble};
use crate::config::{ClientCertificates, ServerTls, TlsVersion};

/// Time between two looks at whether the files have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Makes tunnels for the connections of a listener, on all workers, with the certificates that its files hold now. A
/// connection keeps those with which it began.
#[derive(Debug)]
pub struct Acceptor {
    settings: ServerTls,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// When each of the files was written last.
    written: Vec<Option<SystemTime>>,
    look_again_at: Instant,
}

/// The certificates were changed, and what came of it.
pub type Reloaded = Option<Result<(), FileError>>;

impl Acceptor {
    /// With what the files hold.
    ///
    /// # Errors
    /// [`FileError`]: what is wrong with which of them.
    pub fn new(settings: ServerTls) -> Result<Self, FileError> {
        let written = written(&settings);
        let config = load(&settings, SystemTime::now())?;
        let current = Current { config, written, look_again_at: Instant::now() + LOOK_AGAIN };
        Ok(Self { settings, current: Mutex::new(current) })
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
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = self.look(&mut current, now);
        let config = Arc::clone(&current.config);
        drop(current);
        let connection = ServerConnection::new(config).map_err(|reason| TunnelError(reason.to_string()))?;
        Ok((ServerTunnel { connection }, reloaded))
    }

    fn look(&self, current: &mut Current, now: Instant) -> Reloaded {
        if now < current.look_again_at {
            return None;
        }
        current.look_again_at = now + LOOK_AGAIN;
        let written = written(&self.settings);
        if written == current.written {
            return None;
        }
        // Also if they are no good: they are told of once, and looked at again when they change again.
        current.written = written;
        Some(load(&self.settings, SystemTime::now()).map(|config| current.config = config))
    }
}

fn written(settings: &ServerTls) -> Vec<Option<SystemTime>> {
    let files = [Some(&settings.certificate), Some(&settings.key), settings.client_ca.as_ref()];
    files.into_iter().flatten().map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok()).collect()
}

fn load(settings: &ServerTls, now: SystemTime) -> Result<Arc<ServerConfig>, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = files::certificates(&settings.certificate, now)?;
    let key = files::key(&settings.key)?;
    check_pair(&settings.certificate, &chain, &settings.key, &key)?;
    let refused = |path: &Path, reason: String| files::error(path, Trouble::Refused(reason));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|reason| refused(&settings.certificate, reason.to_string()))?;
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
    let config = builder.with_single_cert(chain, key);
    config.map(Arc::new).map_err(|reason| refused(&settings.certificate, reason.to_string()))
}

fn check_pair(
    certificate: &Path,
    chain: &[rustls::pki_types::CertificateDer<'static>],
    key_path: &Path,
    key: &rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<(), FileError> {
    let refused = |reason: rustls::Error| files::error(key_path, Trouble::Refused(reason.to_string()));
    let signer = rustls::crypto::ring::sign::any_supported_type(key).map_err(refused)?;
    match CertifiedKey::new(chain.to_vec(), signer).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(files::error(certificate, Trouble::Mismatch(key_path.to_owned())))
        }
        // The library cannot tell for every kind of key; then the first handshake will.
        _ => Ok(()),
    }
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// What is spoken from that version on.
fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match least {
        TlsVersion::Tls12 => &FROM_TLS12,
        TlsVersion::Tls13 => &FROM_TLS13,
    }
}

/// A connection's octets are not TLS, or a peer is not let in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TunnelError(String);

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
            let taken = self.connection.read_tls(&mut octets).map_err(|reason| TunnelError(reason.to_string()))?;
            let state = self.connection.process_new_packets().map_err(|reason| TunnelError(reason.to_string()))?;
            let new = state.plaintext_bytes_to_read();
            let had = said.len();
            said.resize(had + new, 0);
            let target = said.get_mut(had..).unwrap_or_default();
            std::io::Read::read_exact(&mut self.connection.reader(), target)
                .map_err(|reason| TunnelError(reason.to_string()))?;
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What has to be sent to the agent now.
    pub fn answer(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.connection.wants_write() {
            // Into memory: it does not fail, and it gives nothing only when there is nothing.
            if !matches!(self.connection.write_tls(&mut octets), Ok(1..)) {
                break;
            }
        }
        octets
    }

    /// Whether the agent is not let in yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }
}
