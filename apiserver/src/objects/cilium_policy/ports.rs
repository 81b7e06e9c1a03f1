//! Ports of rules.

use std::num::NonZeroU16;

use landbridge_kvstore_schema::{PolicyPort, Protocol};
use serde::Deserialize;

use crate::objects::kubernetes::end_port as end_port_of;
use crate::objects::{FieldError, FieldPath};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortRule {
    ports: Vec<PortProtocol>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortProtocol {
    port: Option<String>,
    end_port: Option<i32>,
    protocol: Option<String>,
}

/// `None` if no port is named.
pub(super) fn ports(path: &FieldPath, rules: &[PortRule]) -> Result<Option<Vec<PolicyPort>>, FieldError> {
    let mut ports = Vec::new();
    for (rule_at, rule) in rules.iter().enumerate() {
        let path = path.index(rule_at).field("ports");
        if rule.ports.is_empty() {
            return Err(path.error("the list has no port: name one, or leave toPorts out"));
        }
        for (at, declared) in rule.ports.iter().enumerate() {
            ports.push(declared.read(&path.index(at))?);
        }
    }
    Ok((!ports.is_empty()).then_some(ports))
}

impl PortProtocol {
    /// Port 0 and no port are every port (Cilium `PortProtocol`).
    fn read(&self, path: &FieldPath) -> Result<PolicyPort, FieldError> {
        let text = self.port.as_deref().unwrap_or("0");
        let port: u16 = text.parse().map_err(|_| {
            path.field("port")
                .error(format!("{text:?} is not a number: ports by name are not evaluated here"))
        })?;
        let protocol = self.protocol.as_deref().unwrap_or("ANY").to_ascii_uppercase();
        let protocol: Protocol = protocol.parse().map_err(|_| {
            path.field("protocol")
                .error(format!("{protocol:?} is not evaluated here: use TCP, UDP, SCTP or ANY"))
        })?;
        let port = NonZeroU16::new(port);
        // 0 is none, as it is of `port`.
        let end_port = self.end_port.filter(|last| *last != 0);
        let end_port = end_port.map(|last| end_port_of(&path.field("endPort"), port, last)).transpose()?;
        Ok(PolicyPort { protocol, port, end_port })
    }
}
