//! What a certificate says, and whether it can be relied on.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::SystemTime;

use rcgen::{KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// The largest text that is read as a certificate or a request, in bytes.
pub(super) const MAX_PEM_BYTES: usize = 16 << 10;

/// An X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pem: String,
    der: Vec<u8>,
    common_name: Option<String>,
}

impl Certificate {
    /// Reads the one certificate of a PEM text.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] if the text holds anything else, or more than one.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let der = der_of(text, "CERTIFICATE").ok_or(CertificateError::Malformed)?;
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Malformed)?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed);
        }
        let names: Vec<_> = parsed.subject().iter_common_name().map(AttributeTypeAndValue::as_str).collect();
        let common_name = match names[..] {
            [Ok(name)] => Some(name.to_owned()),
            // Of two names, somebody else may read the other one.
            _ => None,
        };
        Ok(Self { pem: text.to_owned(), der, common_name })
    }

    /// The text that it was read from.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate in DER, as lower-case hex.
    pub fn fingerprint(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(&self.der) {
            write!(hex, "{byte:02x}").expect("a text takes every write");
        }
        hex
    }

    /// The only common name of its subject; `None` if there is none or more than one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// When it ends, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.parsed().validity().not_after.timestamp()
    }

    /// Whether two thirds of its life are over.
    pub fn is_due_for_renewal(&self, now: SystemTime) -> bool {
        let parsed = self.parsed();
        let (from, until) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        seconds(now) >= from + (until - from) / 3 * 2
    }

    /// Whether its key is that of `key`.
    pub(crate) fn has_key(&self, key: &KeyPair) -> bool {
        self.parsed().public_key().raw == key.subject_public_key_info()
    }

    /// Whether it is for exactly these hosts, names or addresses.
    pub(crate) fn covers(&self, hosts: &[String]) -> bool {
        let parsed = self.parsed();
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut names: Vec<_> = names.iter().filter_map(host).collect();
        names.sort();
        names == hosts
    }

    /// Whether it can be the authority of a cluster: signed by itself, allowed to sign, valid now.
    ///
    /// # Errors
    /// [`CertificateError`] with what is wrong.
    pub fn check_authority(&self, now: SystemTime) -> Result<(), CertificateError> {
        let parsed = self.parsed();
        let signs =
            parsed.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        if !parsed.is_ca() || !signs {
            return Err(CertificateError::NoAuthority);
        }
        self.check_signed_by(self, now)
    }

    /// Whether `authority` signed it, and it is valid now.
    ///
    /// # Errors
    /// [`CertificateError`] with what is wrong.
    pub fn check_signed_by(&self, authority: &Self, now: SystemTime) -> Result<(), CertificateError> {
        let (parsed, signer) = (self.parsed(), authority.parsed());
        if parsed.issuer().as_raw() != signer.subject().as_raw()
            || parsed.verify_signature(Some(signer.public_key())).is_err()
        {
            return Err(CertificateError::OtherAuthority { fingerprint: authority.fingerprint() });
        }
        let validity = parsed.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let now = seconds(now);
        if now < from {
            return Err(CertificateError::NotYetValid { seconds: from - now });
        }
        if now > until {
            return Err(CertificateError::Expired { seconds: now - until });
        }
        Ok(())
    }

    /// Whether it lets a client of the name `user` in at a store of `authority`.
    ///
    /// # Errors
    /// [`CertificateError`] with what is wrong.
    pub fn check_client(
        &self,
        user: &str,
        authority: &Self,
        now: SystemTime,
    ) -> Result<(), CertificateError> {
        self.check_signed_by(authority, now)?;
        let usage =
            self.parsed().extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.client_auth);
        if !usage {
            return Err(CertificateError::NoClient);
        }
        if self.common_name() != Some(user) {
            let found = self.common_name().unwrap_or_default().to_owned();
            return Err(CertificateError::OtherUser { found, expected: user.to_owned() });
        }
        Ok(())
    }

    fn parsed(&self) -> X509Certificate<'_> {
        X509Certificate::from_der(&self.der).expect("it was parsed when it was read").1
    }
}

/// The content of the one PEM block of `text`, if it is a `label`.
pub(super) fn der_of(text: &str, label: &str) -> Option<Vec<u8>> {
    if text.len() > MAX_PEM_BYTES {
        return None;
    }
    let mut blocks = Pem::iter_from_buffer(text.as_bytes());
    let block = blocks.next()?.ok()?;
    (block.label == label && blocks.next().is_none()).then_some(block.contents)
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Why a certificate cannot be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate, or more than one.
    #[error("it is not one X.509 certificate in PEM")]
    Malformed,
    /// A leaf.
    #[error("it may not sign other certificates")]
    NoAuthority,
    /// Signed by somebody else.
    #[error("it is not signed by the authority with the fingerprint {fingerprint}")]
    OtherAuthority {
        /// Of the authority that had to have signed it.
        fingerprint: String,
    },
    /// It begins later.
    #[error("it is valid only in {seconds} s; compare the clocks of both clusters")]
    NotYetValid {
        /// How much later.
        seconds: i64,
    },
    /// It has ended.
    #[error("it ended {seconds} s ago; have a new one made, and compare the clocks of both clusters")]
    Expired {
        /// How long ago.
        seconds: i64,
    },
    /// It is not for clients.
    #[error("it is not for clients (extended key usage clientAuth)")]
    NoClient,
    /// It is for another user.
    #[error("it is for the user {found:?}, not for {expected:?}")]
    OtherUser {
        /// The user.
        found: String,
        /// Who it had to be.
        expected: String,
    },
}
