//! TLS of listeners and collectors: certificates, who is trusted, versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::{DnsName, ServerName};

use super::reader::{Placed, Section};

/// TLS of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerTls {
    /// Our certificate.
    pub own: OwnCertificate,
    /// Others, for agents that ask for these names (SNI), in lower case.
    pub named: BTreeMap<String, OwnCertificate>,
    /// Those that agents' certificates are signed with: a PEM file.
    pub client_ca: Option<PathBuf>,
    /// Whether agents show certificates.
    pub client_certificates: ClientCertificates,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

/// Whether agents show certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCertificates {
    /// They are not asked to.
    None,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// TLS of a collector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientTls {
    /// Those that the collector's certificate is signed with: a PEM file. `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate, if the collector wants one.
    pub own: Option<OwnCertificate>,
    /// The name or address that must be in the collector's certificate; also the one that is asked for (SNI).
    pub server_name: String,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

/// A certificate of our own, with its key: PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnCertificate {
    /// The certificate, and those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// `None` if something that must be there is not.
pub(super) fn read_server(section: &mut Section<'_, '_>, folder: &Path) -> Option<ServerTls> {
    let certificate = section.text_required("certificate", "the PEM file with our certificate");
    let key = section.text_required("key", "the PEM file with its private key");
    let client_ca = section.text("client_ca");
    let wanted = [
        ("none", ClientCertificates::None),
        ("optional", ClientCertificates::Optional),
        ("required", ClientCertificates::Required),
    ];
    let client_certificates = section.choice("client_certificates", ClientCertificates::None, &wanted);
    if client_ca.is_none() && client_certificates != ClientCertificates::None {
        section.complain(section.place(), "client_certificates needs client_ca: the PEM file they are signed with");
    }
    let min_version = read_version(section);
    let handshake_timeout = read_handshake_timeout(section);
    let named = read_named(section, folder);
    let path = |file: Placed<String>| folder.join(file.value);
    Some(ServerTls {
        own: OwnCertificate { certificate: path(certificate?), key: path(key?) },
        named,
        client_ca: client_ca.map(path),
        client_certificates,
        min_version,
        handshake_timeout,
    })
}

fn read_named(section: &mut Section<'_, '_>, folder: &Path) -> BTreeMap<String, OwnCertificate> {
    let mut named = BTreeMap::new();
    for mut table in section.tables("sni") {
        let name = table.text_required("server_name", "the name that agents ask for");
        let certificate = table.text_required("certificate", "the PEM file with the certificate for that name");
        let key = table.text_required("key", "the PEM file with its private key");
        if let (Some(name), Some(certificate), Some(key)) = (name, certificate, key) {
            let own = OwnCertificate { certificate: folder.join(certificate.value), key: folder.join(key.value) };
            if DnsName::try_from(name.value.as_str()).is_err() {
                table.complain(&name.place, format!("{:?} is no name that an agent can ask for", name.value));
            } else if named.insert(name.value.to_ascii_lowercase(), own).is_some() {
                table.complain(&name.place, format!("another certificate is for {:?}", name.value));
            }
        }
        table.finish();
    }
    named
}

/// `host` is the name in the collector's address.
pub(super) fn read_client(section: &mut Section<'_, '_>, host: &str, folder: &Path) -> ClientTls {
    let path = |file: Placed<String>| folder.join(file.value);
    let ca = section.text("ca").map(path);
    let own = match (section.text("certificate"), section.text("key")) {
        (Some(certificate), Some(key)) => Some(OwnCertificate { certificate: path(certificate), key: path(key) }),
        (None, None) => None,
        (Some(alone), None) | (None, Some(alone)) => {
            section.complain(&alone.place, "certificate and key belong together: both, or neither");
            None
        }
    };
    let said = section.text("server_name");
    let server_name = said.unwrap_or_else(|| Placed { value: host.to_owned(), place: section.place().clone() });
    if ServerName::try_from(server_name.value.as_str()).is_err() {
        let text = format!("{:?} is no name or address that a certificate has", server_name.value);
        section.complain(&server_name.place, text);
    }
    let min_version = read_version(section);
    let handshake_timeout = read_handshake_timeout(section);
    ClientTls { ca, own, server_name: server_name.value, min_version, handshake_timeout }
}

fn read_version(section: &mut Section<'_, '_>) -> TlsVersion {
    section.choice("tls_min_version", TlsVersion::Tls12, &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)])
}

fn read_handshake_timeout(section: &mut Section<'_, '_>) -> Duration {
    let times = Duration::from_millis(100)..=Duration::from_secs(600);
    section.duration("handshake_timeout", Duration::from_secs(5), times)
}
