//! Who sends what to whom.

use landbridge_bpf_maps::{Address, ConnectionKey, Direction};

use super::icmp;

/// What is decided about: who sends what to whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Who sent the packet.
    pub source: Address,
    /// Who it is for.
    pub destination: Address,
    /// The other side of the connection that it belongs to: `source`, but of an ICMP error, which a router may have sent,
    /// who could not be reached.
    pub origin: Address,
    /// Port at `origin`, network byte order; of an ICMP echo its identifier, 0 if the protocol has none.
    pub source_port: [u8; 2],
    /// Port at `destination`, likewise.
    pub destination_port: [u8; 2],
    /// What rules take for the port: of TCP and UDP the destination port, of ICMP the type.
    pub policy_port: [u8; 2],
    /// IP protocol number of the connection. Of an ICMP error that of the packet that it tells of.
    pub protocol: u8,
    /// IP protocol number of the packet itself.
    pub policy_protocol: u8,
    /// Routers that it may still pass.
    pub ttl: u8,
    /// 4 or 6.
    pub version: u8,
    /// Whether it is all of its datagram. Ports of a later piece are 0 until
    /// [`fragment::complete`](crate::fragment::complete) has found them.
    pub fragment: Fragment,
    /// Flags of a TCP header, otherwise 0.
    pub tcp_flags: u8,
    /// Where what is behind the IP headers begins in the frame, in bytes.
    pub transport: u16,
    /// What the fragments of one datagram have in common, as it is in the packet; of a whole one it means nothing.
    pub identification: [u8; 4],
    /// Which message of ICMP it is, so that nobody else has to ask.
    pub message: Message,
    /// It was for a service, whose backend `destination` is by now, see [`translation`](crate::translation).
    pub is_translated: bool,
}

/// Which kind of ICMP message a packet is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message(pub u8);

impl Message {
    /// None, or one that has nothing special: a reply.
    pub const OTHER: Self = Self(0);
    /// It has the identifier of its replies, but is none.
    pub const REQUEST: Self = Self(1);
    /// It tells of a connection without being part of it.
    pub const ERROR: Self = Self(2);

    /// The message of this type, of a protocol.
    #[inline(always)]
    #[must_use]
    pub const fn of(protocol: u8, kind: u8) -> Self {
        if icmp::is_error(protocol, kind) {
            Self::ERROR
        } else if icmp::is_request(protocol, kind) {
            Self::REQUEST
        } else {
            Self::OTHER
        }
    }
}

/// Which part of its datagram a packet is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment(pub u8);

impl Fragment {
    /// All of it.
    pub const WHOLE: Self = Self(0);
    /// The first of several: the one with the ports.
    pub const FIRST: Self = Self(1);
    /// Another one.
    pub const LATER: Self = Self(2);
}

impl Flow {
    /// Whether it is an ICMP error, which tells of a connection without being part of it.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        self.message == Message::ERROR
    }

    /// Whether it is an ICMP request, which has the identifier of its replies but is none.
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        self.message == Message::REQUEST
    }

    /// Whether a pod called a service that it is itself the backend of.
    #[inline(always)]
    pub fn is_to_itself(&self) -> bool {
        self.is_translated && self.origin == self.destination
    }

    /// The connection that this packet would begin, at the endpoint with this tag that sees it in `direction`.
    #[inline(always)]
    pub fn connection(&self, direction: Direction, endpoint: u16) -> ConnectionKey {
        ConnectionKey {
            source: self.origin,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            direction: direction as u8,
            endpoint,
        }
    }

    /// The connection that this packet would be a reply of, likewise.
    #[inline(always)]
    pub fn answered_connection(&self, direction: Direction, endpoint: u16) -> ConnectionKey {
        ConnectionKey {
            source: self.destination,
            destination: self.origin,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            direction: direction.opposite() as u8,
            endpoint,
        }
    }
}
