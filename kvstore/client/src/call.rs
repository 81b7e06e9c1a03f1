//! What was asked of whom, for errors and logs.

use std::fmt;

/// One request: what it does, to which key, at which endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it does, such as `put`.
    pub operation: &'static str,
    /// The key or prefix, or the lease.
    pub key: String,
    /// The endpoint that was asked, or all of them if none was chosen yet.
    pub endpoint: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?} at {}", self.operation, self.key, self.endpoint)
    }
}
