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
    /// Neither IPv4 nor ARP.
    UNSUPPORTED_PROTOCOL = 139, "Unsupported L3 protocol";
    /// The kernel refuses to change the packet.
    WRITE_FAILED = 141, "Error writing to packet";
    /// What came through the tunnel has no key.
    INVALID_TUNNEL_KEY = 147, "Error retrieving tunnel key";
    /// The destination is not here.
    UNKNOWN_TARGET = 150, "Unknown L3 target address";
    /// The connection cannot be remembered, so that its replies would be dropped.
    CONNECTION_NOT_TRACKED = 155, "CT: Map insertion failed";
    /// A fragment: all but the first have no ports.
    FRAGMENT_UNSUPPORTED = 157, "IP fragmentation not supported";
    /// A service has no backend.
    NO_SERVICE_BACKEND = 158, "Service backend not found";
    /// The tunnel has no other end.
    NO_TUNNEL_ENDPOINT = 160, "No tunnel/encapsulation endpoint (datapath BUG!)";
    /// The identity in a tunnel is not one that its sender may use.
    INVALID_IDENTITY = 171, "Invalid identity";
    /// A tunnel's other end is not the node that the sender is on.
    UNKNOWN_SENDER = 172, "Unknown sender";
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
