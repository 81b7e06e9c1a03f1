//! CAs, and the files that they fill.

use std::fs;
use std::path::Path;

use landbridge_kvstore_client::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

/// A CA of a test.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for `name`, valid for `hosts` too, with this CA as the one to trust. Overwrites.
    pub(crate) fn issue(&self, folder: &Path, name: &str, hosts: &[&str]) -> TlsFiles {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let file = |kind: &str, pem: &str| {
            let path = folder.join(format!("{name}.{kind}.pem"));
            fs::write(&path, pem).unwrap();
            path
        };
        TlsFiles {
            ca: file("ca", &self.0.pem()),
            certificate: file("certificate", &certificate.pem()),
            key: file("key", &key.serialize_pem()),
        }
    }
}
