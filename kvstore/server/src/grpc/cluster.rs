//! Members.

use tonic::{Request, Response, Status};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use crate::access::Permissions;
use crate::engine::ClusterMember;

impl Service {
    /// Checks that whoever asks may change the members.
    async fn may_change_members(&self, peer: Peer) -> Result<(), Status> {
        self.permitted(&peer, Permissions::root).await?;
        Ok(())
    }

    /// All members, as etcd tells them. One that has not started has neither a name nor URLs for clients.
    fn members(&self) -> Vec<pb::Member> {
        let own = self.engine().status().member_id;
        let member = |member: ClusterMember| {
            let is_this = member.id == own;
            pb::Member {
                id: member.id,
                name: member.name,
                peer_ur_ls: member.peer_urls,
                // What this member says about itself may not have come around yet.
                client_ur_ls: if is_this { self.advertise().to_vec() } else { member.client_urls },
                is_learner: member.is_learner,
            }
        };
        self.engine().members().into_iter().map(member).collect()
    }

    /// The members have no revision.
    fn members_header(&self) -> pb::ResponseHeader {
        self.header_of_term(0, self.engine().term())
    }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for Service {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.permitted(&Peer::of(request.extensions()), |_| Ok(())).await?;
        if request.get_ref().linearizable {
            self.engine().read_barrier().await?;
        }
        let (header, members) = (Some(self.members_header()), self.members());
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.may_change_members(Peer::of(request.extensions())).await?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let id = self.engine().add_member(peer_ur_ls, is_learner).await?;
        // Whoever asked gets to see it, though the leader may have been another member.
        self.engine().read_barrier().await?;
        let (header, members) = (Some(self.members_header()), self.members());
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.may_change_members(Peer::of(request.extensions())).await?;
        let id = request.get_ref().id;
        self.engine().remove_member(id).await?;
        let (header, mut members) = (Some(self.members_header()), self.members());
        // It may not have come around to this member yet.
        members.retain(|member| member.id != id);
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.may_change_members(Peer::of(request.extensions())).await?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        self.engine().update_member(id, peer_ur_ls).await?;
        self.engine().read_barrier().await?;
        let (header, members) = (Some(self.members_header()), self.members());
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.may_change_members(Peer::of(request.extensions())).await?;
        self.engine().promote_member(request.get_ref().id).await?;
        self.engine().read_barrier().await?;
        let (header, members) = (Some(self.members_header()), self.members());
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}
