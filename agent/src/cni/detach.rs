//! DEL and GC.

use std::collections::BTreeSet;

use landbridge_agent_api::v1;
use landbridge_agent_api::v1::node_client::NodeClient;
use tonic::transport::Channel;

use super::answer::{Answer, CniError, Code};
use super::client::{PROMPT, connect, refused, request, wire};
use super::invocation::NetworkConfig;
use super::namespace::network_error;
use crate::endpoint::Attachment;
use crate::netlink::Netlink;

/// Removes the interface of a container. Whatever is missing is no error, be it the container.
///
/// # Errors
/// [`CniError`] if something is there and cannot be removed.
pub(super) async fn del(config: &NetworkConfig, attachment: &Attachment) -> Result<Answer, CniError> {
    match connect(config).await {
        Ok(mut agent) => undo(&mut agent, attachment).await?,
        Err(error) => {
            // A pod has to be able to end without the agent, which finds the endpoint without its interface.
            eprintln!("{error}; the agent releases the address when it has started");
            remove_interface(attachment).await?;
        }
    }
    Ok(Answer::Done)
}

/// Removes the attachments that the runtime does not know any more.
///
/// # Errors
/// [`CniError`] of the first that cannot be removed; the others are.
pub(super) async fn gc(config: &NetworkConfig) -> Result<Answer, CniError> {
    let Some(valid) = &config.valid_attachments else {
        return Err(CniError::new(
            Code::InvalidConfig,
            "the network configuration has no cni.dev/valid-attachments",
        ));
    };
    let valid: BTreeSet<Attachment> = valid.iter().cloned().map(Attachment::from).collect();
    let mut agent = connect(config).await?;
    let status = agent.get_status(request(v1::GetStatusRequest {}, PROMPT)).await;
    let endpoints = status.map_err(|status| refused("list its endpoints", &status))?.into_inner().endpoints;
    let mut outcome = Ok(Answer::Done);
    for attachment in endpoints.into_iter().filter_map(|endpoint| endpoint.attachment) {
        let attachment =
            Attachment { container_id: attachment.container_id, interface: attachment.interface };
        if !valid.contains(&attachment) {
            let removed = undo(&mut agent, &attachment).await;
            outcome = outcome.and_then(|answer| removed.map(|()| answer));
        }
    }
    outcome
}

/// Removes an interface and ends its endpoint, as far as they are there: in this order, since an interface that no
/// endpoint guards lets everything through, and an address that is released may be another pod's the next moment.
pub(super) async fn undo(agent: &mut NodeClient<Channel>, attachment: &Attachment) -> Result<(), CniError> {
    remove_interface(attachment).await?;
    let deletion = v1::DeleteEndpointRequest { attachment: Some(wire(attachment)) };
    let deleted = agent.delete_endpoint(request(deletion, PROMPT)).await;
    deleted.map(drop).map_err(|status| refused("end the endpoint", &status))
}

/// Removes the node's end of the interface, and with it the container's.
async fn remove_interface(attachment: &Attachment) -> Result<(), CniError> {
    let outcome = async { Netlink::connect()?.remove_link(&attachment.host_interface()).await }.await;
    outcome.map(drop).map_err(|error| network_error("the interface cannot be removed", &error))
}
