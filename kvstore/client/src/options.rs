//! Where the store is and how to reach it, checked once.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::Uri;

/// Where the store is and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// URLs of the store's members, `http://` or `https://` with host and port. One of them is used at a time.
    pub endpoints: Vec<String>,
    /// Needed by `https://` endpoints, and refused with `http://` ones.
    pub tls: Option<TlsFiles>,
    /// How long one request may take, connecting included.
    pub request_timeout: Duration,
}

/// PEM files, read again for each new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates that a server's may be signed by. No other ones are trusted.
    pub ca: PathBuf,
    /// The client's certificate, with its chain.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// There is nothing to connect to.
    #[error("no endpoint of the store is given: name one as https://<host>:<port>")]
    NoEndpoint,
    /// An endpoint is no URL.
    #[error("endpoint {endpoint:?} is no URL: write it as https://<host>:<port>")]
    InvalidEndpoint {
        /// The endpoint as given.
        endpoint: String,
    },
    /// An endpoint asks for TLS, and nothing says whom to trust.
    #[error("endpoint {endpoint} takes TLS: give the files of CA, certificate and key")]
    TlsWithoutFiles {
        /// The endpoint.
        endpoint: String,
    },
    /// Certificates are given, and the endpoint would not use them.
    #[error("endpoint {endpoint} does not encrypt, but TLS files are given: write it as https://")]
    FilesWithoutTls {
        /// The endpoint.
        endpoint: String,
    },
    /// No request could succeed.
    #[error("the timeout of requests is 0: give it some seconds")]
    NoTime,
}

impl ClientOptions {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        if self.request_timeout.is_zero() {
            return Err(OptionsError::NoTime);
        }
        if self.endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        self.endpoints.iter().try_for_each(|endpoint| check_endpoint(endpoint, self.tls.is_some()))
    }
}

fn check_endpoint(endpoint: &str, has_files: bool) -> Result<(), OptionsError> {
    let invalid = || OptionsError::InvalidEndpoint { endpoint: endpoint.to_owned() };
    let uri: Uri = endpoint.parse().map_err(|_| invalid())?;
    uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
    let endpoint = endpoint.to_owned();
    // The library compares with these texts too, and takes anything else for a host without a scheme.
    match (endpoint.starts_with("https://"), endpoint.starts_with("http://"), has_files) {
        (true, _, true) | (_, true, false) => Ok(()),
        (true, _, false) => Err(OptionsError::TlsWithoutFiles { endpoint }),
        (_, true, true) => Err(OptionsError::FilesWithoutTls { endpoint }),
        (false, false, _) => Err(OptionsError::InvalidEndpoint { endpoint }),
    }
}
