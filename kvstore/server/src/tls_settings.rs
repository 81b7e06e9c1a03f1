//! Settings of the store's end of TLS, as etcd's flags have them.

use std::path::PathBuf;

use rustls::crypto::ring::{ALL_CIPHER_SUITES, cipher_suite};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::tls::TlsFiles;

/// How connections with TLS are taken. The files are read again for each handshake, so that replacing them needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The store's certificate with those between it and its CA, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// What clients have to show.
    pub clients: ClientCertificates,
    /// The versions that are spoken.
    pub versions: TlsVersions,
    /// The suites of TLS 1.2 that are spoken; none given: all that are known. Those of TLS 1.3 are spoken in any case.
    pub cipher_suites: Vec<CipherSuite>,
}

/// What clients have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing. Who they are, if it matters, they say with each request.
    NotAsked,
    /// A certificate of a CA.
    Required {
        /// The CA, PEM.
        ca: PathBuf,
        /// Lists of certificates that were revoked, DER or PEM.
        revoked: Option<PathBuf>,
        /// Whether the common name of the certificate names the user.
        names_user: bool,
    },
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The versions from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    oldest: TlsVersion,
    newest: TlsVersion,
}

/// Why a setting of TLS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTlsSetting {
    /// The oldest version is newer than the newest.
    #[error("min version ({oldest:?}) is greater than max version ({newest:?})")]
    Versions {
        /// The oldest.
        oldest: TlsVersion,
        /// The newest.
        newest: TlsVersion,
    },
    /// There is no such suite here.
    #[error("unexpected TLS cipher suite {name:?}: known are {}", known.join(","))]
    CipherSuite {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<&'static str>,
    },
}

impl From<TlsFiles> for ServerTls {
    /// Clients have to show a certificate of the CA, which names the user.
    fn from(TlsFiles { ca, certificate, key }: TlsFiles) -> Self {
        Self {
            certificate,
            key,
            clients: ClientCertificates::Required { ca, revoked: None, names_user: true },
            versions: TlsVersions::default(),
            cipher_suites: Vec::new(),
        }
    }
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self { oldest: TlsVersion::V1_2, newest: TlsVersion::V1_3 }
    }
}

impl TlsVersions {
    /// The versions from `oldest` to `newest`.
    ///
    /// # Errors
    /// [`InvalidTlsSetting::Versions`] if there are none.
    pub fn new(oldest: TlsVersion, newest: TlsVersion) -> Result<Self, InvalidTlsSetting> {
        if oldest > newest {
            return Err(InvalidTlsSetting::Versions { oldest, newest });
        }
        Ok(Self { oldest, newest })
    }

    /// Whether TLS 1.2 is spoken, the only version whose suites can be chosen.
    pub fn with_1_2(self) -> bool {
        self.oldest == TlsVersion::V1_2
    }

    pub(crate) fn supported(self) -> Vec<&'static SupportedProtocolVersion> {
        let versions = [(TlsVersion::V1_3, &version::TLS13), (TlsVersion::V1_2, &version::TLS12)];
        let spoken =
            versions.into_iter().filter(|(version, _)| (self.oldest..=self.newest).contains(version));
        spoken.map(|(_, supported)| supported).collect()
    }
}

/// The names by which suites can be chosen: those of TLS 1.2 and 1.3 that there are here.
pub fn cipher_suites() -> Vec<&'static str> {
    ALL_CIPHER_SUITES.iter().filter_map(|suite| suite.suite().as_str()).map(iana_of).collect()
}

/// IANA's name of a suite; the library leaves out a part of those of TLS 1.3.
fn iana_of(name: &'static str) -> &'static str {
    match name {
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}

/// Reads names of suites, IANA's or the shorter ones that etcd takes too.
///
/// # Errors
/// [`InvalidTlsSetting::CipherSuite`] with the first name that is not known here.
pub fn parse_cipher_suites<'n>(
    names: impl IntoIterator<Item = &'n str>,
) -> Result<Vec<CipherSuite>, InvalidTlsSetting> {
    let parse = |name: &str| {
        let suite = match name {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
                Some(&cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)
            }
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
                Some(&cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)
            }
            name => ALL_CIPHER_SUITES.iter().find(|suite| suite.suite().as_str().map(iana_of) == Some(name)),
        };
        suite
            .map(SupportedCipherSuite::suite)
            .ok_or_else(|| InvalidTlsSetting::CipherSuite { name: name.to_owned(), known: cipher_suites() })
    };
    names.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_that_etcd_takes() {
        for name in cipher_suites() {
            assert!(name.starts_with("TLS_"), "{name}");
            parse_cipher_suites([name]).unwrap();
        }
        let long = parse_cipher_suites(["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]).unwrap();
        assert_eq!(parse_cipher_suites(["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]).unwrap(), long);
        let error = parse_cipher_suites(["TLS_RSA_WITH_RC4_128_SHA"]).unwrap_err();
        assert!(error.to_string().contains("TLS_RSA_WITH_RC4_128_SHA"));
    }

    #[test]
    fn versions_have_to_be_in_their_order() {
        assert!(TlsVersions::new(TlsVersion::V1_3, TlsVersion::V1_2).is_err());
        assert!(!TlsVersions::new(TlsVersion::V1_3, TlsVersion::V1_3).unwrap().with_1_2());
    }
}
