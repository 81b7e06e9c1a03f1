//! Under which address and port of the node a pod speaks to the world, and whose an answer is.
//!
//! ```text
//!  pod:port ─► far     the pod's entry ─► node:other ─► far
//!  pod:port ◄─ far ◄── the node's entry ◄─ node:other ◄─ far
//! ```
//!
//! Invariants:
//! - The node's entry decides whose a port is: a pod's entry whose port is another's by now counts for nothing.
//! - A port is taken from a pod only if the connection that it was for is over.
//! - Replies to whoever came from the world to the pod itself leave under the pod's own address.

use landbridge_bpf_maps::{
    Address, ConnectionKey, Direction, MASQUERADE_PORTS, MasqueradeEntry, MasqueradeKey, Reason,
};

use crate::admission::Connections;
use crate::packet::{Flow, has_ports};

/// The map of translations.
pub trait Masquerades {
    /// The entry of exactly this key.
    fn translation(&self, key: &MasqueradeKey) -> Option<MasqueradeEntry>;
    /// Writes an entry where there is none; false if there is one, or no room.
    fn claim(&self, key: &MasqueradeKey, entry: &MasqueradeEntry) -> bool;
    /// Writes an entry, whatever was there; false if there is no room.
    fn replace(&self, key: &MasqueradeKey, entry: &MasqueradeEntry) -> bool;

    /// [`find_port`] in this map.
    #[inline(always)]
    fn find_port(&self, back: &mut MasqueradeKey, owner: &MasqueradeEntry, choice: u32, now: u64) -> bool
    where
        Self: Connections,
    {
        find_port(self, back, owner, choice, now)
    }

    /// [`take`] in this map.
    #[inline(always)]
    fn take(&self, back: &MasqueradeKey, owner: &MasqueradeEntry, now: u64) -> bool
    where
        Self: Connections,
    {
        take(self, back, owner, now)
    }
}

/// Ports that are tried before a connection is refused.
const TRIES: u16 = 16;
const FIRST_PORT: u16 = *MASQUERADE_PORTS.start();
const PORTS: u16 = *MASQUERADE_PORTS.end() - FIRST_PORT + 1;

/// Echoes have one identifier for both sides, which changes for both.
#[inline(always)]
const fn far_port(protocol: u8, port: [u8; 2]) -> [u8; 2] {
    if has_ports(protocol) { port } else { [0; 2] }
}

/// What a packet from the pod with this endpoint tag to the world leaves under; nothing if it is to be left alone.
/// `node` is the node's address, `choice` says where the search for a port begins, and `now` is the monotonic clock in
/// nanoseconds.
///
/// # Errors
/// [`Reason::NO_MASQUERADE_PORT`], or [`Reason::MASQUERADE_UNSUPPORTED`] for a message of ICMP that is no request.
#[inline(always)]
pub fn outgoing<T: Masquerades + Connections>(
    tables: &T,
    flow: &Flow,
    endpoint: u16,
    node: &Address,
    choice: u32,
    now: u64,
) -> Result<Option<MasqueradeEntry>, Reason> {
    let key = MasqueradeKey {
        near: flow.origin,
        far: flow.destination,
        near_port: flow.source_port,
        far_port: far_port(flow.protocol, flow.destination_port),
        protocol: flow.protocol,
        reserved: [0; 3],
    };
    let owner = MasqueradeEntry { address: key.near, port: key.near_port, endpoint };
    let mut back = MasqueradeKey { near: *node, ..key };
    if let Some(entry) = tables.translation(&key)
        && entry.address == *node
    {
        back.near_port = entry.port;
        if tables.translation(&back) == Some(owner) {
            return Ok(Some(entry));
        }
    }
    // Who came from the world is answered.
    if flow.is_error() || tables.knows(&flow.answered_connection(Direction::Egress, endpoint), now) {
        return Ok(None);
    }
    if !has_ports(flow.protocol) && !flow.is_request() {
        // Nothing in it would tell whose the answer is.
        return Err(Reason::MASQUERADE_UNSUPPORTED);
    }
    if !tables.find_port(&mut back, &owner, choice, now) {
        return Err(Reason::NO_MASQUERADE_PORT);
    }
    let entry = MasqueradeEntry { address: *node, port: back.near_port, endpoint };
    if tables.replace(&key, &entry) { Ok(Some(entry)) } else { Err(Reason::NO_MASQUERADE_PORT) }
}

/// Finds a port for `owner` that nobody has, or nobody uses any more, and takes it: it is in `back` then. `choice` says where
/// the search begins.
#[inline(always)]
pub fn find_port<T: Masquerades + Connections + ?Sized>(
    tables: &T,
    back: &mut MasqueradeKey,
    owner: &MasqueradeEntry,
    choice: u32,
    now: u64,
) -> bool {
    // Multiplied instead of divided: a number below `PORTS`.
    let mut place = ((choice >> 16) * u32::from(PORTS)) >> 16;
    let mut tries = TRIES;
    while tries > 0 {
        tries -= 1;
        back.near_port = port(place);
        if tables.take(back, owner, now) {
            return true;
        }
        place += 1;
        if place >= u32::from(PORTS) {
            place = 0;
        }
    }
    false
}

/// The port at a place below [`PORTS`].
#[inline(always)]
fn port(place: u32) -> [u8; 2] {
    let [_, _, a, b] = (u32::from(FIRST_PORT) + place).to_be_bytes();
    [a, b]
}

/// Takes a port of the node for `owner`, if nobody has it whose connection goes on at `now`.
#[inline(always)]
pub fn take<T: Masquerades + Connections + ?Sized>(
    tables: &T,
    back: &MasqueradeKey,
    owner: &MasqueradeEntry,
    now: u64,
) -> bool {
    let Some(holder) = tables.translation(back) else { return tables.claim(back, owner) };
    if holder != *owner {
        let connection = ConnectionKey {
            source: holder.address,
            destination: back.far,
            source_port: holder.port,
            destination_port: if has_ports(back.protocol) { back.far_port } else { holder.port },
            protocol: back.protocol,
            direction: Direction::Egress as u8,
            endpoint: holder.endpoint,
        };
        if tables.knows(&connection, now) {
            return false;
        }
    }
    tables.replace(back, owner)
}

/// The pod that a packet from the world to an address of the node is for; nothing if it is for the node.
#[inline(always)]
pub fn incoming<T: Masquerades>(tables: &T, flow: &Flow) -> Option<MasqueradeEntry> {
    if flow.is_request() {
        return None;
    }
    tables.translation(&MasqueradeKey {
        near: flow.destination,
        far: flow.origin,
        near_port: flow.destination_port,
        far_port: far_port(flow.protocol, flow.source_port),
        protocol: flow.protocol,
        reserved: [0; 3],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use landbridge_bpf_maps::Endpoint;
    use proptest::prelude::*;

    use super::*;
    use crate::admission::admit;
    use crate::packet::{Fragment, Message, protocol, tcp};
    use crate::tables::{Tables, v4};

    const NODE: Address = v4([172, 30, 1, 1]);
    const SERVER: Address = v4([8, 8, 8, 8]);
    const SECOND: u64 = 1_000_000_000;

    const fn pod(number: u8) -> Address {
        v4([10, 1, 1, number])
    }

    fn packet(source: (Address, u16), destination: (Address, u16), protocol: u8, flags: u8) -> Flow {
        Flow {
            source: source.0,
            destination: destination.0,
            origin: source.0,
            source_port: source.1.to_be_bytes(),
            destination_port: destination.1.to_be_bytes(),
            policy_port: if has_ports(protocol) { destination.1.to_be_bytes() } else { [0, 8] },
            message: if has_ports(protocol) { Message::OTHER } else { Message::REQUEST },
            protocol,
            policy_protocol: protocol,
            tcp_flags: flags,
            ttl: 64,
            version: 4,
            fragment: Fragment::WHOLE,
            transport: 34,
            identification: [0; 4],
            is_translated: false,
        }
    }

    /// A packet of a pod on its way to the world.
    fn send(tables: &Tables, flow: &Flow, choice: u32, now: u64) -> Result<Option<MasqueradeEntry>, Reason> {
        let endpoint = Endpoint { interface: u32::from(flow.source.0[15]), ..Endpoint::default() };
        admit(tables, &endpoint, Direction::Egress, &mut { *flow }, 2, now, 16).unwrap();
        outgoing(tables, flow, endpoint.tag(), &NODE, choice, now)
    }

    fn answer(tables: &Tables, entry: &MasqueradeEntry, flow: &Flow) -> Option<MasqueradeEntry> {
        let port = u16::from_be_bytes(entry.port);
        let far = u16::from_be_bytes(flow.destination_port);
        let mut answer = packet((flow.destination, far), (NODE, port), flow.protocol, 0);
        if !has_ports(flow.protocol) {
            (answer.source_port, answer.policy_port, answer.message) = (entry.port, [0, 0], Message::OTHER);
        }
        incoming(tables, &answer)
    }

    #[test]
    fn an_answer_comes_back_to_who_asked() {
        let tables = Tables::default();
        for protocol in [protocol::TCP, protocol::UDP, protocol::ICMP] {
            let port = if protocol == protocol::ICMP { 7 } else { 53 };
            let one = packet((pod(10), 7), (SERVER, port), protocol, tcp::SYN);
            let other = packet((pod(11), 7), (SERVER, port), protocol, tcp::SYN);
            let [first, second] = [&one, &other].map(|flow| send(&tables, flow, 0, 0).unwrap().unwrap());
            assert_ne!(first.port, second.port, "{protocol}");
            assert_eq!(send(&tables, &one, 99, 1).unwrap(), Some(first), "it stays");
            let owner = answer(&tables, &second, &other).unwrap();
            assert_eq!((owner.address, owner.port), (pod(11), other.source_port));
            // Somebody else at that port.
            let stranger = packet((v4([9, 9, 9, 9]), port), (NODE, 61_000), protocol, 0);
            assert_eq!(incoming(&tables, &stranger), None);
        }
        let echo = packet((SERVER, 61_000), (NODE, 61_000), protocol::ICMP, 0);
        assert_eq!(incoming(&tables, &echo), None, "who asks the node gets the node's answer");
    }

    #[test]
    fn who_came_from_the_world_is_answered_by_the_pod_itself() {
        let tables = Tables::default();
        let endpoint = Endpoint { interface: 10, ..Endpoint::default() };
        let mut request = packet((SERVER, 5_000), (pod(10), 80), protocol::TCP, tcp::SYN);
        admit(&tables, &endpoint, Direction::Ingress, &mut request, 2, 0, 16).unwrap();
        let reply = packet((pod(10), 80), (SERVER, 5_000), protocol::TCP, tcp::SYN | tcp::ACK);
        assert_eq!(send(&tables, &reply, 0, 1), Ok(None));
    }

    #[test]
    fn a_port_is_free_again_when_its_connection_is_over() {
        let tables = Tables::default();
        let flow = |number: u16, flags| packet((pod(10), number), (SERVER, 80), protocol::TCP, flags);
        let begin = |number, now| send(&tables, &flow(number, tcp::SYN), 0, now);
        let taken: Vec<_> = (0..TRIES).map(|number| begin(number, 0).unwrap().unwrap().port).collect();
        assert_eq!(begin(100, 1), Err(Reason::NO_MASQUERADE_PORT));
        send(&tables, &flow(3, tcp::RST), 0, 2).unwrap();
        assert_eq!(begin(101, 11 * SECOND).unwrap().unwrap().port, taken[3]);
        // Its former owner is given another one.
        let again = begin(3, 12 * SECOND);
        assert!(again.is_err() || again.unwrap().unwrap().port != taken[3]);
    }

    #[test]
    fn errors_are_of_the_connection_that_they_tell_of() {
        let tables = Tables::default();
        let request = packet((pod(10), 5_000), (SERVER, 53), protocol::UDP, 0);
        let entry = send(&tables, &request, 7, 0).unwrap().unwrap();
        // A router could not reach the server.
        let mut error = packet((SERVER, 53), (NODE, u16::from_be_bytes(entry.port)), protocol::UDP, 0);
        (error.source, error.policy_protocol, error.policy_port) = (v4([9, 9, 9, 9]), protocol::ICMP, [0, 3]);
        error.message = Message::ERROR;
        assert_eq!(incoming(&tables, &error).map(|entry| entry.address), Some(pod(10)));
        // The pod does not listen any more.
        let mut error = request;
        (error.policy_protocol, error.policy_port) = (protocol::ICMP, [0, 3]);
        error.message = Message::ERROR;
        assert_eq!(outgoing(&tables, &error, 10, &NODE, 0, 1), Ok(Some(entry)));
        error.source_port = [1, 1];
        assert_eq!(outgoing(&tables, &error, 10, &NODE, 0, 1), Ok(None), "of no connection");
    }

    proptest! {
        /// Whoever speaks to whomever in whatever order, and whatever is evicted: no two connections that go on ever leave
        /// under one name, and an answer reaches the one whose name it is.
        #[test]
        fn connections_never_share_a_name(
            packets in proptest::collection::vec((10u8..13, 1u16..4, 80u16..82, any::<u8>(), any::<bool>()), 1..80),
        ) {
            let tables = Tables::default();
            let mut names = BTreeMap::new();
            for (number, port, far, choice, evicts) in packets {
                let flow = packet((pod(number), port), (SERVER, far), protocol::UDP, 0);
                let owner = (flow.source, flow.source_port);
                let victim = tables.masquerades.borrow().keys().next().copied().filter(|_| evicts);
                if let Some(victim) = victim {
                    tables.masquerades.borrow_mut().remove(&victim);
                    // Whoever had that name gets another one.
                    names.clear();
                }
                // Without a port it does not leave.
                let Ok(Some(entry)) = send(&tables, &flow, u32::from(choice) << 16, 0) else { continue };
                prop_assert_eq!(*names.entry((entry.port, far)).or_insert(owner), owner);
                let found = answer(&tables, &entry, &flow).unwrap();
                prop_assert_eq!((found.address, found.port), owner);
            }
        }
    }
}
