//! Which backend of a service a connection gets.
//!
//! ```text
//!  client ─► has it one, and has the service it still? ─ yes ─► that one
//!              │ no
//!  number ─► slot of the table ─► place in the run ─► backend     (no table: every place alike)
//! ```

use landbridge_bpf_maps::{
    Address, AffinityEntry, AffinityKey, Algorithm, Backend, SLOTS_PER_GROUP, ServiceEntry, ServiceKey,
    SlotGroup,
};

use crate::hash::Hash;

/// The maps of services. What they hold is lent and not copied: there is little room for copies in the kernel.
pub trait Services {
    /// The backend at an index of the array.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// A slot of the group at an index of the array of tables.
    fn slot(&self, group: u32, slot: u32) -> Option<u16>;
    /// The backend that a client had.
    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityEntry>;
    /// Notes which one it has. If that is impossible, its next connection may get another one.
    fn keep(&self, key: &AffinityKey, entry: &AffinityEntry);
}

/// What decides about a new connection.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Decides between backends, any number: by chance, or [`tuple_hash`].
    pub number: u32,
    /// How many connections took their turn before.
    pub turn: u32,
    /// The monotonic clock in nanoseconds.
    pub now: u64,
}

/// The backend of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its index in the array.
    pub index: u32,
    /// It was chosen for this connection: the client had none. Of an algorithm that goes by turns, this was one.
    pub is_chosen: bool,
}

const SECOND: u64 = 1_000_000_000;

/// The backend for a new connection to `service`; nothing if it has none. `client` is the client's key if the
/// service keeps clients at their backends, and else not looked at.
#[inline(always)]
pub fn select<S: Services>(
    maps: &S,
    service: &ServiceEntry,
    client: &AffinityKey,
    request: &Request,
) -> Option<Selected> {
    if service.affinity_seconds == 0 {
        let index = choose(maps, service, request.number, request.turn)?;
        return Some(Selected { index, is_chosen: true });
    }
    if let Some(had) = maps.affinity(client)
        && request.now.saturating_sub(had.last_used) < nanoseconds(service.affinity_seconds)
        && had.place < service.count
    {
        let index = service.first.wrapping_add(had.place);
        let backend = maps.backend(index)?;
        if backend.address == had.address && backend.port == had.port {
            let entry = AffinityEntry { last_used: request.now, ..*had };
            maps.keep(client, &entry);
            return Some(Selected { index, is_chosen: false });
        }
    }
    let index = choose(maps, service, request.number, request.turn)?;
    let chosen = maps.backend(index)?;
    let entry = AffinityEntry {
        last_used: request.now,
        address: chosen.address,
        place: index.wrapping_sub(service.first),
        port: chosen.port,
        reserved: [0; 2],
    };
    maps.keep(client, &entry);
    Some(Selected { index, is_chosen: true })
}

#[inline(always)]
fn nanoseconds(seconds: u32) -> u64 {
    u64::from(seconds).wrapping_mul(SECOND)
}

/// The index of the backend that a number stands for.
#[inline(always)]
pub fn choose<S: Services>(maps: &S, service: &ServiceEntry, number: u32, turn: u32) -> Option<u32> {
    let among = if service.table_len > 0 { service.table_len } else { service.count };
    let takes_turns = service.algorithm == Algorithm::RoundRobin as u8;
    let at = if takes_turns { turn.checked_rem(among)? } else { scaled(number, among) };
    let place = if service.table_len > 0 {
        let group = service.table.wrapping_add(at / SLOTS_PER_GROUP);
        u32::from(maps.slot(group, at % SLOTS_PER_GROUP)?)
    } else {
        at
    };
    (place < service.count).then_some(service.first.wrapping_add(place))
}

/// A number as one below `bound`, without a division.
#[inline(always)]
fn scaled(number: u32, bound: u32) -> u32 {
    ((u64::from(number) * u64::from(bound)) >> 32) as u32
}

/// The key of a client that connects to the service at `key`.
#[inline(always)]
pub const fn client_key(client: Address, key: &ServiceKey, service: &ServiceEntry) -> AffinityKey {
    AffinityKey { client, service: service.service, port: key.port, protocol: key.protocol, reserved: 0 }
}

/// The number of a connection, the same on every node: of all connections of a client if the service keeps clients at
/// their backends.
#[inline(always)]
pub fn tuple_hash(key: &ServiceKey, service: &ServiceEntry, client: &Address, port: [u8; 2]) -> u32 {
    let port = if service.affinity_seconds == 0 { port } else { [0; 2] };
    let hash = Hash::new().address(client).address(&key.address).ports(port, key.port);
    (hash.word(key.protocol as u64).end() >> 32) as u32
}

/// Group and place within of a slot of a table.
#[must_use]
pub const fn groups_of(table_len: u32) -> u32 {
    table_len.div_ceil(SLOTS_PER_GROUP)
}

/// The slot of a group.
#[inline(always)]
pub fn slot_of(group: &SlotGroup, slot: u32) -> Option<u16> {
    group.0.get(slot as usize).copied()
}

#[cfg(test)]
mod tests;
