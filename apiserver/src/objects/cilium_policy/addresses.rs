//! Address ranges of rules.

use std::net::IpAddr;

use landbridge_kvstore_schema::{IpPrefix, Ipv4Prefix, Ipv6Prefix, PolicyPeer};
use serde::Deserialize;

use crate::objects::{FieldError, FieldPath};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CidrRule {
    cidr: String,
    except: Option<Vec<String>>,
}

impl CidrRule {
    pub(super) fn read(&self, path: &FieldPath) -> Result<PolicyPeer, FieldError> {
        address_range(path, &self.cidr, self.except.as_deref().unwrap_or_default())
    }
}

/// A range without its exceptions, which have to be within it.
pub(in crate::objects) fn address_range(
    path: &FieldPath,
    cidr: &str,
    except: &[String],
) -> Result<PolicyPeer, FieldError> {
    let range = addresses(&path.field("cidr"), cidr)?;
    let except = except.iter().enumerate().map(|(at, text)| {
        let path = path.field("except").index(at);
        let exception = addresses(&path, text)?;
        if range.contains(exception.network()) && exception.len() >= range.len() {
            Ok(exception)
        } else {
            Err(path.error(format!("{exception} is not within {range}")))
        }
    });
    Ok(PolicyPeer::Addresses { range, except: except.collect::<Result<_, _>>()? })
}

/// A range, whose bits after the prefix are cleared as in Cilium, or one address.
pub(super) fn addresses(path: &FieldPath, text: &str) -> Result<IpPrefix, FieldError> {
    let invalid = || path.error(format!("{text:?} is neither an address range nor an address"));
    let Some((address, len)) = text.split_once('/') else {
        return text.parse().map(IpPrefix::host).map_err(|_| invalid());
    };
    let (address, len) = address.parse::<IpAddr>().ok().zip(len.parse::<u8>().ok()).ok_or_else(invalid)?;
    let range = match address {
        IpAddr::V4(address) => Ipv4Prefix::containing(address, len).map(IpPrefix::V4),
        IpAddr::V6(address) => Ipv6Prefix::containing(address, len).map(IpPrefix::V6),
    };
    range.map_err(|_| invalid())
}
