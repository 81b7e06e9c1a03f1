//! Whether a packet may pass an endpoint.
//!
//! ```text
//!  a reply of a remembered connection? ─ yes ─► passes
//!     │ no
//!  the set of rules of this direction  ─ no ──► dropped
//!     │ yes
//!  remembered, so that replies pass    ───────► passes
//! ```
//!
//! Invariants:
//! - Every packet from the side that began a connection is checked against the rules in force, so that a rule that is
//!   taken back ends connections too.
//! - Connections are remembered where no rule is enforced as well: replies pass when the first one comes into force.
//! - A TCP packet that asks for a connection and an ICMP request are no replies, whatever they look like.
//! - A TCP packet that grants a connection which is not remembered is dropped: nobody asked. One from the middle of a
//!   connection is judged like a first one, so that connections outlive the map; a refusal leaves nothing behind.
//! - A later piece of a datagram is judged by the ports of the first.
//! - A connection is one of a pod, not of its address, which another pod can get.
//! - Whether the other side was called by the name of a service is remembered where the connection began.
//! - A pod is no router: it tells of errors with packets that it got itself, and of no others.

use landbridge_bpf_maps::{ConnectionEntry, ConnectionKey, Direction, Endpoint, Reason, identity};

use crate::fragment::Fragments;
use crate::owner::is_allocated;
use crate::packet::{Flow, protocol, tcp};
use crate::policy::{Decision, Question, Rules};

/// The map of connections.
pub trait Connections {
    /// The entry of exactly this connection.
    fn connection(&self, key: &ConnectionKey) -> Option<ConnectionEntry>;
    /// Writes an entry; false if that is impossible.
    fn remember(&self, key: &ConnectionKey, entry: &ConnectionEntry) -> bool;

    /// The flags of a connection, if there is one that is [alive](is_alive).
    #[inline(always)]
    fn known(&self, key: &ConnectionKey, now: u64) -> Option<u32> {
        self.connection(key).filter(|entry| is_alive(entry, key.protocol, now)).map(|entry| entry.flags)
    }

    /// Whether there is a connection that is [alive](is_alive).
    #[inline(always)]
    fn knows(&self, key: &ConnectionKey, now: u64) -> bool {
        self.known(key, now).is_some()
    }

    /// Notes a packet of a connection that is [alive](is_alive), with the flags that it adds. Returns whether that was
    /// [news](is_news) and whether the connection is one to a service, nothing if there is no such connection.
    #[inline(always)]
    fn see(&self, key: &ConnectionKey, flags: u32, now: u64) -> Option<Passage> {
        let is_of_it = |entry: &ConnectionEntry| is_alive(entry, key.protocol, now) && is_of(entry, flags);
        let entry = self.connection(key).filter(is_of_it)?;
        let is_news = is_news(&entry, flags, now);
        let flags = entry.flags | flags;
        if is_news {
            // Without it the connection is forgotten early, and its next packet from the other side is checked.
            let _ = self.remember(key, &ConnectionEntry { last_seen: now, flags, ..entry });
        }
        Some(noted(is_news).and(Passage::of_flags(flags)))
    }
}

const SECOND: u64 = 1_000_000_000;
/// An entry is written at most this often while nothing but time passes.
pub(crate) const REFRESH_INTERVAL: u64 = SECOND;
/// How long a connection is remembered after its last packet. The numbers are those of Cilium's defaults.
const LIFETIME_TCP: u64 = 8_000 * SECOND;
const LIFETIME_TCP_UNANSWERED: u64 = 60 * SECOND;
const LIFETIME_TCP_CLOSED: u64 = 10 * SECOND;
const LIFETIME_OTHER: u64 = 60 * SECOND;

/// How a packet that passes belongs to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage(pub u8);

impl Passage {
    /// It began a connection.
    pub const NEW: Self = Self(1);
    /// It goes to the side that began.
    pub const REPLY: Self = Self(2);
    /// Worth telling of: what is remembered of the connection changed, or was old.
    pub const NOTED: Self = Self(4);
    /// It goes to the side that began, which called the other one by the name of a service.
    pub const TRANSLATED: Self = Self(8);

    /// [`Passage::TRANSLATED`] if a connection with these flags is one to a service. Without a branch, which the verifier
    /// would follow both ways.
    #[inline(always)]
    #[must_use]
    pub const fn of_flags(flags: u32) -> Self {
        let [.., translated] = flags.to_le_bytes();
        Self(translated << 3 & Self::TRANSLATED.0)
    }

    /// What both say.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it says all of `other`.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Whether `endpoint` may send (`direction` egress) or get (ingress) the packet, with `peer` the identity of the other
/// side and `now` the monotonic clock in nanoseconds. `shift` is how many bits of an identity are below the cluster.
///
/// # Errors
/// [`Reason::POLICY_DENIED`], [`Reason::POLICY_DENIED_BY_DENYLIST`], [`Reason::CONNECTION_NOT_TRACKED`],
/// [`Reason::INVALID_CONNECTION`], [`Reason::FRAGMENT_NOT_FOUND`], or [`Reason::INVALID_PACKET`] for an error that a pod
/// tells of another's packets.
#[inline(always)]
pub fn admit<T: Rules + Connections + Fragments>(
    tables: &T,
    endpoint: &Endpoint,
    direction: Direction,
    flow: &mut Flow,
    peer: u32,
    now: u64,
    shift: u32,
) -> Result<Passage, Reason> {
    tables.complete(flow)?;
    let passage = judge(tables, endpoint, direction, flow, peer, now, shift)?;
    tables.remember_datagram(flow);
    Ok(passage)
}

#[inline(always)]
fn judge<T: Rules + Connections>(
    tables: &T,
    endpoint: &Endpoint,
    direction: Direction,
    flow: &Flow,
    peer: u32,
    now: u64,
    shift: u32,
) -> Result<Passage, Reason> {
    let is_from_pod = matches!(direction, Direction::Egress) || is_allocated(peer);
    if is_from_pod && flow.is_error() && flow.origin != flow.source {
        return Err(Reason::INVALID_PACKET);
    }
    if !asks_for_connection(flow) && !flow.is_request() {
        let answered = flow.answered_connection(direction, endpoint.tag());
        if flow.is_error() {
            if let Some(flags) = tables.known(&answered, now) {
                return Ok(Passage::REPLY.and(Passage::of_flags(flags)));
            }
        } else {
            let flags = ConnectionEntry::REPLIED | closing(flow, ConnectionEntry::CLOSED_BY_DESTINATION);
            if let Some(seen) = tables.see(&answered, flags, now) {
                return Ok(Passage::REPLY.and(seen));
            }
        }
    }
    let connection = flow.connection(direction, endpoint.tag());
    if flow.is_error() && tables.knows(&connection, now) {
        // It tells of what the endpoint itself replied.
        return Ok(Passage::default());
    }
    let (set, lacks) = match direction {
        Direction::Ingress => (endpoint.ingress, endpoint.ingress_lacks),
        Direction::Egress => (endpoint.egress, endpoint.egress_lacks),
    };
    // The node itself may always reach its pods: probes of the kubelet come from there.
    let from_host = matches!(direction, Direction::Ingress) && peer == identity::HOST;
    if !from_host {
        let question = Question {
            set,
            peer,
            shift,
            protocol: flow.policy_protocol,
            port: flow.policy_port,
            port_prefixes: endpoint.port_prefixes,
            lacks,
        };
        match tables.decide(&question) {
            Decision::Allow => {}
            // A pod reaches itself without any policy, so it does by the name of a service, too.
            _ if flow.is_to_itself() => {}
            Decision::Deny => return Err(Reason::POLICY_DENIED_BY_DENYLIST),
            Decision::NoMatch => return Err(Reason::POLICY_DENIED),
        }
    }
    if flow.is_error() {
        return Ok(Passage::default());
    }
    let flags = closing(flow, ConnectionEntry::CLOSED_BY_SOURCE) | translated(flow, direction);
    // One that uses the ports of an old one again begins anew.
    if !asks_for_connection(flow) {
        if let Some(seen) = tables.see(&connection, flags, now) {
            return Ok(Passage(seen.0 & Passage::NOTED.0));
        }
        if grants_connection(flow) {
            return Err(Reason::INVALID_CONNECTION);
        }
        if flow.tcp_flags & tcp::RST != 0 {
            return Ok(Passage::default());
        }
    }
    let entry = ConnectionEntry { last_seen: now, peer, flags };
    if tables.remember(&connection, &entry) {
        Ok(Passage::NEW.and(Passage::NOTED))
    } else {
        Err(Reason::CONNECTION_NOT_TRACKED)
    }
}

/// [`ConnectionEntry::TRANSLATED`] where a connection to a service begins, otherwise 0. Without a branch, as above.
#[inline(always)]
const fn translated(flow: &Flow, direction: Direction) -> u32 {
    const { assert!(Direction::Ingress as u8 >> 1 == 0 && Direction::Egress as u8 >> 1 == 1) };
    let is_translated = flow.is_translated as u8 & (direction as u8 >> 1);
    ConnectionEntry::TRANSLATED * is_translated as u32
}

#[inline(always)]
fn noted(is_news: bool) -> Passage {
    if is_news { Passage::NOTED } else { Passage::default() }
}

#[inline(always)]
pub(crate) fn asks_for_connection(flow: &Flow) -> bool {
    flow.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

#[inline(always)]
fn grants_connection(flow: &Flow) -> bool {
    flow.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
}

/// The flags that a packet adds: `half` if it ends its half of the connection, both if it ends all of it.
#[inline(always)]
fn closing(flow: &Flow, half: u32) -> u32 {
    if flow.tcp_flags & tcp::RST != 0 {
        ConnectionEntry::CLOSED_BY_SOURCE | ConnectionEntry::CLOSED_BY_DESTINATION
    } else if flow.tcp_flags & tcp::FIN != 0 {
        half
    } else {
        0
    }
}

/// Whether a connection has not been silent for too long at `now`.
#[inline(always)]
#[must_use]
pub fn is_alive(entry: &ConnectionEntry, protocol: u8, now: u64) -> bool {
    let closed = ConnectionEntry::CLOSED_BY_SOURCE | ConnectionEntry::CLOSED_BY_DESTINATION;
    let lifetime = if protocol != protocol::TCP {
        LIFETIME_OTHER
    } else if entry.flags & closed == closed {
        LIFETIME_TCP_CLOSED
    } else if entry.flags & ConnectionEntry::REPLIED == 0 {
        LIFETIME_TCP_UNANSWERED
    } else {
        LIFETIME_TCP
    };
    // Another CPU may have written it after this one read the clock.
    now.saturating_sub(entry.last_seen) <= lifetime
}

/// Whether a packet that adds these flags belongs to a connection. From the side that began it does not if it calls the other
/// one by another name: then it begins anew.
#[inline(always)]
#[must_use]
pub const fn is_of(entry: &ConnectionEntry, flags: u32) -> bool {
    flags & ConnectionEntry::REPLIED != 0 || (entry.flags ^ flags) & ConnectionEntry::TRANSLATED == 0
}

/// Whether a packet that adds these flags at `now` is worth writing down.
#[inline(always)]
#[must_use]
pub fn is_news(entry: &ConnectionEntry, flags: u32, now: u64) -> bool {
    entry.flags & flags != flags || now.saturating_sub(entry.last_seen) >= REFRESH_INTERVAL
}

#[cfg(test)]
mod tests;
