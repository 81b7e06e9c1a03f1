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

/// Which of a service's backends a new connection gets.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Any of them.
    #[default]
    Random = 0,
    /// One after the other, in the order of connections on this node.
    RoundRobin = 1,
    /// The one that the client's address and port stand for, on every node that has the same backends. A socket has no
    /// port yet when it connects: there any of them.
    Maglev = 2,
}

impl Algorithm {
    /// The algorithm of this number, [`Algorithm::Random`] for one that this version does not know.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::RoundRobin,
            2 => Self::Maglev,
            _ => Self::Random,
        }
    }
}

/// How connections to a service are spread, whichever backends it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceSettings {
    /// Number of the service, for people and events; the same for all of its frontends.
    pub service: u32,
    /// Which backend a new connection gets.
    pub algorithm: Algorithm,
    /// How long after its last connection a client still gets the backend that it had; 0 for no such promise.
    pub affinity_seconds: u32,
}

/// Value of the `SERVICES` map: a run of the `BACKENDS` array, and of the `MAGLEV` array if it takes a table to find the
/// place in it. Replaced whole, so that a connect sees the old backends or the new ones, never a mixture.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceEntry {
    /// Index of the first backend.
    pub first: u32,
    /// How many places there are. Without any, connecting is refused. Of a service that keeps clients at their backends, a
    /// backend keeps its place while it is there; a place without one has no address, and the table leaves it out.
    pub count: u32,
    /// [`ServiceSettings::service`].
    pub service: u32,
    /// [`ServiceSettings::affinity_seconds`].
    pub affinity_seconds: u32,
    /// Index of the table's first group in the `MAGLEV` array.
    pub table: u32,
    /// Slots of the table; with none, all backends get the same share.
    pub table_len: u32,
    /// How many connections took their turn; counted by the programs, of [`Algorithm::RoundRobin`] alone.
    pub turn: u32,
    /// An [`Algorithm`].
    pub algorithm: u8,
    /// 0; for later use.
    pub reserved: [u8; 3],
}

impl ServiceEntry {
    /// What was set for the service.
    #[must_use]
    pub const fn settings(&self) -> ServiceSettings {
        ServiceSettings {
            service: self.service,
            algorithm: Algorithm::from_number(self.algorithm),
            affinity_seconds: self.affinity_seconds,
        }
    }
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
    /// Its share of new connections beside the others' weights; 0 counts as 1.
    pub weight: u16,
    /// 0; for later use.
    pub reserved: u16,
}

impl Backend {
    /// A backend with the same share as others.
    #[must_use]
    pub const fn new(address: Address, port: [u8; 2], cluster: u16) -> Self {
        Self { address, port, cluster, weight: 1, reserved: 0 }
    }
}

/// Slots in one [`SlotGroup`].
pub const SLOTS_PER_GROUP: u32 = 32;
/// Entries of the `MAGLEV` array.
pub const MAGLEV_LEN: u32 = 1 << 16;

/// Value of the `MAGLEV` map, a `BPF_MAP_TYPE_ARRAY`: a part of a service's table, whose slots say which backend of the
/// run is meant. A cache line, since the kernel gives every element eight bytes at least.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotGroup(pub [u16; SLOTS_PER_GROUP as usize]);

/// Key of the `AFFINITY` map, a `BPF_MAP_TYPE_LRU_HASH`: a client of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// The client's address; of a socket [`AffinityKey::of_namespace`].
    pub client: Address,
    /// [`ServiceSettings::service`].
    pub service: u32,
    /// The service's port, network byte order: another port can lead to another port of the backend.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 0.
    pub reserved: u8,
}

impl AffinityKey {
    /// What stands for the client that all sockets of a network namespace are, by its cookie: a multicast address, which
    /// no client has.
    #[must_use]
    pub const fn of_namespace(cookie: u64) -> Address {
        Address((0xff << 120 | cookie as u128).to_be_bytes())
    }
}

/// Value of the `AFFINITY` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffinityEntry {
    /// When the client last connected, nanoseconds of the kernel's monotonic clock.
    pub last_used: u64,
    /// The backend's address.
    pub address: Address,
    /// The backend's place in the service's run.
    pub place: u32,
    /// The backend's port, network byte order.
    pub port: [u8; 2],
    /// 0.
    pub reserved: [u8; 2],
}

/// A translation that a socket underwent: the service it named and the backend it got instead. Value of
/// `SOCKET_SERVICE`, a `BPF_MAP_TYPE_LRU_HASH` by the cookies of connected sockets, and of `UDP_PEERS`.
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
