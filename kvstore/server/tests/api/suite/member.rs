use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use tonic::Code;
use tonic::transport::Channel;

use super::assert_refused;
use crate::store::Client;

pub(crate) async fn a_member_tells_how_it_is(client: Client) {
    let channel: Channel = client.channel.clone();
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let version: Vec<u32> = status.version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version.len() == 3 && version >= vec![3, 4, 0], "{}", status.version);
    assert!(status.raft_index > 0 && status.raft_applied_index > 0 && status.raft_term > 0, "{status:?}");
    assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0, "{status:?}");
    assert!(status.errors.is_empty() && !status.is_learner);
    let alarms = maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty());
    maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();

    let mut cluster = pb::cluster_client::ClusterClient::new(channel);
    let request = pb::MemberListRequest { linearizable: true };
    let response = cluster.member_list(request).await.unwrap().into_inner();
    let header = response.header.unwrap();
    assert_eq!((header.revision, header.member_id), (0, status.leader));
    let [member] = &response.members[..] else { panic!("{response:?}") };
    assert_eq!((member.id, &member.name[..], member.is_learner), (status.leader, "default", false));
    assert!(member.peer_ur_ls.len() == 1 && member.client_ur_ls.len() == 1, "{member:?}");
}

pub(crate) async fn authentication_is_off_and_says_so(client: Client) {
    let mut auth = pb::auth_client::AuthClient::new(client.channel.clone());
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert!(!status.enabled);
    let request = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
    let text = "etcdserver: authentication is not enabled";
    assert_refused(auth.authenticate(request).await, Code::FailedPrecondition, text);
}

pub(crate) async fn health_is_served(client: Client) {
    use tonic_health::pb::health_check_response::ServingStatus;
    let mut health = tonic_health::pb::health_client::HealthClient::new(client.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let response = health.check(request).await.unwrap().into_inner();
    assert_eq!(response.status(), ServingStatus::Serving);
}

/// etcd checks what it can before it begins, and ends nothing that has not begun. It would then let a member of the version
/// before in; here, none could read the files, so that a downgrade ends where its beginning would be.
pub(crate) async fn a_downgrade_is_checked_before_it_begins(client: Client) {
    use pb::downgrade_request::DowngradeAction::{Cancel, Enable, Validate};
    let maintenance = pb::maintenance_client::MaintenanceClient::new(client.channel.clone());
    let ask = async |action: i32, version: &str| {
        let request = pb::DowngradeRequest { action, version: version.to_owned() };
        maintenance.clone().downgrade(request).await.map(|response| response.into_inner().version)
    };
    for action in [Validate, Enable] {
        for version in ["", "bogus", "3", "3.x", "3.4.0.1", "v3.4.0"] {
            let text = "etcdserver: wrong downgrade target version format";
            assert_refused(ask(action.into(), version).await, Code::InvalidArgument, text);
        }
        for version in ["3.5.0", "3.6.0", "3.3.0", "2.4.0", "4.4.0"] {
            let text = "etcdserver: invalid downgrade target version";
            assert_refused(ask(action.into(), version).await, Code::InvalidArgument, text);
        }
    }
    let none = "etcdserver: no inflight downgrade job";
    assert_refused(ask(Cancel.into(), "").await, Code::FailedPrecondition, none);
    assert_refused(ask(7, "3.4.0").await, Code::Unknown, "etcdserver: unknown method");

    let enabled = ask(Enable.into(), "3.4").await;
    if let Err(refused) = &enabled
        && refused.message() == "etcdserver: not capable"
    {
        for refused in [enabled, ask(Validate.into(), "3.4.0").await] {
            assert_refused(refused, Code::FailedPrecondition, "etcdserver: not capable");
        }
    } else {
        // etcd 3.5 does it, and lets whoever asked wait for an answer in vain.
        for action in [Validate, Enable] {
            let text = "etcdserver: cluster has a downgrade job in progress";
            assert_refused(ask(action.into(), "3.4.0").await, Code::FailedPrecondition, text);
        }
        let _ = ask(Cancel.into(), "").await;
    }
    assert_refused(ask(Cancel.into(), "").await, Code::FailedPrecondition, none);
}
