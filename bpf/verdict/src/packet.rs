//! What a packet is: read from its Ethernet, IP and transport headers.
//!
//! ```text
//!  Ethernet ─┬─► ipv4 ─┬─► ports, flags, ICMP ─► Flow
//!            ├─► ipv6 ─┘        └─► quoted (what an ICMP error tells of)
//!            └─► ARP, neighbour discovery ─► of this link alone
//! ```

mod flow;
mod icmp;
mod ipv4;
mod ipv6;
#[cfg(test)]
pub(crate) mod tests;

use landbridge_bpf_maps::Reason;

pub use flow::{Flow, Fragment, Message};
pub use ipv4::one_hop_further;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Where the time to live of an IPv4 packet is in its frame.
pub const TTL_OFFSET: usize = ETHERNET_LEN + 8;
/// Where the checksum of the IPv4 header is.
pub const CHECKSUM_OFFSET: usize = ETHERNET_LEN + 10;
/// Where the hop limit of an IPv6 packet is.
pub const HOP_LIMIT_OFFSET: usize = ETHERNET_LEN + 7;
/// Bytes of an IPv6 header.
pub const IPV6_LEN: usize = 40;

/// IP protocol numbers.
pub mod protocol {
    #![expect(missing_docs, reason = "the names say it")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMP6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// Flags of a TCP header (RFC 9293, section 3.1).
pub mod tcp {
    #![expect(missing_docs, reason = "the names say it")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
}

/// The type of an Ethernet frame with IPv4, as it is in the frame.
pub const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// The same with IPv6.
pub const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];

/// A frame that can be read.
pub trait Packet {
    /// `N` words of four bytes from `offset` on, each in the machine's byte order; nothing if the frame ends before.
    ///
    /// Words, since the kernel's virtual machine reads bytes one by one.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Zero. In the kernel one that the verifier does not know, to be mixed into constants: it follows what comes after
    /// once for all of them, instead of once for each.
    #[inline(always)]
    fn zero(&self) -> u32 {
        0
    }
}

/// Whom a frame concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It is a packet that somebody sends to somebody.
    Network,
    /// It is ARP, neighbour discovery or the like: said to this link, it goes no further.
    Link,
}

/// Reads a frame into `flow`, which holds no more than part of it if the answer is anything but [`Scope::Network`].
///
/// Into a place of the caller's, since stacks in the kernel are small.
///
/// # Errors
/// Why the frame has to be dropped.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P, flow: &mut Flow) -> Result<Scope, Reason> {
    // The end of the Ethernet header and an IPv4 header without options: no other packet is shorter.
    let [link, header @ ..]: [u32; 1 + ipv4::WORDS] =
        packet.words(ETHERNET_LEN - 4).ok_or(Reason::INVALID_PACKET)?;
    match second(link) {
        TYPE_IPV4 => ipv4::read(&header, packet.zero(), flow)?,
        TYPE_IPV6 => ipv6::read(packet, flow)?,
        TYPE_ARP => return Ok(Scope::Link),
        _ => return Err(Reason::UNSUPPORTED_PROTOCOL),
    }
    let none = half(packet.zero());
    flow.origin = flow.source;
    (flow.source_port, flow.destination_port, flow.policy_port) = (none, none, none);
    let [none, _] = none;
    (flow.tcp_flags, flow.policy_protocol, flow.message) = (none, flow.protocol, Message::OTHER);
    if flow.fragment == Fragment::LATER {
        return if is_known(flow) { Ok(Scope::Network) } else { Err(Reason::UNKNOWN_TRANSPORT) };
    }
    read_transport(packet, flow)
}

/// Reads what is behind the IP headers.
#[inline(always)]
fn read_transport<P: Packet + ?Sized>(packet: &P, flow: &mut Flow) -> Result<Scope, Reason> {
    let cut_off = Reason::INVALID_PACKET;
    let at = usize::from(flow.transport);
    match flow.protocol {
        protocol::TCP => {
            // Whole but for checksum and urgent pointer, so that no later fragment has its flags (RFC 1858).
            let [ports, _, _, flags]: [u32; 4] = packet.words(at).ok_or(cut_off)?;
            set_ports(flow, ports);
            [_, flow.tcp_flags] = first(flags);
            if is_possible(flow.tcp_flags) { Ok(Scope::Network) } else { Err(Reason::INVALID_CONNECTION) }
        }
        protocol::UDP => {
            let [ports, _] = packet.words(at).ok_or(cut_off)?;
            set_ports(flow, ports);
            Ok(Scope::Network)
        }
        protocol::ICMP | protocol::ICMP6 if is_known(flow) => icmp::read(packet, at, flow),
        _ => Err(Reason::UNKNOWN_TRANSPORT),
    }
}

/// Whether it is of a protocol whose connections can be told from each other.
#[inline(always)]
fn is_known(flow: &Flow) -> bool {
    has_ports(flow.protocol) || flow.protocol == icmp::of_version(flow.version)
}

#[inline(always)]
fn set_ports(flow: &mut Flow, ports: u32) {
    flow.source_port = first(ports);
    flow.destination_port = second(ports);
    flow.policy_port = flow.destination_port;
}

/// Whether TCP knows a use for these flags: a request or its answer, a refusal, an end that acknowledges, data.
#[inline(always)]
const fn is_possible(flags: u8) -> bool {
    const POSSIBLE: u64 = 1 << tcp::SYN
        | 1 << (tcp::SYN | tcp::URG)
        | 1 << (tcp::SYN | tcp::ACK)
        | 1 << tcp::RST
        | 1 << (tcp::RST | tcp::ACK)
        | 1 << tcp::ACK
        | 1 << (tcp::ACK | tcp::URG)
        | 1 << (tcp::FIN | tcp::ACK)
        | 1 << (tcp::FIN | tcp::ACK | tcp::URG);
    const SEEN: u8 = tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK | tcp::URG;
    POSSIBLE >> (flags & SEEN) & 1 == 1
}

/// Whether its packets begin with the ports of both sides.
#[inline(always)]
pub(crate) const fn has_ports(protocol: u8) -> bool {
    protocol == protocol::TCP || protocol == protocol::UDP
}

/// Two bytes of a zero.
#[inline(always)]
const fn half(zero: u32) -> [u8; 2] {
    first(zero)
}

/// The first two bytes of a word as they are in the packet.
#[inline(always)]
const fn first(word: u32) -> [u8; 2] {
    let [a, b, _, _] = word.to_ne_bytes();
    [a, b]
}

/// The last two.
#[inline(always)]
const fn second(word: u32) -> [u8; 2] {
    let [_, _, a, b] = word.to_ne_bytes();
    [a, b]
}
