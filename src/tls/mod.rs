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

use std::sync::Arc;
use std::time::SystemTime;

pub use client::{ClientTunnel, Connector};
pub use files::{FileError, Trouble};
pub use reload::Reloaded;
use rustls::SupportedProtocolVersion;
use rustls::sign::CertifiedKey;
pub use server::{Acceptor, ServerTunnel};
pub use tunnel::TunnelError;

use crate::config::{OwnCertificate, TlsVersion};

/// A certificate of our own with its key: readable, of this time, and belonging together.
fn certified(own: &OwnCertificate, now: SystemTime) -> Result<Arc<CertifiedKey>, FileError> {
    let chain = files::certificates(&own.certificate, now)?;
    let key = files::key(&own.key)?;
    let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
    let certified = certified.map_err(|reason| match reason {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
            files::error(&own.certificate, Trouble::Mismatch(own.key.clone()))
        }
        reason => files::error(&own.key, Trouble::Refused(reason.to_string())),
    });
    certified.map(Arc::new)
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
