//! What can be known from what both clusters say of themselves. Ranges, numbers and names beyond the two are checked
//! by each of them, against what it knows.

use anyhow::bail;
use landbridge_apiserver_api::v1::DescribeClusterResponse;

/// Whether the two can be two clusters of one mesh at all.
///
/// # Errors
/// The first reason why not, with what to change.
pub(super) fn check(near: &DescribeClusterResponse, far: &DescribeClusterResponse) -> anyhow::Result<()> {
    if near.ca_fingerprint == far.ca_fingerprint {
        bail!(
            "both addresses lead to cluster {}: give two clusters, or correct the configuration",
            near.name
        );
    }
    if near.name == far.name {
        bail!("both clusters are called {}: a mesh needs a name of its own for each", near.name);
    }
    if near.id == far.id {
        bail!(
            "clusters {} and {} both have id {}: a mesh needs an id of its own for each (--cluster-id of \
             landbridge-apiserver)",
            near.name,
            far.name,
            near.id
        );
    }
    let (knows, is_known) = (near.peers.contains(&far.name), far.peers.contains(&near.name));
    match (knows, is_known) {
        (false, false) => Ok(()),
        (true, true) => bail!(
            "{} and {} are connected already: see `clusterctl status {} {}`",
            near.name,
            far.name,
            near.name,
            far.name
        ),
        (half, _) => {
            let (one, other) = if half { (near, far) } else { (far, near) };
            bail!(
                "{} has {} as its peer, but not the other way round: run `clusterctl disconnect {} {}` first",
                one.name,
                other.name,
                near.name,
                far.name
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, id: u32) -> DescribeClusterResponse {
        DescribeClusterResponse {
            name: name.to_owned(),
            id,
            ca_fingerprint: format!("ca of {name}"),
            ..DescribeClusterResponse::default()
        }
    }

    fn refusal(near: &DescribeClusterResponse, far: &DescribeClusterResponse) -> String {
        check(near, far).unwrap_err().to_string()
    }

    #[test]
    fn two_clusters_that_differ_fit_together() {
        check(&cluster("a", 1), &cluster("b", 2)).unwrap();
    }

    #[test]
    fn a_cluster_is_not_connected_to_itself_by_two_names() {
        assert!(refusal(&cluster("a", 1), &cluster("a", 1)).contains("lead to cluster a"));
    }

    #[test]
    fn names_and_ids_are_unique() {
        let mut twin = cluster("a", 2);
        twin.ca_fingerprint = "another".to_owned();
        assert!(refusal(&cluster("a", 1), &twin).contains("both clusters are called a"));
        assert!(refusal(&cluster("a", 7), &cluster("b", 7)).contains("both have id 7"));
    }

    #[test]
    fn what_is_connected_stays_as_it_is() {
        let (mut a, mut b) = (cluster("a", 1), cluster("b", 2));
        a.peers.push("b".to_owned());
        assert!(refusal(&a, &b).contains("disconnect"), "half a connection");
        assert!(refusal(&b, &a).contains("a has b as its peer"), "whichever side is named first");
        b.peers.push("a".to_owned());
        assert!(refusal(&a, &b).contains("connected already"));
    }
}
