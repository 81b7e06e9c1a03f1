//! The calls of the API.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use landbridge_apiserver_api::v1::admin_server::Admin;
use landbridge_apiserver_api::v1::{
    AddPeerRequest, AddPeerResponse, ConfirmPeerRequest, ConfirmPeerResponse, DescribeClusterRequest,
    DescribeClusterResponse, GetStatusRequest, GetStatusResponse, RemovePeerRequest, RemovePeerResponse,
    RequestCertificateRequest, RequestCertificateResponse, SignCertificateRequest, SignCertificateResponse,
};
use tonic::{Request, Response, Status};

use super::AdminContext;

pub(super) struct Service(pub(super) Arc<AdminContext>);

#[tonic::async_trait]
impl Admin for Service {
    async fn describe_cluster(
        &self,
        _request: Request<DescribeClusterRequest>,
    ) -> Result<Response<DescribeClusterResponse>, Status> {
        Ok(Response::new(self.0.describe(SystemTime::now())?))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status(SystemTime::now(), Instant::now()).await?))
    }

    async fn request_certificate(
        &self,
        request: Request<RequestCertificateRequest>,
    ) -> Result<Response<RequestCertificateResponse>, Status> {
        let certificate_request = self.0.request_certificate(&request.get_ref().peer).await?;
        Ok(Response::new(RequestCertificateResponse { certificate_request }))
    }

    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let SignCertificateRequest { peer, certificate_request } = request.into_inner();
        let certificate = self.0.sign_certificate(&peer, &certificate_request, SystemTime::now()).await?;
        Ok(Response::new(SignCertificateResponse { certificate }))
    }

    async fn add_peer(&self, request: Request<AddPeerRequest>) -> Result<Response<AddPeerResponse>, Status> {
        let revision = self.0.add_peer(request.into_inner(), SystemTime::now()).await?;
        Ok(Response::new(AddPeerResponse { revision }))
    }

    async fn confirm_peer(
        &self,
        request: Request<ConfirmPeerRequest>,
    ) -> Result<Response<ConfirmPeerResponse>, Status> {
        self.0.confirm_peer(&request.get_ref().peer).await?;
        Ok(Response::new(ConfirmPeerResponse {}))
    }

    async fn remove_peer(
        &self,
        request: Request<RemovePeerRequest>,
    ) -> Result<Response<RemovePeerResponse>, Status> {
        let removed = self.0.remove_peer(&request.get_ref().peer).await?;
        Ok(Response::new(RemovePeerResponse { removed }))
    }
}
