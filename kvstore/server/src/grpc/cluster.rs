//! Members.

use tonic::{Request, Response, Status};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;

/// Why members neither come nor go.
const ONE_MEMBER: &str = "the cluster has one member, and cannot be given others yet";

impl Service {
    /// Refuses a change of the members.
    fn unchangeable<T, R>(&self, request: &Request<T>) -> Result<R, Status> {
        self.permissions(&Peer::of(request.extensions()))?.root()?;
        Err(status::unimplemented(ONE_MEMBER))
    }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for Service {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.permissions(&Peer::of(request.extensions()))?;
        if request.get_ref().linearizable {
            self.engine().read_barrier().await?;
        }
        let status = self.engine().status();
        let member = pb::Member {
            id: status.member_id,
            name: status.name,
            peer_ur_ls: status.peer_urls,
            client_ur_ls: self.advertise().to_vec(),
            is_learner: false,
        };
        // The members have no revision.
        let header = self.header_of_term(0, status.term);
        Ok(Response::new(pb::MemberListResponse { header: Some(header), members: vec![member] }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.unchangeable(&request)
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.unchangeable(&request)
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.unchangeable(&request)
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.unchangeable(&request)
    }
}
