//! TLS: certificates and keys out of files, and what they are used for. No socket in it.
//!
//! The library is rustls. Its own asynchronous streams are not used: they call octets written once they are encrypted,
//! and for a collector a packet is sent when the system has taken it. A [`ServerTunnel`] turns the octets of a
//! connection into what the agent said in them; a [`ClientTunnel`] turns packets into the octets of a connection, and
//! knows which packets are in those that were written.

mod client;
mod files;
mod reload;
mod server;
mod tunnel;

use std::path::Path;

pub use client::{ClientTunnel, Connector};
pub use files::{FileError, Trouble};
pub use reload::Reloaded;
use rustls::SupportedProtocolVersion;
use rustls::sign::CertifiedKey;
pub use server::{Acceptor, ServerTunnel};
pub use tunnel::TunnelError;

use crate::config::TlsVersion;

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
