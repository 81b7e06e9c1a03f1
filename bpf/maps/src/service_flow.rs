//! Connections to services whose packets are translated, since no socket program saw them begin.
//!
//! Each is two entries: from what the client sends to the backend, and from what the backend answers to the service.

use crate::Address;

/// Key of the `SERVICE_FLOWS` map, a `BPF_MAP_TYPE_LRU_HASH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceFlowKey {
    /// Address of the pod that began.
    pub client: Address,
    /// Address of the service; of the backend in the entry for answers.
    pub server: Address,
    /// Network byte order.
    pub client_port: [u8; 2],
    /// Likewise.
    pub server_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// [`ServiceFlowKey::TO_SERVICE`] or [`ServiceFlowKey::FROM_BACKEND`].
    pub way: u8,
    /// [`Endpoint::tag`](crate::Endpoint::tag) of the client: a pod that gets the address of one before it gets none of its
    /// connections.
    pub endpoint: u16,
}

impl ServiceFlowKey {
    /// `server` is a service.
    pub const TO_SERVICE: u8 = 0;
    /// `server` is a backend.
    pub const FROM_BACKEND: u8 = 1;
}

/// Value of the `SERVICE_FLOWS` map: the key's server under its other name. It lives as long as the connection between
/// client and backend does in `CONNECTIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceFlow {
    /// The backend's address; the service's in the entry for answers.
    pub address: Address,
    /// Its port, network byte order.
    pub port: [u8; 2],
    /// 0.
    pub reserved: [u8; 2],
    /// The backend's place in the service's run when it was chosen.
    pub place: u32,
}
