//! What stands against a peer, and against its records.

use landbridge_apiserver_api::v1::{
    AddPeerRequest, DescribeClusterResponse, RequestCertificateRequest, SignCertificateRequest,
};
use tonic::{Code, Status};

use crate::cluster::{Cluster, connect, eventually};

/// Makes a description one that stands against itself.
type Change = fn(&mut DescribeClusterResponse);

async fn add(
    cluster: &mut Cluster,
    peer: DescribeClusterResponse,
    certificate: &str,
    dry_run: bool,
) -> Status {
    let request = AddPeerRequest {
        peer: Some(peer),
        certificate: certificate.to_owned(),
        confirm_within_seconds: 60,
        dry_run,
    };
    cluster.admin.add_peer(request).await.map(|added| panic!("was added: {added:?}")).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_a_peer_is_said_and_nothing_is_changed() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    let good = lyon.describe().await;
    let certificate = paris.certificate_from(&mut lyon).await;

    let dry_run = AddPeerRequest { peer: Some(good.clone()), dry_run: true, ..AddPeerRequest::default() };
    assert_eq!(paris.admin.add_peer(dry_run).await.unwrap().into_inner().revision, 0);

    let cases: [(&str, Change); 6] = [
        ("both clusters are named paris", |said| said.name = "paris".to_owned()),
        ("id 1, as has paris", |said| said.id = 1),
        ("for 511 clusters", |said| said.max_clusters = 511),
        ("10.1.128.0/17 of cluster lyon overlaps 10.1.0.0/16", |said| {
            said.pod_ranges = vec!["10.1.128.0/17".to_owned()];
        }),
        ("10.96.7.0/24 of cluster lyon overlaps 10.96.0.0/16", |said| {
            said.pod_ranges = vec!["10.96.7.0/24".to_owned()];
        }),
        ("172.30.1.1 of cluster lyon is in 172.30.1.1/32 of paris", |said| {
            said.node_addresses = vec!["172.30.1.1".to_owned()];
        }),
    ];
    for (expected, change) in cases {
        let mut said = good.clone();
        change(&mut said);
        for dry_run in [true, false] {
            let status = add(&mut paris, said.clone(), &certificate, dry_run).await;
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
            assert!(status.message().contains(expected), "{status:?} should say {expected:?}");
        }
    }
    let own = paris.describe().await;
    let same_ca = DescribeClusterResponse {
        ca_certificate: own.ca_certificate.clone(),
        ca_fingerprint: own.ca_fingerprint.clone(),
        ..good.clone()
    };
    assert!(add(&mut paris, same_ca, &certificate, false).await.message().contains("the same CA"));
    let forged = DescribeClusterResponse { ca_certificate: own.ca_certificate, ..good.clone() };
    assert_eq!(add(&mut paris, forged, &certificate, false).await.code(), Code::InvalidArgument);

    // Certificates that are not for this key, this cluster or of that authority.
    let other_key = paris.certificate_from(&mut lyon).await;
    assert_eq!(add(&mut paris, good.clone(), &certificate, false).await.code(), Code::FailedPrecondition);
    let own_user = lyon.certificate_from(&mut paris).await;
    let status = add(&mut paris, good.clone(), &own_user, false).await;
    assert!(status.message().contains("not signed by the authority"), "{status:?}");
    assert_eq!(add(&mut paris, good.clone(), "none", false).await.code(), Code::InvalidArgument);

    let config = paris.keys("landbridge/config/peers/").await;
    assert_eq!(config, Vec::<String>::new());
    assert!(paris.keys("cilium/cache/").await.is_empty());
    assert!(!paris.key_file("lyon").exists());
    // And with the right one it works, at once.
    let request = AddPeerRequest { peer: Some(good), certificate: other_key, ..AddPeerRequest::default() };
    assert!(paris.admin.add_peer(request).await.unwrap().into_inner().revision > 0);
    paris.confirm("lyon").await.unwrap();
    paris.synced("lyon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_by_name() {
    let mut paris = Cluster::start("paris", 1).await;
    for (peer, expected) in [
        ("paris", "own name"),
        ("Lyon", "cluster name \"Lyon\""),
        ("../x", "cluster name"),
        ("", "cluster name"),
    ] {
        let request = RequestCertificateRequest { peer: peer.to_owned() };
        let status = paris.admin.request_certificate(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{status:?}");
        let request = SignCertificateRequest { peer: peer.to_owned(), certificate_request: "x".to_owned() };
        assert!(paris.admin.sign_certificate(request).await.unwrap_err().message().contains(expected));
    }
    let request = SignCertificateRequest { peer: "lyon".to_owned(), certificate_request: "x".to_owned() };
    let status = paris.admin.sign_certificate(request).await.unwrap_err();
    assert!(status.message().contains("PKCS #10"), "{status:?}");
    assert_eq!(paris.keys("landbridge/config/readers/").await, Vec::<String>::new());
    let status = paris.admin.add_peer(AddPeerRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "the request has no peer"));
    assert_eq!(paris.confirm("lyon").await, Err(Code::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_may_not_publish_is_refused_and_shown() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;
    let pod = |ip: &str, host: &str, id: u32| {
        format!(r#"{{"IP":"{ip}","Mask":null,"HostIP":"{host}","ID":{id},"Key":0,"Metadata":""}}"#)
    };
    let (lyons, pariss) = (2 * 65_536 + 300, 65_536 + 300);
    let records = [
        ("10.1.1.9", pod("10.1.1.9", "172.30.2.1", lyons)),
        ("10.2.1.9", pod("10.2.1.9", "172.30.1.1", lyons)),
        ("10.2.1.10", pod("10.2.1.10", "172.30.2.1", pariss)),
        ("10.2.1.11", pod("10.2.1.11", "172.30.2.1", 1)),
        ("10.2.1.12", "{".to_owned()),
        ("10.2.1.13", pod("10.2.1.13", "172.30.2.1", lyons)),
    ];
    for (ip, value) in records {
        lyon.store.put(&format!("cilium/state/ip/v1/default/{ip}"), value, None).await.unwrap();
    }
    eventually("the good one is taken", async || {
        paris.store.get("cilium/cache/ip/v1/lyon/10.2.1.13").await.unwrap()
    })
    .await;
    assert_eq!(
        paris.keys("cilium/cache/ip/").await,
        ["cilium/cache/ip/v1/lyon/10.2.1.13", "cilium/cache/ip/v1/lyon/10.2.1.7"]
    );
    let peer = eventually("the others are counted", async || {
        paris.status().await.peers.into_iter().find(|peer| peer.refused == 5)
    })
    .await;
    for expected in [
        "not in the agreed",
        "overlaps 172.30.1.1/32 of cluster paris",
        "not one of cluster",
        "reserved identity 1",
        "not JSON",
    ] {
        assert!(
            peer.refusals.iter().any(|refusal| refusal.contains(expected)),
            "{expected}: {:?}",
            peer.refusals
        );
    }
    assert!(paris.status().await.problems.iter().any(|problem| problem.contains("refused 5 of its records")));
}
