//! Service addresses and what is behind them.

use crate::Address;

/// Key of the `SERVICES` map, a `BPF_MAP_TYPE_HASH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The service's address.
    pub address: Address,
    /// Network byte order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 0; for later use.
    pub scope: u8,
}

/// Value of the `SERVICES` map: a run of the `BACKENDS` array. Replaced whole, so that a connect sees the old backends or
/// the new ones, never a mixture.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceEntry {
    /// Index of the first backend.
    pub first: u32,
    /// How many there are. With none, connecting is refused.
    pub count: u32,
    /// Number of the service, for people and events.
    pub service: u32,
    /// 0; for later use.
    pub flags: u32,
}

/// Entries of the `BACKENDS` array.
pub const BACKENDS_LEN: u32 = 1 << 18;

/// Value of the `BACKENDS` map, a `BPF_MAP_TYPE_ARRAY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The backend's address.
    pub address: Address,
    /// Network byte order.
    pub port: [u8; 2],
    /// Id of the cluster that it is in, for people and events.
    pub cluster: u16,
}

/// A translation that a socket underwent: the service it named and the backend it got instead. Value of
/// `SOCKET_SERVICE`, a `BPF_MAP_TYPE_SK_STORAGE`, and of `UDP_PEERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketService {
    /// The service's address.
    pub address: Address,
    /// The backend's address. A socket that talks to someone else by now is not translated back.
    pub backend: Address,
    /// The service's port, network byte order.
    pub port: [u8; 2],
    /// The backend's port, network byte order.
    pub backend_port: [u8; 2],
}

/// Key of the `UDP_PEERS` map, a `BPF_MAP_TYPE_LRU_HASH`: an unconnected socket and the backend that it sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpPeerKey {
    /// The socket's cookie.
    pub socket: u64,
    /// The backend's address.
    pub address: Address,
    /// The backend's port, network byte order.
    pub port: [u8; 2],
    /// 0.
    pub reserved: [u8; 6],
}
