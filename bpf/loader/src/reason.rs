//! What drop reasons are called.

use landbridge_bpf_maps::Reason;

/// The text that existing tools show for a reason (Cilium, `pkg/monitor/api/drop.go`).
pub fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::FORWARDED => "Success",
        Reason::INVALID_SOURCE => "Invalid source ip",
        Reason::POLICY_DENIED => "Policy denied",
        Reason::INVALID_PACKET => "Invalid packet",
        Reason::UNSUPPORTED_PROTOCOL => "Unsupported L3 protocol",
        Reason::WRITE_FAILED => "Error writing to packet",
        Reason::INVALID_TUNNEL_KEY => "Error retrieving tunnel key",
        Reason::UNKNOWN_TARGET => "Unknown L3 target address",
        Reason::CONNECTION_NOT_TRACKED => "CT: Map insertion failed",
        Reason::FRAGMENT_UNSUPPORTED => "IP fragmentation not supported",
        Reason::NO_SERVICE_BACKEND => "Service backend not found",
        Reason::NO_TUNNEL_ENDPOINT => "No tunnel/encapsulation endpoint (datapath BUG!)",
        Reason::INVALID_IDENTITY => "Invalid identity",
        Reason::UNKNOWN_SENDER => "Unknown sender",
        Reason::POLICY_DENIED_BY_DENYLIST => "Policy denied by denylist",
        Reason::TTL_EXCEEDED => "TTL exceeded",
        _ => "Unknown",
    }
}
