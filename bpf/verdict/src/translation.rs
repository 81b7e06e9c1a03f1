//! Packets to and from services, for connections that no socket program translated.
//!
//! ```text
//!  client ═ to the service ═► to_backend ─► ═ to the backend ═►     entry (client, service) ─► backend
//!         ◄═ from the service ═ from_backend ◄═ from the backend ═  entry (client, backend) ─► service
//! ```
//!
//! Invariants:
//! - A connection stays with its backend while it lives, whatever becomes of the service's other backends. One that asks
//!   for a connection anew gets a backend that the service has.
//! - The entry for answers decides: one to a service whose answers are another's by now is not known any more.
//! - Two TCP connections that would look the same to a backend are not sent to the same one. Of datagrams, answers are from
//!   whom the client spoke to last.
//! - ICMP errors belong to the connection that they tell of, and begin none.
//! - A client that is its own backend sees itself under [`hairpin_address`]: no stack takes packets from itself.

use landbridge_bpf_maps::{
    Address, Algorithm, Backend, ConnectionEntry, ConnectionKey, Direction, Reason, ServiceEntry,
    ServiceFlow, ServiceFlowKey, ServiceKey,
};

use crate::admission::{Connections, asks_for_connection};
use crate::packet::{Flow, protocol};
use crate::selection::{Request, Selected, Services, client_key, select, tuple_hash};

/// The map of translated connections.
pub trait Translations {
    /// The entry of exactly this key.
    fn service_flow(&self, key: &ServiceFlowKey) -> Option<ServiceFlow>;
    /// Writes an entry; false if that is impossible.
    fn remember_service_flow(&self, key: &ServiceFlowKey, entry: &ServiceFlow) -> bool;

    /// Whether no other connection of the client would look the same to a backend.
    #[inline(always)]
    fn is_free(&self, place: &ServiceFlowKey, entry: &ServiceFlow, now: u64) -> bool
    where
        Self: Connections,
    {
        is_free(self, place, entry, now)
    }

    /// Whether a backend's answers are the service's: they are again if they are nobody's.
    #[inline(always)]
    fn answers_are_of(&self, place: &ServiceFlowKey, known: &ServiceFlow) -> bool {
        answers_are_of(self, place, known)
    }

    /// Writes both entries of a connection; false if that is impossible.
    #[inline(always)]
    fn keep_service_flow(&self, place: &ServiceFlowKey, entry: &ServiceFlow) -> bool {
        keep(self, place, entry)
    }
}

/// A service, and a connection that asks it for a backend.
pub trait Offers {
    /// A backend for the connection; others for other numbers of `attempt`, if there are others.
    fn offer(&self, attempt: u32) -> Option<Offer>;
    /// Whether a backend is still in the place where it was when it was chosen.
    fn has(&self, entry: &ServiceFlow) -> bool;
}

/// A backend that a connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// It, and its place in the service's run.
    pub entry: ServiceFlow,
    /// It was chosen for this connection: of an algorithm that goes by turns, this was one. As of
    /// [`Selected`].
    pub is_chosen: bool,
}

/// How many backends are tried for a connection that others are in the way of.
const ATTEMPTS: u32 = 3;
const CLOSED: u32 = ConnectionEntry::CLOSED_BY_SOURCE | ConnectionEntry::CLOSED_BY_DESTINATION;

/// As what a client that is its own backend sees itself, over IPv4: the address that Cilium uses.
const HAIRPIN: Address = Address::from_ipv4([169, 254, 42, 1]);
/// The same within the prefix for translations of one's own (RFC 8215), which unlike a link-local address is behind the
/// pod's gateway.
const HAIRPIN6: Address = Address([0, 0x64, 0xff, 0x9b, 0, 1, 0, 0, 0, 0, 0, 0, 169, 254, 42, 1]);

/// Under which address of the same family a client that is its own backend sees itself.
#[inline(always)]
#[must_use]
pub const fn hairpin_address(client: &Address) -> Address {
    if client.is_ipv4() { HAIRPIN } else { HAIRPIN6 }
}

/// Whether a packet answers a client that is its own backend: if [`key_from_backend`] is known, it is for who sends it.
#[inline(always)]
#[must_use]
pub fn is_hairpin(flow: &Flow) -> bool {
    flow.destination == HAIRPIN || flow.destination == HAIRPIN6
}

/// The key of what a client with this endpoint tag sends to a service.
#[inline(always)]
#[must_use]
pub const fn key_to_service(flow: &Flow, endpoint: u16) -> ServiceFlowKey {
    ServiceFlowKey {
        client: flow.origin,
        server: flow.destination,
        client_port: flow.source_port,
        server_port: flow.destination_port,
        protocol: flow.protocol,
        way: ServiceFlowKey::TO_SERVICE,
        endpoint,
    }
}

/// The key of what a backend answers the client with this endpoint tag. Of an answer to a client that is its own backend,
/// `client` is the backend's address.
#[inline(always)]
#[must_use]
pub const fn key_from_backend(flow: &Flow, client: Address, endpoint: u16) -> ServiceFlowKey {
    ServiceFlowKey {
        client,
        server: flow.origin,
        client_port: flow.destination_port,
        server_port: flow.source_port,
        protocol: flow.protocol,
        way: ServiceFlowKey::FROM_BACKEND,
        endpoint,
    }
}

/// The key of the service that a connection is to.
#[inline(always)]
#[must_use]
pub const fn service_key(place: &ServiceFlowKey) -> ServiceKey {
    ServiceKey { address: place.server, port: place.server_port, protocol: place.protocol, scope: 0 }
}

/// A backend of `service` for the connection at `place`.
#[inline(always)]
pub fn offer<S: Services>(
    maps: &S,
    service: &ServiceEntry,
    place: &ServiceFlowKey,
    request: &Request,
    attempt: u32,
) -> Option<Selected> {
    let key = service_key(place);
    let is_maglev = service.algorithm == Algorithm::Maglev as u8;
    let number =
        if is_maglev { tuple_hash(&key, service, &place.client, place.client_port) } else { request.number };
    let request = Request {
        // A quarter of all backends further each time.
        number: number.wrapping_add(attempt << 30),
        turn: request.turn.wrapping_add(attempt),
        now: request.now,
    };
    select(maps, service, &client_key(place.client, &key, service), &request)
}

/// What is remembered of a connection that has this backend, whose index is `index`.
#[inline(always)]
#[must_use]
pub const fn entry_of(service: &ServiceEntry, index: u32, backend: &Backend) -> ServiceFlow {
    ServiceFlow {
        address: backend.address,
        port: backend.port,
        reserved: [0; 2],
        place: index.wrapping_sub(service.first),
    }
}

/// Whether a service has a backend where it was when it was chosen.
#[inline(always)]
pub fn has<S: Services>(maps: &S, service: &ServiceEntry, entry: &ServiceFlow) -> bool {
    entry.place < service.count
        && maps
            .backend(service.first.wrapping_add(entry.place))
            .is_some_and(|backend| backend.address == entry.address && backend.port == entry.port)
}

/// Who serves the connection of a packet to a service, which is at `place`; nothing if it is not known, or begins anew.
#[inline(always)]
pub fn known<T: Translations + Connections, O: Offers>(
    tables: &T,
    offers: &O,
    flow: &Flow,
    place: &ServiceFlowKey,
    now: u64,
) -> Option<ServiceFlow> {
    let known = tables.service_flow(place)?;
    let flags = tables.known(&connection(place, &known), now)?;
    if asks_for_connection(flow) && (flags & CLOSED != 0 || !offers.has(&known)) {
        return None;
    }
    tables.answers_are_of(place, &known).then_some(known)
}

/// Gives a new connection a backend, and remembers it.
///
/// # Errors
/// [`Reason::NO_SERVICE_BACKEND`]; [`Reason::CONNECTION_NOT_TRACKED`] if the connection cannot be remembered, or other
/// connections of the client are in the way of this one at every backend that was tried.
#[inline(always)]
pub fn connect<T: Translations + Connections, O: Offers>(
    tables: &T,
    offers: &O,
    place: &ServiceFlowKey,
    now: u64,
) -> Result<Offer, Reason> {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let offer = offers.offer(attempt).ok_or(Reason::NO_SERVICE_BACKEND)?;
        if offer.entry.address.is_ipv4() != place.server.is_ipv4() {
            return Err(Reason::NO_SERVICE_BACKEND);
        }
        attempt += 1;
        let is_last = attempt == ATTEMPTS && place.protocol != protocol::TCP;
        if is_last || tables.is_free(place, &offer.entry, now) {
            let is_kept = tables.keep_service_flow(place, &offer.entry);
            return if is_kept { Ok(offer) } else { Err(Reason::CONNECTION_NOT_TRACKED) };
        }
    }
    Err(Reason::CONNECTION_NOT_TRACKED)
}

/// Who a packet to the service at `place` is really for, in both steps. Nothing for an ICMP error about no connection that
/// is known.
///
/// # Errors
/// As of [`connect`].
#[inline(always)]
pub fn to_backend<T: Translations + Connections, O: Offers>(
    tables: &T,
    offers: &O,
    flow: &Flow,
    place: &ServiceFlowKey,
    now: u64,
) -> Result<Option<Offer>, Reason> {
    match known(tables, offers, flow, place, now) {
        Some(entry) => Ok(Some(Offer { entry, is_chosen: false })),
        None if flow.is_error() => Ok(None),
        None => connect(tables, offers, place, now).map(Some),
    }
}

/// See [`Translations::is_free`].
#[inline(always)]
pub fn is_free<T: Translations + Connections + ?Sized>(
    tables: &T,
    place: &ServiceFlowKey,
    entry: &ServiceFlow,
    now: u64,
) -> bool {
    match tables.known(&connection(place, entry), now) {
        Some(flags) if flags & CLOSED == CLOSED => true,
        // The client called it by its own name.
        Some(flags) if flags & ConnectionEntry::TRANSLATED == 0 => false,
        Some(_) => tables.service_flow(&answers(place, entry)).is_none_or(|found| found == mirrored(place)),
        None => true,
    }
}

/// See [`Translations::answers_are_of`].
#[inline(always)]
pub fn answers_are_of<T: Translations + ?Sized>(
    tables: &T,
    place: &ServiceFlowKey,
    known: &ServiceFlow,
) -> bool {
    let (answers, mirrored) = (answers(place, known), mirrored(place));
    match tables.service_flow(&answers) {
        Some(found) => found == mirrored,
        None => tables.remember_service_flow(&answers, &mirrored),
    }
}

/// See [`Translations::keep_service_flow`].
#[inline(always)]
pub fn keep<T: Translations + ?Sized>(tables: &T, place: &ServiceFlowKey, entry: &ServiceFlow) -> bool {
    tables.remember_service_flow(place, entry)
        && tables.remember_service_flow(&answers(place, entry), &mirrored(place))
}

/// The connection between client and backend.
#[inline(always)]
const fn connection(place: &ServiceFlowKey, entry: &ServiceFlow) -> ConnectionKey {
    ConnectionKey {
        source: place.client,
        destination: entry.address,
        source_port: place.client_port,
        destination_port: entry.port,
        protocol: place.protocol,
        direction: Direction::Egress as u8,
        endpoint: place.endpoint,
    }
}

/// The key of the backend's answers.
#[inline(always)]
const fn answers(place: &ServiceFlowKey, entry: &ServiceFlow) -> ServiceFlowKey {
    ServiceFlowKey {
        server: entry.address,
        server_port: entry.port,
        way: ServiceFlowKey::FROM_BACKEND,
        ..*place
    }
}

/// Their entry: it leads back to the service.
#[inline(always)]
const fn mirrored(place: &ServiceFlowKey) -> ServiceFlow {
    ServiceFlow { address: place.server, port: place.server_port, reserved: [0; 2], place: 0 }
}

#[cfg(test)]
mod tests;
