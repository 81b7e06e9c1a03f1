//! Calls to the agent of the node.

use std::time::Duration;

use landbridge_agent_api::v1;
use landbridge_agent_api::v1::node_client::NodeClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code as GrpcCode, Request, Status};

use super::answer::{Answer, CniError, Code};
use super::invocation::NetworkConfig;
use crate::endpoint::Attachment;

/// How long a call may take that waits for the store. The runtime waits for minutes.
pub(super) const WAIT: Duration = Duration::from_secs(30);
/// How long a call may take that needs the agent alone.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

/// Connects to the agent.
///
/// # Errors
/// [`Code::TryAgainLater`] if nobody is there.
pub(super) async fn connect(config: &NetworkConfig) -> Result<NodeClient<Channel>, CniError> {
    let socket = config.agent_socket.display();
    let endpoint = Endpoint::from_shared(format!("unix://{socket}"));
    let endpoint = endpoint.map_err(|error| {
        CniError::new(Code::InvalidConfig, format!("agentSocket {socket} is no path")).because(&error)
    })?;
    let channel = endpoint.connect_timeout(PROMPT).connect().await.map_err(|error| {
        CniError::new(
            Code::TryAgainLater,
            format!("the agent does not answer at {socket}: start landbridge-agent"),
        )
        .because(&error)
    })?;
    Ok(NodeClient::new(channel))
}

/// Answers STATUS: whether ADD could be served.
pub(super) async fn status(config: &NetworkConfig) -> Result<Answer, CniError> {
    let unavailable = |details: String| {
        CniError::new(Code::NotAvailable, "the agent cannot serve pods now").with_details(details)
    };
    let mut agent = connect(config).await.map_err(|error| unavailable(error.to_string()))?;
    let status = agent.get_status(request(v1::GetStatusRequest {}, PROMPT)).await;
    status.map_err(|status| unavailable(status.message().to_owned()))?;
    Ok(Answer::Done)
}

/// A request with a deadline.
pub(super) fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// What the runtime is told of a call that failed.
pub(super) fn refused(action: &str, status: &Status) -> CniError {
    let code = match status.code() {
        GrpcCode::Unavailable
        | GrpcCode::DeadlineExceeded
        | GrpcCode::Cancelled
        | GrpcCode::ResourceExhausted => Code::TryAgainLater,
        GrpcCode::AlreadyExists => Code::Exists,
        _ => Code::Refused,
    };
    CniError::new(code, format!("the agent did not {action}")).with_details(status.message())
}

/// As the API has it.
pub(super) fn wire(attachment: &Attachment) -> v1::Attachment {
    v1::Attachment { container_id: attachment.container_id.clone(), interface: attachment.interface.clone() }
}
