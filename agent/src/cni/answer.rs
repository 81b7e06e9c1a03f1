//! What the runtime is told.

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error_chain::chain;
use crate::netlink::Mac;
use crate::node_network::host_bits;

/// Numbers of errors (CNI specification 1.1.0, section 5, "Error"). Those from 100 on are the plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The version of the configuration is not supported.
    IncompatibleVersion = 1,
    /// There is no such container.
    UnknownContainer = 3,
    /// An environment variable is missing or wrong.
    InvalidEnvironment = 4,
    /// The plugin cannot read or write.
    Io = 5,
    /// The configuration cannot be read.
    Decode = 6,
    /// The configuration is wrong.
    InvalidConfig = 7,
    /// It may go better later.
    TryAgainLater = 11,
    /// The plugin cannot serve ADD now; the answer to STATUS.
    NotAvailable = 50,
    /// The kernel did not do what was asked.
    Network = 100,
    /// The agent refuses.
    Refused = 101,
    /// The interface is there already, or its name is another's.
    Exists = 102,
    /// The interface is not as ADD made it.
    Broken = 103,
}

/// An error, as the runtime is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CniError {
    code: Code,
    message: String,
    details: String,
}

impl CniError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    #[must_use]
    pub(super) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Adds an error and its causes as details.
    #[must_use]
    pub(super) fn because(self, error: &dyn Error) -> Self {
        self.with_details(chain(error))
    }

    pub(super) fn is(&self, code: Code) -> bool {
        self.code == code
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> u32 {
        self.code as u32
    }

    pub(super) fn print(&self, version: &str) -> String {
        let mut error = json!({ "cniVersion": version, "code": self.code as u32, "msg": self.message });
        if !self.details.is_empty() {
            error["details"] = Value::from(self.details.as_str());
        }
        error.to_string()
    }
}

impl std::fmt::Display for CniError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.message, self.details)
    }
}

/// What was made, as the runtime is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing is to be said.
    Done,
    /// To VERSION.
    Versions(&'static [&'static str]),
    /// To ADD.
    Attached(Attached),
}

/// An interface and what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) host_interface: String,
    pub(super) host_mac: Mac,
    pub(super) interface: String,
    pub(super) pod_mac: Mac,
    pub(super) namespace: PathBuf,
    /// Each address with its gateway.
    pub(super) addresses: Vec<(IpAddr, IpAddr)>,
}

impl Answer {
    /// As JSON; empty where the specification wants no answer.
    pub(super) fn print(&self, version: &str) -> String {
        match self {
            Self::Done => String::new(),
            Self::Versions(supported) => {
                json!({ "cniVersion": version, "supportedVersions": supported }).to_string()
            }
            Self::Attached(attached) => attached.result(version).to_string(),
        }
    }
}

impl Attached {
    fn result(&self, version: &str) -> Value {
        let ip = |(address, gateway): &(IpAddr, IpAddr)| {
            let address = format!("{address}/{}", host_bits(*address));
            json!({ "address": address, "gateway": gateway, "interface": 1 })
        };
        let route = |(_, gateway): &(IpAddr, IpAddr)| {
            let everything = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            json!({ "dst": everything, "gw": gateway })
        };
        json!({
            "cniVersion": version,
            "interfaces": [
                { "name": self.host_interface, "mac": print_mac(self.host_mac) },
                { "name": self.interface, "mac": print_mac(self.pod_mac), "sandbox": self.namespace },
            ],
            "ips": self.addresses.iter().map(ip).collect::<Vec<_>>(),
            "routes": self.addresses.iter().map(route).collect::<Vec<_>>(),
            "dns": {},
        })
    }
}

fn print_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_what_the_specification_wants() {
        let attached = Answer::Attached(Attached {
            host_interface: "lb1".to_owned(),
            host_mac: [2, 0, 0, 0, 0, 0xff],
            interface: "eth0".to_owned(),
            pod_mac: [2, 0, 0, 0, 0, 1],
            namespace: "/run/netns/x".into(),
            addresses: [("10.1.1.3", "10.1.1.1"), ("fd10::3", "fd10::1")]
                .map(|(address, gateway)| (address.parse().unwrap(), gateway.parse().unwrap()))
                .into(),
        });
        let result: Value = serde_json::from_str(&attached.print("1.0.0")).unwrap();
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:ff");
        assert!(result["interfaces"][0].get("sandbox").is_none(), "the node's side is in no sandbox");
        let interface = usize::try_from(result["ips"][0]["interface"].as_u64().unwrap()).unwrap();
        assert_eq!(result["interfaces"][interface]["sandbox"], "/run/netns/x");
        assert_eq!(result["ips"][0]["address"], "10.1.1.3/32");
        assert_eq!(result["routes"][0], json!({ "dst": "0.0.0.0/0", "gw": "10.1.1.1" }));
        assert_eq!(
            result["ips"][1],
            json!({ "address": "fd10::3/128", "gateway": "fd10::1", "interface": 1 })
        );
        assert_eq!(result["routes"][1], json!({ "dst": "::/0", "gw": "fd10::1" }));
    }

    #[test]
    fn an_error_has_code_and_message() {
        let error = CniError::new(Code::TryAgainLater, "the agent does not answer");
        let printed: Value = serde_json::from_str(&error.print("1.1.0")).unwrap();
        assert_eq!(printed, json!({ "cniVersion": "1.1.0", "code": 11, "msg": "the agent does not answer" }));
        let printed: Value = serde_json::from_str(&error.with_details("why").print("1.1.0")).unwrap();
        assert_eq!(printed["details"], "why");
    }

    #[test]
    fn versions_are_listed() {
        let printed = Answer::Versions(&["1.0.0", "1.1.0"]).print("1.0.0");
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["supportedVersions"], json!(["1.0.0", "1.1.0"]));
    }
}
