//! The cluster, and the way to its members.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use landbridge_kvstore_server::engine::{ClusterOptions, ClusterState, InitialMember, PeerOptions};

use super::{advertised, check_url, urls};
use crate::flags::Values;
use crate::settings::tls;

/// The cluster that a new member becomes part of.
pub(super) fn of(values: &Values) -> Result<ClusterOptions> {
    let state = match values.text("initial-cluster-state") {
        "existing" => ClusterState::Existing,
        _ => ClusterState::New,
    };
    let name = values.text("name");
    let initial = members(&values.list("initial-cluster"))?;
    if let Some(own) = initial.iter().find(|member| member.name == name) {
        let ours = advertised(values, "initial-advertise-peer-urls")?;
        agree(name, &own.peer_urls, &ours)?;
    } else if !initial.is_empty() {
        bail!(
            "couldn't find local name \"{name}\" in the initial cluster configuration: add {name}=URL to --initial-cluster"
        );
    } else if state == ClusterState::Existing {
        bail!(
            "--initial-cluster-state=existing needs --initial-cluster with all members, as `member add` printed it"
        );
    }
    Ok(ClusterOptions {
        initial,
        state,
        token: values.text("initial-cluster-token").to_owned(),
        force_new: values.switch("force-new-cluster"),
    })
}

/// The members of `name=URL,name=URL`; a name given twice has several URLs.
fn members(list: &[&str]) -> Result<Vec<InitialMember>> {
    let mut members: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for part in list {
        let (name, url) = part
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .with_context(|| format!("--initial-cluster: {part:?} is not name=URL"))?;
        check_url(url).context("--initial-cluster")?;
        ensure!(seen.insert(url), "--initial-cluster: {url} is there twice, and can be of one member only");
        members.entry(name).or_default().push(url.to_owned());
    }
    Ok(members
        .into_iter()
        .map(|(name, peer_urls)| InitialMember { name: name.to_owned(), peer_urls })
        .collect())
}

/// Checks that what this member says of itself is what the cluster says of it.
fn agree(name: &str, theirs: &[String], ours: &[String]) -> Result<()> {
    if let Some(missing) = theirs.iter().find(|url| !ours.contains(url)) {
        bail!(
            "--initial-cluster has {name}={missing} but missing from --initial-advertise-peer-urls={}",
            ours.join(",")
        );
    }
    if let Some(missing) = ours.iter().find(|url| !theirs.contains(url)) {
        bail!(
            "--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={name}={}",
            theirs.join(",")
        );
    }
    Ok(())
}

/// The way to the other members, and theirs to this one.
pub(super) fn peers(values: &Values, notes: &mut Vec<String>) -> Result<PeerOptions> {
    let listen = urls(values, "listen-peer-urls")?;
    let advertise = advertised(values, "initial-advertise-peer-urls")?;
    let tls = tls::of_peers(values, &listen, notes)?;
    Ok(PeerOptions { listen, advertise, tls })
}
