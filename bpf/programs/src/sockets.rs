//! A service address becomes a backend when a socket names it, so that no packet has to be translated.
//!
//! ```text
//!  connect, sendmsg:      service ─► backend, remembered by the socket's cookie
//!  recvmsg, getpeername:  backend ─► service, if it was this socket's
//!  close:                 what connect remembered is forgotten
//! ```
//!
//! What is remembered has its memory beforehand; storage of the socket's own would be allocated by each connect, and the
//! kernel's diagnosis, by which the agent finds sockets, shows it of TCP alone.
//!
//! A socket of family IPv6 names IPv4 addresses as `::ffff:a.b.c.d`, which is how the maps hold them.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval},
    macros::{cgroup_sock, cgroup_sock_addr, map},
    maps::LruHashMap,
    programs::{SockAddrContext, SockContext},
};
use landbridge_bpf_maps::{Address, Direction, Reason, ServiceKey, SocketService, UdpPeerKey};
use landbridge_bpf_verdict::packet::protocol;

use crate::config::has_socket_errors;
use crate::metrics::count;
use crate::services::{backend, service};

// The sizes are the loader's to choose.
#[map]
static SOCKET_SERVICE: LruHashMap<u64, SocketService> = LruHashMap::with_max_entries(1 << 17, 0);
#[map]
static UDP_PEERS: LruHashMap<UdpPeerKey, SocketService> = LruHashMap::with_max_entries(1 << 16, 0);

const ECONNREFUSED: i32 = 111;
/// What the kernel takes for "go on" and "fail".
const PROCEED: i32 = 1;
const REFUSE: i32 = 0;
/// Spreads the bits of cookies, which are counted up (the golden ratio, as a fraction of 2^64).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where a socket address has its address.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    translate(&ctx, Family::V4, true)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    translate(&ctx, Family::V6, true)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    translate(&ctx, Family::V4, false)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    translate(&ctx, Family::V6, false)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    translate_back(&ctx, Family::V4, true)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    translate_back(&ctx, Family::V6, true)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    translate_back(&ctx, Family::V4, false)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    translate_back(&ctx, Family::V6, false)
}

#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    forget_connected(cookie);
    PROCEED
}

/// Replaces the address of a service by one of its backends. `connects` tells a socket that is to keep it from one that
/// sends a single message.
#[inline(always)]
fn translate(ctx: &SockAddrContext, family: Family, connects: bool) -> i32 {
    let named = Name::read(ctx.sock_addr, family);
    // SAFETY: the kernel gives every program of this kind a valid context.
    let protocol = unsafe { (*ctx.sock_addr).protocol } as u8;
    let key = ServiceKey { address: named.address, port: named.port, protocol, scope: 0 };
    let Some(service) = service(&key) else {
        forget(ctx, &named, protocol, connects);
        return PROCEED;
    };
    // SAFETY: the helpers take the context, or nothing.
    let (cookie, random) = unsafe { (bpf_get_socket_cookie(ctx.sock_addr.cast()), bpf_get_prandom_u32()) };
    // SAFETY: as above; the service's entry is the kernel's, which keeps it while the program runs.
    let namespace = unsafe {
        if (*service).affinity_seconds > 0 { bpf_get_netns_cookie(ctx.sock_addr.cast()) } else { 0 }
    };
    // Messages of one socket stay with one backend as long as the backends stay.
    let number = if connects { random } else { (cookie.wrapping_mul(SPREAD) >> 32) as u32 };
    let chosen = backend(&key, service, namespace, number, !connects);
    // A socket of family IPv4 cannot go to an IPv6 address.
    let chosen = chosen.filter(|chosen| family == Family::V6 || chosen.address.ipv4().is_some());
    let Some(chosen) = chosen else {
        count(Reason::NO_SERVICE_BACKEND, Direction::Egress, 0);
        if has_socket_errors() {
            // SAFETY: the helper takes a number.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
        }
        return REFUSE;
    };
    #[cfg_attr(not(feature = "trial"), expect(unused_mut, reason = "a planted bug changes it"))]
    let mut translation = SocketService {
        address: named.address,
        backend: chosen.address,
        port: named.port,
        backend_port: chosen.port,
    };
    #[cfg(feature = "trial")]
    if crate::trial::planted(landbridge_bpf_maps::Planted::WrongReverseEntry) {
        translation.port = chosen.port;
    }
    if connects {
        // Without it the socket sees the backend as its peer, and works.
        let _ = SOCKET_SERVICE.insert(cookie, translation, 0);
    }
    if !connects && protocol == protocol::UDP {
        let key = UdpPeerKey { socket: cookie, address: chosen.address, port: chosen.port, reserved: [0; 6] };
        // Most messages follow others. A lookup takes no lock, and writing does.
        // SAFETY: entries are replaced whole.
        let known = unsafe { UDP_PEERS.get(key) }.is_some_and(|known| *known == translation);
        if !known {
            // Without it the answer comes from the backend's address, which is still an answer.
            let _ = UDP_PEERS.insert(key, translation, 0);
        }
    }
    Name { address: chosen.address, port: chosen.port }.write(ctx.sock_addr, family);
    PROCEED
}

/// Whoever the socket called by the name of a service before, now it calls someone by their own.
#[inline(always)]
fn forget(ctx: &SockAddrContext, named: &Name, protocol: u8, connects: bool) {
    // SAFETY: the helper takes the context.
    let socket = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    if connects {
        forget_connected(socket);
    } else if protocol == protocol::UDP {
        let key = UdpPeerKey { socket, address: named.address, port: named.port, reserved: [0; 6] };
        // Looked up first: that takes no lock, and removing does even if nothing is there.
        // SAFETY: nothing of the entry is read.
        if unsafe { UDP_PEERS.get(key) }.is_some() {
            let _ = UDP_PEERS.remove(key);
        }
    }
}

/// Forgets what the connect of a socket was translated to.
#[inline(always)]
fn forget_connected(socket: u64) {
    // Most sockets have nothing to forget. Looked up first: that takes no lock.
    // SAFETY: nothing of the entry is read.
    if unsafe { SOCKET_SERVICE.get(socket) }.is_some() {
        let _ = SOCKET_SERVICE.remove(socket);
    }
}

/// Shows a socket the service that it named instead of the backend. `of_message` is whether the name is a message's,
/// which may be from anyone.
#[inline(always)]
fn translate_back(ctx: &SockAddrContext, family: Family, of_message: bool) -> i32 {
    let shown = Name::read(ctx.sock_addr, family);
    // SAFETY: the helper takes the context.
    let socket = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    if of_message {
        let key = UdpPeerKey { socket, address: shown.address, port: shown.port, reserved: [0; 6] };
        // SAFETY: entries are replaced whole, and copied at once.
        if let Some(translation) = unsafe { UDP_PEERS.get(key) }.copied() {
            Name { address: translation.address, port: translation.port }.write(ctx.sock_addr, family);
            return PROCEED;
        }
    }
    // SAFETY: as above.
    let Some(translation) = unsafe { SOCKET_SERVICE.get(socket) }.copied() else { return PROCEED };
    if translation.backend == shown.address && translation.backend_port == shown.port {
        Name { address: translation.address, port: translation.port }.write(ctx.sock_addr, family);
    }
    PROCEED
}

/// Address and port of a socket address.
struct Name {
    address: Address,
    port: [u8; 2],
}

impl Name {
    #[inline(always)]
    fn read(socket: *const bpf_sock_addr, family: Family) -> Self {
        // SAFETY: the kernel gives every program of this kind a valid context.
        unsafe {
            let address = match family {
                Family::V4 => Address::from_ipv4((*socket).user_ip4.to_ne_bytes()),
                Family::V6 => {
                    let [a, b, c, d] = (*socket).user_ip6.map(u32::to_ne_bytes);
                    let mut bytes = [0; 16];
                    bytes[..4].copy_from_slice(&a);
                    bytes[4..8].copy_from_slice(&b);
                    bytes[8..12].copy_from_slice(&c);
                    bytes[12..].copy_from_slice(&d);
                    Address(bytes)
                }
            };
            // The field is a number of 32 bits whose first two bytes are the port.
            let [a, b, _, _] = (*socket).user_port.to_ne_bytes();
            Self { address, port: [a, b] }
        }
    }

    #[inline(always)]
    fn write(&self, socket: *mut bpf_sock_addr, family: Family) {
        let [a, b] = self.port;
        let Address([b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15]) = self.address;
        let last = u32::from_ne_bytes([b12, b13, b14, b15]);
        // SAFETY: as in `read`.
        unsafe {
            match family {
                Family::V4 => (*socket).user_ip4 = last,
                Family::V6 => {
                    (*socket).user_ip6[0] = u32::from_ne_bytes([b0, b1, b2, b3]);
                    (*socket).user_ip6[1] = u32::from_ne_bytes([b4, b5, b6, b7]);
                    (*socket).user_ip6[2] = u32::from_ne_bytes([b8, b9, b10, b11]);
                    (*socket).user_ip6[3] = last;
                }
            }
            (*socket).user_port = u32::from_ne_bytes([a, b, 0, 0]);
        }
    }
}
