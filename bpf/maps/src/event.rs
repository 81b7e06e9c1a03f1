//! What the programs tell of packets while someone listens.

use crate::Address;

/// A record of the `EVENTS` map, a `BPF_MAP_TYPE_RINGBUF`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, nanoseconds of the kernel's monotonic clock.
    pub time: u64,
    /// Who says that they sent the packet; none if even that cannot be read.
    pub source: Address,
    /// Who it was for.
    pub destination: Address,
    /// Security identity of the sender.
    pub source_identity: u32,
    /// Of the receiver.
    pub destination_identity: u32,
    /// Index of the interface that it was seen at, 0 for a socket.
    pub interface: u32,
    /// Network byte order. Of an ICMP echo its identifier.
    pub source_port: [u8; 2],
    /// Network byte order. Of ICMP the type.
    pub destination_port: [u8; 2],
    /// Bytes of the frame; 65,535 stands for more as well.
    pub len: u16,
    /// An [`EventKind`].
    pub kind: u8,
    /// Of a drop and a policy verdict the [`Reason`](crate::Reason), of a trace the [`TracePoint`].
    pub sub_type: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Flags of a TCP header, otherwise 0.
    pub tcp_flags: u8,
    /// A [`Direction`](crate::Direction).
    pub direction: u8,
    /// What is known of the connection: [`Event::OPENS`] and the others.
    pub flags: u8,
}

impl Event {
    /// The packet began a connection.
    pub const OPENS: u8 = 1;
    /// It goes to the side that began.
    pub const REPLY: u8 = 2;
    /// It ends the connection, or its half.
    pub const CLOSES: u8 = 4;
    /// The connection is known, so that a packet without [`Event::REPLY`] is from the side that began.
    pub const TRACKED: u8 = 8;
}

/// What an event is about. The numbers are those of Cilium's monitor (`pkg/monitor/api/types.go`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A packet was dropped.
    Drop = 1,
    /// A packet went on: the first one of a connection, its ends, and one now and then.
    Trace = 4,
    /// A policy was asked about a new connection.
    PolicyVerdict = 5,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Drop, Self::Trace, Self::PolicyVerdict];

    /// The bit of this kind in [`EventControl::kinds`].
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Where a trace was taken. The numbers are those of Cilium's monitor (`pkg/monitor/api/types.go`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TracePoint {
    /// Into a pod of this node.
    ToEndpoint = 0,
    /// To this node itself.
    ToHost = 2,
    /// Out of a pod, to this node or the world.
    ToStack = 3,
    /// Into the tunnel.
    ToOverlay = 4,
    /// Out of the node itself, into the tunnel.
    FromHost = 7,
    /// Out of the tunnel.
    FromOverlay = 9,
    /// Out of the underlay.
    FromNetwork = 10,
    /// Into the underlay.
    ToNetwork = 11,
}

/// The one value of the `EVENT_CONTROL` map, a `BPF_MAP_TYPE_ARRAY`: whether someone listens, and to what.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventControl {
    /// Until when, nanoseconds of the kernel's monotonic clock. A listener that is gone does not say so.
    pub until: u64,
    /// To which kinds: a set of [`EventKind::bit`].
    pub kinds: u32,
    /// Nanoseconds that an event costs: each CPU earns one for each that passes.
    pub cost: u32,
}

/// The one value of the `EVENT_BUDGET` map, a `BPF_MAP_TYPE_PERCPU_ARRAY`: what a CPU may still tell, and did not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventBudget {
    /// When it was looked at last.
    pub looked: u64,
    /// What was earned and not spent until then, nanoseconds.
    pub saved: u64,
    /// Events that it had no budget for.
    pub limited: u64,
    /// Events that the ring had no room for.
    pub overflowed: u64,
}
