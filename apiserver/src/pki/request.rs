//! Requests for certificates (PKCS #10, RFC 2986): made here, and judged when a peer makes them.

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PublicKeyData, SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::certificate::der_of;

/// A new key and the request for its certificate.
pub struct KeyRequest {
    /// The key, PKCS #8 in PEM. It stays where it is.
    pub key: String,
    /// The request, PEM.
    pub request: String,
}

impl KeyRequest {
    /// Makes a key. The request says nothing but the key: whoever signs chooses the rest.
    ///
    /// # Errors
    /// [`rcgen::Error`] if there is no randomness.
    pub fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.pem()?;
        Ok(Self { key: key.serialize_pem(), request })
    }
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").field("request", &self.request).finish_non_exhaustive()
    }
}

/// The public key of a request, if whoever made the request has the key.
pub(super) fn public_key(request: &str) -> Result<SubjectPublicKeyInfo, RequestError> {
    let der = der_of(request, "CERTIFICATE REQUEST").ok_or(RequestError::Malformed)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Malformed)?;
    if !rest.is_empty() {
        return Err(RequestError::Malformed);
    }
    let key = &request.certification_request_info.subject_pki;
    let public_key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::KeyType)?;
    let accepted = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    if !accepted.contains(&public_key.algorithm()) {
        return Err(RequestError::KeyType);
    }
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    Ok(public_key)
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not a request.
    #[error("the certificate request is not one PKCS #10 request in PEM")]
    Malformed,
    /// A kind of key that is not accepted.
    #[error("the key of the certificate request is not ECDSA P-256, ECDSA P-384 or Ed25519")]
    KeyType,
    /// Made by somebody who does not have the key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// The certificate could not be made.
    #[error("signing the certificate")]
    Signing(#[source] rcgen::Error),
}
