//! Certificates and keys, read from PEM files, with what is wrong with them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

/// What is wrong with a file that TLS needs.
#[derive(Debug, thiserror::Error)]
#[error("{}: {trouble}", .path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What can be wrong with a certificate or a key.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be read.
    #[error("{0}")]
    Read(std::io::Error),
    /// It is not PEM, or what is in it is not what it says.
    #[error("cannot be read as PEM: {0}")]
    Pem(String),
    /// There is nothing of that kind in it.
    #[error("has no {0} in it")]
    Nothing(&'static str),
    /// The certificate cannot be used.
    #[error("its certificate cannot be used: {0}")]
    Certificate(String),
    /// The certificate's time is over, or has not come.
    #[error("its certificate is valid from {from} to {to}, not now")]
    NotNow {
        /// The first moment.
        from: String,
        /// The last one.
        to: String,
    },
    /// Certificate and key do not belong together.
    #[error("the certificate in it and the key in {} do not belong together", .0.display())]
    Mismatch(PathBuf),
    /// The library refuses them.
    #[error("{0}")]
    Refused(String),
}

pub(super) fn error(path: &Path, trouble: Trouble) -> FileError {
    FileError { path: path.to_owned(), trouble }
}

/// A chain of certificates, our own one first, whose time is now.
pub(super) fn certificates(path: &Path, now: SystemTime) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let octets = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let chain = chain.map_err(|reason| error(path, Trouble::Pem(reason.to_string())))?;
    let Some(own) = chain.first() else { return Err(error(path, Trouble::Nothing("certificate"))) };
    check_time(own, now).map_err(|trouble| error(path, trouble))?;
    Ok(chain)
}

/// A private key.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let octets = read(path)?;
    PrivateKeyDer::from_pem_slice(&octets).map_err(|reason| match reason {
        rustls::pki_types::pem::Error::NoItemsFound => error(path, Trouble::Nothing("private key")),
        reason => error(path, Trouble::Pem(reason.to_string())),
    })
}

/// Certificates that others' are signed with.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let octets = read(path)?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&octets) {
        let root = root.map_err(|reason| error(path, Trouble::Pem(reason.to_string())))?;
        roots.add(root).map_err(|reason| error(path, Trouble::Certificate(reason.to_string())))?;
    }
    if roots.is_empty() {
        return Err(error(path, Trouble::Nothing("certificate")));
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|reason| error(path, Trouble::Read(reason)))
}

/// The names of a certificate's hosts in lower case, or, if it has none, the common name of its subject.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    // It was verified when it was shown, so it can be read.
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    if names.is_empty() {
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    names
}

fn check_time(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<(), Trouble> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|reason| Trouble::Certificate(reason.to_string()))?;
    let validity = parsed.validity();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp() {
        return Ok(());
    }
    Err(Trouble::NotNow { from: validity.not_before.to_string(), to: validity.not_after.to_string() })
}
