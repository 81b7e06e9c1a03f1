//! What the runtime asks: environment and network configuration, parsed once.

use std::path::PathBuf;

use landbridge_kvstore_schema::NamespacedName;
use serde::Deserialize;

use super::answer::{CniError, Code};
use crate::endpoint::Attachment;

/// The versions of the specification that the plugin speaks, oldest first.
pub(super) const SUPPORTED_VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
/// Longest name of an interface in bytes (Linux, IFNAMSIZ - 1).
const MAX_INTERFACE_LEN: usize = 15;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
}

/// The interface of a container, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) attachment: Attachment,
    /// The file of the container's network namespace.
    pub(super) namespace: PathBuf,
}

/// The part of the network configuration that the plugin looks at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetworkConfig {
    #[serde(default)]
    cni_version: String,
    name: String,
    /// The agent's Unix socket.
    #[serde(default = "default_socket")]
    pub(super) agent_socket: PathBuf,
    /// What ADD answered; for CHECK.
    #[serde(default)]
    pub(super) prev_result: Option<PreviousResult>,
    /// The attachments that are still in use; for GC.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// The part of an earlier answer that CHECK compares.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PreviousResult {
    #[serde(default)]
    pub(super) ips: Vec<PreviousIp>,
}

/// An address that ADD gave.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PreviousIp {
    /// With the length of its prefix.
    pub(super) address: String,
}

/// An attachment that is still in use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl From<ValidAttachment> for Attachment {
    fn from(valid: ValidAttachment) -> Self {
        Self { container_id: valid.container_id, interface: valid.ifname }
    }
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/landbridge/agent.sock")
}

/// The version that an answer has: the one that was asked for, or the oldest one if that cannot be read.
pub(super) fn version_of(input: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        cni_version: String,
    }
    let asked = serde_json::from_slice(input).ok().map(|version: Version| version.cni_version);
    asked.filter(|version| !version.is_empty()).unwrap_or_else(|| SUPPORTED_VERSIONS[0].to_owned())
}

impl Command {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, CniError> {
        Ok(match text {
            Some("ADD") => Self::Add,
            Some("CHECK") => Self::Check,
            Some("DEL") => Self::Del,
            Some("GC") => Self::Gc,
            Some("STATUS") => Self::Status,
            Some("VERSION") => Self::Version,
            other => return Err(variable("CNI_COMMAND", other, "ADD, CHECK, DEL, GC, STATUS or VERSION")),
        })
    }
}

impl NetworkConfig {
    pub(super) fn parse(input: &[u8]) -> Result<Self, CniError> {
        let config: Self = serde_json::from_slice(input).map_err(|error| {
            CniError::new(Code::Decode, "cannot read the network configuration on stdin").because(&error)
        })?;
        if !SUPPORTED_VERSIONS.contains(&config.cni_version.as_str()) {
            let message = format!("cniVersion {:?} is not supported", config.cni_version);
            let details = format!("set it to one of {}", SUPPORTED_VERSIONS.join(", "));
            return Err(CniError::new(Code::IncompatibleVersion, message).with_details(details));
        }
        if config.name.is_empty() {
            return Err(CniError::new(Code::InvalidConfig, "the network configuration has no name"));
        }
        Ok(config)
    }
}

/// Reads which interface of which container is meant.
pub(super) fn attachment(environment: impl Fn(&str) -> Option<String>) -> Result<Attachment, CniError> {
    let valid = |name, wanted, is_valid: fn(&str) -> bool| {
        let given = environment(name);
        given.clone().filter(|value| is_valid(value)).ok_or_else(|| variable(name, given.as_deref(), wanted))
    };
    let wanted = "letters, digits, '_', '.' and '-', first a letter or digit";
    let container_id = valid("CNI_CONTAINERID", wanted, is_container_id)?;
    let interface = valid("CNI_IFNAME", "the name of an interface, up to 15 bytes", is_interface)?;
    Ok(Attachment { container_id, interface })
}

/// Reads the same, and where the container is.
pub(super) fn target(environment: impl Fn(&str) -> Option<String>) -> Result<Target, CniError> {
    let namespace = environment("CNI_NETNS").filter(|path| !path.is_empty());
    let wanted = "the file of the container's network namespace";
    let namespace = namespace.ok_or_else(|| variable("CNI_NETNS", None, wanted))?.into();
    Ok(Target { attachment: attachment(environment)?, namespace })
}

/// Reads the pod from `KEY=value;KEY=value`. Other keys are of no interest.
pub(super) fn pod(environment: impl Fn(&str) -> Option<String>) -> Result<NamespacedName, CniError> {
    let arguments = environment("CNI_ARGS");
    let argument = |wanted: &str| {
        let mut pairs =
            arguments.iter().flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, value)| *key == wanted && !value.is_empty()).map(|(_, value)| value)
    };
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
        let wanted = "K8S_POD_NAMESPACE=<namespace>;K8S_POD_NAME=<name>";
        return Err(variable("CNI_ARGS", arguments.as_deref(), wanted));
    };
    NamespacedName::new(namespace, name)
        .map_err(|error| CniError::new(Code::InvalidEnvironment, "CNI_ARGS names no pod").because(&error))
}

fn variable(name: &str, given: Option<&str>, wanted: &str) -> CniError {
    let message = match given {
        Some(value) => format!("environment variable {name} is {value:?}"),
        None => format!("environment variable {name} is not set"),
    };
    CniError::new(Code::InvalidEnvironment, message).with_details(format!("it has to be {wanted}"))
}

/// CNI specification 1.1.0, section 2, "Parameters".
fn is_container_id(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// As the kernel's `dev_valid_name`.
fn is_interface(name: &str) -> bool {
    name.len() <= MAX_INTERFACE_LEN
        && !matches!(name, "" | "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARGS: &str =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1;K8S_POD_INFRA_CONTAINER_ID=7";

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "CNI_CONTAINERID" => "3fa4",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/x",
            "CNI_ARGS" => ARGS,
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn what_is_asked_is_read() {
        let target = target(environment).unwrap();
        assert_eq!(
            (target.attachment.container_id.as_str(), target.attachment.interface.as_str()),
            ("3fa4", "eth0")
        );
        assert_eq!(pod(environment).unwrap().to_string(), "shop/cart-1");
        attachment(|name| environment(name).filter(|_| name != "CNI_NETNS")).unwrap();
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_code_4() {
        for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"] {
            for value in [None, Some(""), Some("../x")] {
                let with =
                    |asked: &str| if asked == name { value.map(str::to_owned) } else { environment(asked) };
                let error = target(with).map(drop).and_then(|()| pod(with).map(drop));
                if (name, value) == ("CNI_NETNS", Some("../x")) {
                    error.unwrap();
                    continue;
                }
                let error = error.unwrap_err();
                assert_eq!(error.code(), 4);
                assert!(error.print("1.0.0").contains(name), "{error:?}");
            }
        }
        assert_eq!(Command::parse(Some("UPDATE")).unwrap_err().code(), 4);
        assert_eq!(Command::parse(None).unwrap_err().code(), 4);
    }

    #[test]
    fn a_configuration_of_another_version_is_refused_with_code_1() {
        for version in ["0.4.0", "2.0.0", ""] {
            let config = format!(r#"{{"cniVersion":"{version}","name":"landbridge"}}"#);
            assert_eq!(NetworkConfig::parse(config.as_bytes()).unwrap_err().code(), 1);
        }
        assert_eq!(NetworkConfig::parse(br#"{"name":"landbridge"}"#).unwrap_err().code(), 1);
        assert_eq!(NetworkConfig::parse(b"{").unwrap_err().code(), 6);
        assert_eq!(NetworkConfig::parse(br#"{"cniVersion":"1.0.0","name":""}"#).unwrap_err().code(), 7);
    }

    #[test]
    fn unknown_fields_of_a_configuration_are_ignored() {
        let config =
            br#"{"cniVersion":"1.1.0","name":"n","type":"landbridge-cni","agentSocket":"/x","dns":{},
            "cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],
            "prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.1.1.3/32","interface":1}]}}"#;
        let config = NetworkConfig::parse(config).unwrap();
        assert_eq!(config.agent_socket, PathBuf::from("/x"));
        assert_eq!(config.prev_result.unwrap().ips[0].address, "10.1.1.3/32");
        assert_eq!(config.valid_attachments.unwrap().len(), 1);
    }

    #[test]
    fn an_answer_has_the_version_that_was_asked_for() {
        assert_eq!(version_of(br#"{"cniVersion":"1.1.0"}"#), "1.1.0");
        assert_eq!(version_of(b"no json"), "1.0.0");
    }

    proptest! {
        #[test]
        fn nothing_on_stdin_breaks_it(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = NetworkConfig::parse(&input);
            let _ = version_of(&input);
        }
    }
}
