//! Locks: a queue whose first has the lock.

use tonic::{Request, Response, Status};

use super::proto::etcdserverpb as pb;
use super::proto::v3lockpb::lock_server::Lock;
use super::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use super::queue::{Caller, Standing, without_code};
use super::service::Service;

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::of(self, request);
        let standing = Standing { name, lease, value: bytes::Bytes::new(), ask_first: true };
        let finish = |caller: Caller, place: super::queue::Place, has_waited: bool| async move {
            let mut header = place.header;
            if has_waited {
                // Its lease may have ended meanwhile.
                let request = pb::RangeRequest { key: place.key.clone(), ..Default::default() };
                let found = caller.range(request).await?;
                if found.kvs.is_empty() {
                    return Err(Status::unknown("mutex: session is expired"));
                }
                header = found.header.unwrap_or_default();
            }
            Ok(LockResponse { header: Some(header), key: place.key })
        };
        caller.stand(standing, finish).await.map(Response::new)
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(self, request);
        let deleted = caller.delete(key).await.map_err(|status| without_code(&status))?;
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}
