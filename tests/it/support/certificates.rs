//! Certificates of the test's own.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority, and what it signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name, as PEM.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        self.sign_with(name, |_| {})
    }

    pub(crate) fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Puts certificate and key into the folder, as `NAME.pem` and `NAME.key`.
pub(crate) fn write(folder: &Path, name: &str, (certificate, key): &(String, String)) {
    // Renamed into place, as those do who renew certificates.
    for (ending, text) in [("pem", certificate), ("key", key)] {
        let beside = folder.join(format!("{name}.{ending}.new"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, folder.join(format!("{name}.{ending}"))).unwrap();
    }
}
