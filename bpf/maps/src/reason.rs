//! Why packets are dropped.

/// What became of a packet: 0 for one that was let through, otherwise a drop reason. The numbers are Cilium's
/// (130 and up), so that existing tools print them right.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(pub u8);

/// Declares every reason once: its constant, its number, and the text that existing tools show for it (Cilium,
/// `pkg/monitor/api/drop.go`).
macro_rules! reasons {
    ($($(#[$meaning:meta])+ $name:ident = $number:literal, $text:literal;)+) => {
        impl Reason {
            $($(#[$meaning])+ pub const $name: Self = Self($number);)+

            /// Every reason that this version knows, [`Reason::FORWARDED`] included.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$name),+];

            /// The text that existing tools show; `Unknown` for a number that is not in [`Reason::ALL`].
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    _ => "Unknown",
                }
            }
        }
    };
}

reasons! {
    /// The packet was let through.
    FORWARDED = 0, "Success";
    /// The source address is not the sender's.
    INVALID_SOURCE = 132, "Invalid source ip";
    /// No policy allows it.
    POLICY_DENIED = 133, "Policy denied";
    /// A header is cut off or contradicts itself.
    INVALID_PACKET = 134, "Invalid packet";
    /// A TCP packet that no connection has: its flags contradict each other, or it answers what nobody asked.
    INVALID_CONNECTION = 135, "CT: Truncated or invalid header";
    /// It is too large for the tunnel, and its sender has been told.
    FRAGMENTATION_NEEDED = 136, "Fragmentation needed";
    /// Neither TCP nor UDP nor ICMP, so that its replies would not be known: SCTP among others.
    UNKNOWN_TRANSPORT = 137, "CT: Unknown L4 protocol";
    /// Neither IPv4 nor IPv6 nor ARP.
    UNSUPPORTED_PROTOCOL = 139, "Unsupported L3 protocol";
    /// The program that it goes on with is not there.
    MISSED_TAIL_CALL = 140, "Missed tail call";
    /// The kernel refuses to change the packet.
    WRITE_FAILED = 141, "Error writing to packet";
    /// What came through the tunnel has no key.
    INVALID_TUNNEL_KEY = 147, "Error retrieving tunnel key";
    /// The destination is not here.
    UNKNOWN_TARGET = 150, "Unknown L3 target address";
    /// The connection cannot be remembered, so that its replies would be dropped; or one to a service that is forgotten, so
    /// that nobody knows which; or another of the client is in its place at each backend.
    CONNECTION_NOT_TRACKED = 155, "CT: Map insertion failed";
    /// More extension headers than anyone needs, or one that says the packet is for somebody else.
    INVALID_EXTENSION_HEADER = 156, "Invalid IPv6 extension header";
    /// A service has no backend.
    NO_SERVICE_BACKEND = 158, "Service backend not found";
    /// The tunnel has no other end.
    NO_TUNNEL_ENDPOINT = 160, "No tunnel/encapsulation endpoint (datapath BUG!)";
    /// No port is free to send it to the world under the node's address.
    NO_MASQUERADE_PORT = 167, "No mapping for NAT masquerade";
    /// Nothing in it tells whose an answer would be, so that it cannot leave under the node's address.
    MASQUERADE_UNSUPPORTED = 168, "Unsupported protocol for NAT masquerade";
    /// A pod sends what only nodes send: a tunnel's packets.
    ENCAPSULATION_PROHIBITED = 170, "Encapsulation traffic is prohibited";
    /// The identity in a tunnel is not one that its sender may use.
    INVALID_IDENTITY = 171, "Invalid identity";
    /// A tunnel's other end is not the node that the sender is on.
    UNKNOWN_SENDER = 172, "Unknown sender";
    /// A fragment whose first one, which has the ports, was not seen.
    FRAGMENT_NOT_FOUND = 175, "First logical datagram fragment not found";
    /// What only routers say to their neighbours, from a pod.
    FORBIDDEN_ICMP6 = 176, "Forbidden ICMPv6 message";
    /// A policy denies it.
    POLICY_DENIED_BY_DENYLIST = 181, "Policy denied by denylist";
    /// It was forwarded too often.
    TTL_EXCEEDED = 196, "TTL exceeded";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_and_a_name_of_its_own() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            let mut others = Reason::ALL[place + 1..].iter();
            assert!(others.all(|other| other != reason && other.name() != reason.name()), "{reason:?}");
        }
        assert_eq!(Reason(1).name(), "Unknown");
    }
}
