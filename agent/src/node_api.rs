//! The node API on its Unix socket: what the CNI plugin asks.

mod socket;

use std::time::Duration;

use landbridge_agent_api::v1;
use landbridge_agent_api::v1::node_server::{Node, NodeServer};
use landbridge_kvstore_schema::{ClusterName, NamespacedName, ObjectName};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub(crate) use socket::NodeSocket;

use crate::endpoint::{Activation, AllocateError, Attachment};
use crate::error_chain::chain;
use crate::feeds::PREFIXES;
use crate::netlink::Mac;
use crate::reconciler::{NodeError, NodeHandle, View};

/// How long a call may wait, whatever its caller allows.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// What is kept of a call's time for its answer.
const ANSWER_TIME: Duration = Duration::from_millis(500);

const IDENTITY_ADVICE: &str =
    "look whether the apiserver publishes the pod (landbridge/local/pods/) and its identity";
const MAPS_ADVICE: &str = "look for the agent's warnings about maps";

/// Answers calls.
pub(crate) struct NodeService {
    /// The node's cluster.
    pub(crate) cluster: ClusterName,
    /// The node.
    pub(crate) node: ObjectName,
    /// Whom to ask.
    pub(crate) reconciler: NodeHandle,
    /// How far the reconciler is.
    pub(crate) view: watch::Receiver<View>,
}

impl NodeService {
    /// Serves `socket` until `stop`; then calls under way may end.
    ///
    /// # Errors
    /// The transport's.
    pub(crate) async fn serve(
        self,
        socket: NodeSocket,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let (listener, _path_and_lock) = socket.into_listener();
        let calls = UnixListenerStream::new(listener);
        let server = Server::builder().add_service(NodeServer::new(self));
        server.serve_with_incoming_shutdown(calls, stop.cancelled_owned()).await
    }

    /// Says what a call waited for in vain, and where to look once the store is read.
    fn timed_out(&self, what: &str, waited: Duration, advice: &str) -> Status {
        let complete = self.view.borrow().complete_feeds;
        let total = PREFIXES.len();
        let why = if complete < total {
            format!(
                "{complete} of {total} parts of the store are read: look for the agent's warnings about it"
            )
        } else {
            format!("the store is read: {advice}")
        };
        Status::unavailable(format!("{what} within {waited:?}; {why}"))
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn allocate_endpoint(
        &self,
        request: Request<v1::AllocateEndpointRequest>,
    ) -> Result<Response<v1::AllocateEndpointResponse>, Status> {
        let wait = wait(&request);
        let request = request.into_inner();
        let attachment = attachment(request.attachment)?;
        let pod = NamespacedName::new(&request.namespace, &request.pod)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let allocation = timeout(wait, self.reconciler.allocate(attachment, pod.clone())).await;
        let allocation = allocation.map_err(|_| {
            self.timed_out(&format!("the identity of pod {pod} is not known"), wait, IDENTITY_ADVICE)
        })?;
        let allocation = allocation.map_err(|error| status(&error))?;
        Ok(Response::new(v1::AllocateEndpointResponse {
            addresses: allocation.addresses.iter().map(ToString::to_string).collect(),
            gateways: allocation.routers.iter().map(ToString::to_string).collect(),
            host_interface: allocation.host_interface,
            mtu: allocation.mtu,
            identity: allocation.identity,
        }))
    }

    async fn activate_endpoint(
        &self,
        request: Request<v1::ActivateEndpointRequest>,
    ) -> Result<Response<v1::ActivateEndpointResponse>, Status> {
        let wait = wait(&request);
        let request = request.into_inner();
        let attachment = attachment(request.attachment)?;
        let activation = Activation {
            pod_mac: mac("pod_mac", &request.pod_mac)?,
            host_mac: mac("host_mac", &request.host_mac)?,
            network_namespace: request.network_namespace,
        };
        let activated = timeout(wait, self.reconciler.activate(attachment, activation)).await;
        let activated = activated
            .map_err(|_| self.timed_out("the endpoint is not in the datapath's maps", wait, MAPS_ADVICE))?;
        activated.map_err(|error| status(&error))?;
        Ok(Response::new(v1::ActivateEndpointResponse {}))
    }

    async fn delete_endpoint(
        &self,
        request: Request<v1::DeleteEndpointRequest>,
    ) -> Result<Response<v1::DeleteEndpointResponse>, Status> {
        let attachment = attachment(request.into_inner().attachment)?;
        self.reconciler.delete(attachment).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::DeleteEndpointResponse {}))
    }

    async fn check_endpoint(
        &self,
        request: Request<v1::CheckEndpointRequest>,
    ) -> Result<Response<v1::CheckEndpointResponse>, Status> {
        let attachment = attachment(request.into_inner().attachment)?;
        self.reconciler.check(attachment).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::CheckEndpointResponse {}))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let endpoints = self.reconciler.endpoints().await.map_err(|error| status(&error))?;
        let endpoints = endpoints.into_iter().map(|(record, identity)| v1::Endpoint {
            namespace: record.namespace.to_string(),
            pod: record.pod.to_string(),
            addresses: vec![record.address.to_string()],
            identity: identity.unwrap_or_default(),
            attachment: Some(v1::Attachment {
                container_id: record.attachment.container_id,
                interface: record.attachment.interface,
            }),
        });
        Ok(Response::new(v1::GetStatusResponse {
            cluster: self.cluster.to_string(),
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoints: endpoints.collect(),
        }))
    }
}

fn attachment(attachment: Option<v1::Attachment>) -> Result<Attachment, Status> {
    let attachment = attachment.filter(|attachment| !attachment.container_id.is_empty());
    let attachment = attachment.filter(|attachment| !attachment.interface.is_empty());
    let attachment =
        attachment.ok_or_else(|| Status::invalid_argument("the attachment is not given whole"))?;
    Ok(Attachment { container_id: attachment.container_id, interface: attachment.interface })
}

fn mac(field: &str, bytes: &[u8]) -> Result<Mac, Status> {
    Mac::try_from(bytes)
        .map_err(|_| Status::invalid_argument(format!("{field} has {} bytes, not 6", bytes.len())))
}

fn status(error: &NodeError) -> Status {
    let message = chain(error);
    match error {
        NodeError::Stopping => Status::unavailable(message),
        NodeError::Allocate(AllocateError::Exhausted(_) | AllocateError::NoNumber) => {
            Status::resource_exhausted(message)
        }
        NodeError::Allocate(AllocateError::OtherPod { .. } | AllocateError::NameTaken(_)) => {
            Status::already_exists(message)
        }
        NodeError::Unknown(_) => Status::not_found(message),
        NodeError::Broken { .. } => Status::failed_precondition(message),
        NodeError::Allocate(AllocateError::State(_))
        | NodeError::Interface(_)
        | NodeError::Datapath(_)
        | NodeError::State(_) => Status::internal(message),
    }
}

/// How long a call may wait so that its answer still arrives in time.
fn wait<T>(request: &Request<T>) -> Duration {
    let deadline = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    let deadline = deadline.and_then(parse_timeout).map(|deadline| deadline.saturating_sub(ANSWER_TIME));
    deadline.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

/// Reads the header of a call's deadline: up to 8 digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read() {
        for (text, expected) in [
            ("30S", Some(Duration::from_secs(30))),
            ("1500m", Some(Duration::from_millis(1500))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("2H", Some(Duration::from_hours(2))),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("5ä", None),
            ("5x", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_answer_still_arrives_in_time() {
        let mut request = Request::new(());
        assert_eq!(wait(&request), LONGEST_WAIT);
        request.metadata_mut().insert("grpc-timeout", "2000m".parse().unwrap());
        assert_eq!(wait(&request), Duration::from_millis(1500));
        request.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
        assert_eq!(wait(&request), Duration::ZERO);
    }
}
