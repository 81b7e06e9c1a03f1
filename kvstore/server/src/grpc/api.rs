//! All services behind one function, which finds the service of a request by its path alone.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use hyper::body::Body as HttpBody;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service as _, StdError};
use tonic::service::Routes;

use super::proto::DESCRIPTORS;
use super::proto::etcdserverpb as pb;
use super::proto::v3electionpb::election_server::ElectionServer;
use super::proto::v3lockpb::lock_server::LockServer;
use super::service::{Peer, Service};
use super::status::message_too_large;
use super::unary;
use pb::auth_server::AuthServer;
use pb::cluster_server::ClusterServer;
use pb::kv_server::{Kv as _, KvServer};
use pb::lease_server::LeaseServer;
use pb::maintenance_server::MaintenanceServer;
use pb::watch_server::WatchServer;

/// What gRPC takes beyond the largest request, as in etcd.
const OVERHEAD_BYTES: usize = 512 << 10;

/// All services, as gRPC reaches them.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    service: Service,
    kv: KvServer<Service>,
    watch: WatchServer<Service>,
    lease: LeaseServer<Service>,
    maintenance: MaintenanceServer<Service>,
    cluster: ClusterServer<Service>,
    auth: AuthServer<Service>,
    lock: LockServer<Service>,
    election: ElectionServer<Service>,
    /// Whether it is well, and what there is.
    others: Routes,
}

impl Api {
    pub(crate) fn new(service: &Service) -> Self {
        let largest = service.largest_message();
        // Responses are as large as what was asked for.
        macro_rules! limited {
            ($server:ident) => {
                $server::new(service.clone())
                    .max_decoding_message_size(largest)
                    .max_encoding_message_size(usize::MAX)
            };
        }
        let (_, health) = tonic_health::server::health_reporter();
        let mut others = Routes::new(health);
        // The descriptors were made together with this program.
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
            others = others.add_service(v1).add_service(v1alpha);
        }
        Self {
            service: service.clone(),
            kv: limited!(KvServer),
            watch: limited!(WatchServer),
            lease: limited!(LeaseServer),
            maintenance: limited!(MaintenanceServer),
            cluster: limited!(ClusterServer),
            auth: limited!(AuthServer),
            lock: limited!(LockServer),
            election: limited!(ElectionServer),
            others: others.prepare(),
        }
    }

    /// Answers a gRPC request.
    pub(crate) fn call<B>(&self, mut request: Request<B>) -> BoxFuture<Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let path = request.uri().path();
        let admitted = self.service.check_learner(path).and_then(|()| self.service.admit(request.headers()));
        if let Err(refusal) = admitted {
            return Box::pin(ready(Ok(refusal.into_http())));
        }
        let mut peer = Peer::of(request.extensions());
        peer.take_headers(request.headers());
        request.extensions_mut().insert(peer);
        // Those that a store is there for.
        macro_rules! unary {
            ($method:ident) => {{
                let service = self.service.clone();
                Box::pin(async move {
                    let answer = async {
                        let request = unary::receive(request, service.largest_message()).await?;
                        service.$method(request).await
                    };
                    Ok(unary::respond(answer.await))
                })
            }};
        }
        let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let (service, method) = path.unzip();
        if is_direct(service.unwrap_or_default(), method.unwrap_or_default()) {
            match method {
                Some("Range") => return unary!(range),
                Some("Put") => return unary!(put),
                Some("Txn") => return unary!(txn),
                Some("DeleteRange") => return unary!(delete_range),
                _ => {}
            }
        }
        match service {
            Some("etcdserverpb.KV") => self.kv.clone().call(request),
            Some("etcdserverpb.Watch") => self.watch.clone().call(request),
            Some("etcdserverpb.Lease") => self.lease.clone().call(request),
            Some("etcdserverpb.Maintenance") => self.maintenance.clone().call(request),
            Some("etcdserverpb.Cluster") => self.cluster.clone().call(request),
            Some("etcdserverpb.Auth") => self.auth.clone().call(request),
            Some("v3lockpb.Lock") => self.lock.clone().call(request),
            Some("v3electionpb.Election") => self.election.clone().call(request),
            _ => {
                let answer = self.others.clone().call(request.map(Body::new));
                Box::pin(async move { Ok(answer.await.unwrap_or_else(|never| match never {})) })
            }
        }
    }
}

/// Whether a call is answered here, and built as a whole once there is room for its answer.
pub(crate) fn is_direct(service: &str, method: &str) -> bool {
    service == "etcdserverpb.KV" && matches!(method, "Range" | "Put" | "Txn" | "DeleteRange")
}

impl Service {
    /// The largest message that gRPC takes, in bytes.
    pub(crate) fn largest_message(&self) -> usize {
        self.settings().max_request_bytes.saturating_add(OVERHEAD_BYTES)
    }
}

/// A response with the code that etcd's gRPC has where tonic's has another.
pub(crate) fn as_etcd(response: Response<Body>) -> Response<Body> {
    message_too_large(response)
}
