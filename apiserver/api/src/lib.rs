//! The admin API: the one door of a cluster for whoever runs it, and for `clusterctl`.

/// Version 1, `landbridge.admin.v1`.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated; its documentation is proto/landbridge/admin/v1/admin.proto"
)]
pub mod v1 {
    tonic::include_proto!("landbridge.admin.v1");
}
