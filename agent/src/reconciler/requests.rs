//! What the reconciler is asked by others, one request at a time.

use std::net::IpAddr;

use landbridge_bpf_loader::DatapathError;
use landbridge_bpf_maps::{Direction, Reason, SocketService, TrafficCount};
use landbridge_kvstore_schema::NamespacedName;
use tokio::sync::{mpsc, oneshot};

use crate::endpoint::{Activation, AllocateError, Attachment, EndpointRecord, UnknownEndpoint};
use crate::netlink::NetlinkError;
use crate::state_dir::StateError;

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// The agent ends.
    #[error("the agent is stopping: try again when it has started")]
    Stopping,
    /// No address can be given.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// It was never allocated, or is deleted.
    #[error(transparent)]
    Unknown(#[from] UnknownEndpoint),
    /// The node's side of the interface is not there.
    #[error(transparent)]
    Interface(#[from] NetlinkError),
    /// The datapath does not take it.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// It cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is not as it was made.
    #[error("endpoint {id} of pod {pod} {what}: delete the pod, so that it is made anew")]
    Broken {
        /// Its number.
        id: u16,
        /// Its pod.
        pod: NamespacedName,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What an interface is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// Addresses of the pod, one of each family that the node has.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where the pod sends everything, in the same order.
    pub(crate) routers: Vec<IpAddr>,
    /// Name of the node's side of the interface.
    pub(crate) host_interface: String,
    /// The largest packet that the pod may send, in bytes.
    pub(crate) mtu: u32,
    /// Security identity of the pod.
    pub(crate) identity: u32,
}

/// An endpoint and the identity that it has now, if it is known.
pub(crate) type EndpointStatus = (EndpointRecord, Option<u32>);

/// What was dropped, by reason and direction.
pub(crate) type Drops = Vec<(Reason, Direction, TrafficCount)>;

/// A connection of a socket that calls a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// The service, and the backend that it is connected to.
    pub(crate) translation: SocketService,
}

type Reply<T> = oneshot::Sender<Result<T, NodeError>>;

/// A request, with where its answer goes. A request whose answer nobody waits for any more is dropped.
pub(super) enum Request {
    Allocate { attachment: Attachment, pod: NamespacedName, reply: Reply<Allocation> },
    Activate { attachment: Attachment, activation: Activation, reply: Reply<()> },
    Delete { attachment: Attachment, reply: Reply<()> },
    Check { attachment: Attachment, reply: Reply<()> },
    Endpoints { reply: Reply<Vec<EndpointStatus>> },
    Drops { reply: Reply<Drops> },
    Stale { connections: Vec<Connection>, reply: Reply<Vec<bool>> },
}

/// Asks the reconciler. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct NodeHandle {
    requests: mpsc::Sender<Request>,
}

impl NodeHandle {
    pub(super) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    /// Reserves an address, as soon as the pod's identity is known: the caller sets the deadline.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(crate) async fn allocate(
        &self,
        attachment: Attachment,
        pod: NamespacedName,
    ) -> Result<Allocation, NodeError> {
        self.ask(|reply| Request::Allocate { attachment, pod, reply }).await
    }

    /// Serves an interface; returns once the maps say so: the caller sets the deadline.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(crate) async fn activate(
        &self,
        attachment: Attachment,
        activation: Activation,
    ) -> Result<(), NodeError> {
        self.ask(|reply| Request::Activate { attachment, activation, reply }).await
    }

    /// Ends an endpoint. One that is not there is no error.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(crate) async fn delete(&self, attachment: Attachment) -> Result<(), NodeError> {
        self.ask(|reply| Request::Delete { attachment, reply }).await
    }

    /// Whether an endpoint is served as it was made.
    ///
    /// # Errors
    /// [`NodeError::Unknown`] or [`NodeError::Broken`] if not.
    pub(crate) async fn check(&self, attachment: Attachment) -> Result<(), NodeError> {
        self.ask(|reply| Request::Check { attachment, reply }).await
    }

    /// Every endpoint.
    ///
    /// # Errors
    /// [`NodeError::Stopping`].
    pub(crate) async fn endpoints(&self) -> Result<Vec<EndpointStatus>, NodeError> {
        self.ask(|reply| Request::Endpoints { reply }).await
    }

    /// What the datapath dropped since it was set up.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(crate) async fn drops(&self) -> Result<Drops, NodeError> {
        self.ask(|reply| Request::Drops { reply }).await
    }

    /// Which of these are to end, in their order.
    ///
    /// # Errors
    /// [`NodeError::Stopping`].
    pub(crate) async fn stale(&self, connections: Vec<Connection>) -> Result<Vec<bool>, NodeError> {
        self.ask(|reply| Request::Stale { connections, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| NodeError::Stopping)?;
        answer.await.unwrap_or(Err(NodeError::Stopping))
    }
}
