//! A certificate authority in a folder, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use landbridge_kvstore_server::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate with its key, in files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a certificate with this common name, good for both ends of a connection on loopback.
    pub(crate) fn sign(&self, common_name: &str) -> Files {
        self.sign_with(common_name, |_| {})
    }

    /// [`Self::sign`], of one that has something else about it.
    pub(crate) fn sign_with(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |extension| self.dir.path().join(format!("{common_name}.{extension}"));
        let files = Files { certificate: file("crt"), key: file("key") };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// What a store is given that this CA stands behind.
    pub(crate) fn server_files(&self) -> TlsFiles {
        let Files { certificate, key } = self.sign("server");
        TlsFiles { ca: self.path(), certificate, key }
    }
}

/// How a client shows a certificate, and whose servers it trusts.
pub(crate) fn client_tls(ca: &str, identity: Option<&Files>) -> ClientTlsConfig {
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    let read = |path: &Path| fs::read(path).unwrap();
    match identity {
        Some(files) => config.identity(Identity::from_pem(read(&files.certificate), read(&files.key))),
        None => config,
    }
}

pub(crate) async fn connect(
    endpoint: &str,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    Channel::from_shared(endpoint.to_owned()).unwrap().tls_config(tls)?.connect().await
}
