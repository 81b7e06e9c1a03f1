//! The node API: what the agent of a node is asked, by the CNI plugin over a Unix socket.

/// Version 1, `landbridge.node.v1`.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated; its documentation is proto/landbridge/node/v1/node.proto"
)]
pub mod v1 {
    tonic::include_proto!("landbridge.node.v1");
}
