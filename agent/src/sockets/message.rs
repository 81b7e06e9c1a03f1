//! Messages of the kernel's socket diagnosis (`linux/inet_diag.h`, `linux/sock_diag.h`), as bytes.

use landbridge_bpf_maps::Address;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// Bytes of the header of a message.
const HEADER_LEN: usize = 16;
/// Bytes of `struct inet_diag_msg`.
const SOCKET_LEN: usize = 72;
/// Bytes of the name of a socket, `struct inet_diag_sockid`.
const ID_LEN: usize = 48;
/// States of a TCP socket that has a peer: established, both of a handshake, and those of an end that is not complete.
const TCP_WITH_PEER: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// A UDP socket that has a peer is established.
const UDP_WITH_PEER: u32 = 1 << 1;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const FAMILY_IPV4: u8 = 2;
pub(super) const FAMILY_IPV6: u8 = 10;

/// What the kernel calls a socket by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketName {
    pub(super) family: u8,
    /// IP protocol number.
    pub(super) protocol: u8,
    pub(super) id: [u8; ID_LEN],
}

/// A socket that has a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectedSocket {
    pub(crate) name: SocketName,
    pub(crate) peer: Address,
    /// Network byte order.
    pub(crate) peer_port: [u8; 2],
}

impl SocketName {
    /// What programs know the socket by: the last eight bytes, the lower half first.
    pub(crate) fn cookie(&self) -> u64 {
        let halves = self.id[ID_LEN - 8..].as_chunks().0;
        halves.iter().rev().fold(0, |cookie, half| cookie << 32 | u64::from(u32::from_ne_bytes(*half)))
    }
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A socket, if it is told whole.
    Socket(Option<ConnectedSocket>),
    /// Everything has been told, or done.
    Done,
    /// An error number.
    Refused(i32),
}

/// Asks for all sockets of a family and protocol that have a peer.
pub(super) fn list(family: u8, protocol: u8) -> Vec<u8> {
    let states = if protocol == TCP { TCP_WITH_PEER } else { UDP_WITH_PEER };
    let name = SocketName { family, protocol, id: [0; ID_LEN] };
    request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &name, states)
}

/// Asks for the end of a socket.
pub(super) fn destroy(name: &SocketName) -> Vec<u8> {
    request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, name, u32::MAX)
}

fn request(kind: u16, flags: u16, name: &SocketName, states: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([name.family, name.protocol, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(name.id);
    let len = u32::try_from(bytes.len()).expect("requests are short");
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// Reads the first of several messages; returns what is behind it, too. Nothing if there is no whole one.
pub(super) fn read(bytes: &[u8], protocol: u8) -> Option<(Answer, &[u8])> {
    let len = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let message = bytes.get(..len)?;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    let body = message.get(HEADER_LEN..)?;
    let answer = match kind {
        NLMSG_DONE => Answer::Done,
        NLMSG_ERROR => match i32::from_ne_bytes(*body.first_chunk()?) {
            0 => Answer::Done,
            number => Answer::Refused(number.saturating_neg()),
        },
        _ => Answer::Socket(socket(body, protocol)),
    };
    Some((answer, rest))
}

fn socket(body: &[u8], protocol: u8) -> Option<ConnectedSocket> {
    let fixed = body.get(..SOCKET_LEN)?;
    let id = *fixed.get(4..)?.first_chunk::<ID_LEN>()?;
    let family = *fixed.first()?;
    let (peer, peer_port) = peer(family, &id);
    Some(ConnectedSocket { name: SocketName { family, protocol, id }, peer, peer_port })
}

/// The other side of a socket.
fn peer(family: u8, id: &[u8; ID_LEN]) -> (Address, [u8; 2]) {
    let [_, _, port_a, port_b, rest @ ..] = *id;
    let mut address = [0; 16];
    address.copy_from_slice(&rest[16..32]);
    let [a, b, c, d, ..] = address;
    let address = if family == FAMILY_IPV4 { Address::from_ipv4([a, b, c, d]) } else { Address(address) };
    (address, [port_a, port_b])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> Address {
        Address::from(Ipv4Addr::new(10, 1, 1, last))
    }

    /// What the kernel says of a socket that is connected to `peer`.
    fn told(peer: Address, peer_port: u16, cookie: u64) -> Vec<u8> {
        let mut body = vec![0; SOCKET_LEN];
        body[0] = FAMILY_IPV4;
        body[6..8].copy_from_slice(&peer_port.to_be_bytes());
        body[24..28].copy_from_slice(&peer.ipv4().unwrap());
        body[44..52].copy_from_slice(&cookie.to_ne_bytes());
        // Attributes come behind it.
        body.extend([8, 0, 8, 0, 0, 0, 0, 0]);
        let len = u32::try_from(HEADER_LEN + body.len()).unwrap();
        [&len.to_ne_bytes()[..], &SOCK_DIAG_BY_FAMILY.to_ne_bytes(), &[0; 10], &body].concat()
    }

    #[test]
    fn a_socket_is_told_with_its_peer_and_cookie() {
        const COOKIE: u64 = 0x0102_0304_0506_0708;
        let message = told(address(5), 8080, COOKIE);
        let (answer, rest) = read(&message, TCP).unwrap();
        let Answer::Socket(Some(socket)) = answer else { panic!("{answer:?}") };
        assert!(rest.is_empty());
        assert_eq!((socket.peer, socket.peer_port), (address(5), [31, 144]));
        assert_eq!(socket.name.cookie(), COOKIE);
        let request = destroy(&socket.name);
        assert_eq!(request[HEADER_LEN..][8..56], socket.name.id);
        let mut cut_off = message;
        cut_off.truncate(HEADER_LEN + SOCKET_LEN - 1);
        let len = u32::try_from(cut_off.len()).unwrap();
        cut_off[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(read(&cut_off, TCP).unwrap().0, Answer::Socket(None));
    }

    #[test]
    fn the_end_and_errors_are_told_apart() {
        let message = |kind: u16, code: i32| {
            let code = code.to_ne_bytes();
            [&20u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &code].concat()
        };
        assert_eq!(read(&message(NLMSG_DONE, 0), TCP).unwrap().0, Answer::Done);
        assert_eq!(read(&message(NLMSG_ERROR, 0), TCP).unwrap().0, Answer::Done);
        assert_eq!(read(&message(NLMSG_ERROR, -2), TCP).unwrap().0, Answer::Refused(2));
    }

    proptest! {
        /// Whatever is read, it ends.
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300), len in 0u8..255) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_chunk_mut::<4>() {
                *first = u32::from(len).to_ne_bytes();
            }
            let _ = read(&bytes, UDP);
        }
    }
}
