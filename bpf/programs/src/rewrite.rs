//! Puts another address and port in the place of one end of a packet, checksums included.
//!
//! ```text
//!  a packet     [ source ─► destination ][ ports ]
//!  an error     [ router ─► destination ][ ICMP [ destination ◄─ source ][ ports ] ]     the quoted one, the other way round
//! ```
//!
//! Of an error the packet that it quotes is rewritten, and its own address if it is that end's.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_csum_diff, programs::TcContext};
use landbridge_bpf_maps::{Address, Reason};
use landbridge_bpf_verdict::{
    Flow, Fragment,
    packet::{CHECKSUM_OFFSET, ETHERNET_LEN, IPV6_LEN, protocol},
};

const BPF_F_PSEUDO_HDR: u64 = 16;
/// A checksum of 0 means none, and stays (UDP over IPv4).
const BPF_F_MARK_MANGLED_0: u64 = 32;
/// Since Linux 6.16: no header checksum makes up for the address.
const BPF_F_IPV6: u64 = 128;

/// One end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who sent it.
    Source,
    /// Who it is for.
    Destination,
}

/// Replaces one end of a packet, in it and in `flow`.
///
/// # Errors
/// [`Reason::WRITE_FAILED`]; the packet may be half written then, and has to be dropped.
#[inline(always)]
pub fn rewrite(
    ctx: &TcContext,
    flow: &mut Flow,
    end: End,
    address: &Address,
    port: [u8; 2],
) -> Result<(), Reason> {
    let is_source = u32::from(end == End::Source);
    match rewrite_end(ctx.skb.skb, flow, is_source, address, u32::from(u16::from_ne_bytes(port))) {
        0 => Ok(()),
        _ => Err(Reason::WRITE_FAILED),
    }
}

/// See [`rewrite`]. Known to the kernel by its name, see `tables`. Returns 0 unless it failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rewrite_end(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    is_source: u32,
    address: *const Address,
    port: u32,
) -> u64 {
    // SAFETY: both are null or whole, and nobody else has the flow.
    let (Some(flow), Some(address)) = (unsafe { flow.as_mut() }, unsafe { address.as_ref() }) else {
        return 1;
    };
    let is_source = is_source != 0;
    let port = (port as u16).to_ne_bytes();
    let packet = Rewriting { ctx: TcContext::new(skb), version: flow.version };
    let outcome = packet.replace_end(flow, is_source, address, port);
    if is_source {
        if flow.origin == flow.source {
            flow.source = *address;
        }
        flow.origin = *address;
        flow.source_port = port;
    } else {
        flow.destination = *address;
        flow.destination_port = port;
        if !flow.is_error() && flow.policy_protocol == flow.protocol && has_ports(flow.protocol) {
            flow.policy_port = port;
        }
    }
    u64::from(outcome.is_err())
}

struct Rewriting {
    ctx: TcContext,
    version: u8,
}

/// The kernel's answer.
type Written = Result<(), i64>;

impl Rewriting {
    #[inline(always)]
    fn replace_end(&self, flow: &Flow, is_source: bool, to: &Address, port: [u8; 2]) -> Written {
        let transport = usize::from(flow.transport);
        let (from, old_port, is_own) = if is_source {
            (flow.origin, flow.source_port, flow.origin == flow.source)
        } else {
            (flow.destination, flow.destination_port, true)
        };
        let checksum = checksum(flow.policy_protocol, transport);
        let is_begin = flow.fragment != Fragment::LATER;
        if is_own {
            if self.version == 4 {
                self.ctx.l3_csum_replace(CHECKSUM_OFFSET, last(&from), last(to), 4)?;
            }
            // ICMP over IPv4 is the one that does not sum over addresses.
            if is_begin && flow.policy_protocol != protocol::ICMP {
                self.address_in_checksum(checksum, &from, to, BPF_F_PSEUDO_HDR | mangled(flow))?;
            }
            self.store_address(ETHERNET_LEN, is_source, to)?;
        }
        if !is_begin {
            return Ok(());
        }
        if flow.is_error() {
            return self.replace_quoted(flow, transport + 8, is_source, &from, to, [old_port, port]);
        }
        let at = transport + port_offset(flow.protocol, is_source);
        self.replace_port(checksum, at, [old_port, port], mangled(flow))
    }

    /// Replaces the other end of the packet that an error quotes from `begin` on, and keeps the error's checksum right.
    #[inline(always)]
    fn replace_quoted(
        &self,
        flow: &Flow,
        begin: usize,
        is_source: bool,
        from: &Address,
        to: &Address,
        ports: [[u8; 2]; 2],
    ) -> Written {
        let checksum = begin - 8 + 2;
        let transport = if self.version == 4 {
            let [first]: [u8; 1] = self.ctx.load(begin)?;
            // The checksum of the quoted header changes by as much as the address, the other way.
            self.ctx.l3_csum_replace(begin + 10, last(from), last(to), 4)?;
            begin + usize::from(first & 0xf) * 4
        } else {
            self.address_in_checksum(checksum, from, to, 0)?;
            begin + IPV6_LEN
        };
        self.store_address(begin, !is_source, to)?;
        let at = transport + port_offset(flow.protocol, !is_source);
        self.replace_port(checksum, at, ports, 0)
    }

    #[inline(always)]
    fn replace_port(&self, checksum: usize, at: usize, ports: [[u8; 2]; 2], flags: u64) -> Written {
        let [from, to] = ports;
        if from == to {
            return Ok(());
        }
        let word = |port: [u8; 2]| u64::from(u16::from_ne_bytes(port));
        self.ctx.l4_csum_replace(checksum, word(from), word(to), flags | 2)?;
        self.ctx.store(at, &to, 0)
    }

    /// Makes a checksum know that an address that it is over has changed.
    #[inline(always)]
    fn address_in_checksum(&self, checksum: usize, from: &Address, to: &Address, flags: u64) -> Written {
        if self.version == 4 {
            return self.ctx.l4_csum_replace(checksum, last(from), last(to), flags | 4);
        }
        // SAFETY: both are sixteen bytes, which the helper only reads.
        let difference = unsafe {
            bpf_csum_diff(from.0.as_ptr().cast_mut().cast(), 16, to.0.as_ptr().cast_mut().cast(), 16, 0)
        } as u64;
        match self.ctx.l4_csum_replace(checksum, 0, difference, flags | BPF_F_IPV6) {
            Ok(()) => Ok(()),
            // A kernel that does not know the flag.
            Err(_) => self.ctx.l4_csum_replace(checksum, 0, difference, flags),
        }
    }

    /// Writes an address of the IP header at `header`.
    #[inline(always)]
    fn store_address(&self, header: usize, is_source: bool, to: &Address) -> Written {
        if self.version == 4 {
            let [.., last] = to.words();
            self.ctx.store(header + if is_source { 12 } else { 16 }, &last, 0)
        } else {
            self.ctx.store(header + if is_source { 8 } else { 24 }, &to.0, 0)
        }
    }
}

/// The last word of an address: all of one of IPv4.
#[inline(always)]
fn last(address: &Address) -> u64 {
    let [.., last] = address.words();
    u64::from(last)
}

#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    protocol == protocol::TCP || protocol == protocol::UDP
}

/// Where a port is in its header, or the identifier of an echo.
#[inline(always)]
fn port_offset(protocol: u8, is_source: bool) -> usize {
    match (has_ports(protocol), is_source) {
        (true, true) => 0,
        (true, false) => 2,
        (false, _) => 4,
    }
}

#[inline(always)]
fn checksum(protocol: u8, transport: usize) -> usize {
    transport
        + match protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => 2,
        }
}

#[inline(always)]
fn mangled(flow: &Flow) -> u64 {
    if flow.policy_protocol == protocol::UDP { BPF_F_MARK_MANGLED_0 } else { 0 }
}
