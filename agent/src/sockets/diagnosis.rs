//! Asks the kernel about the sockets of one network namespace, and ends some.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

use super::message::{self, Answer, ConnectedSocket, FAMILY_IPV4, FAMILY_IPV6, SocketName, TCP, UDP};

/// The kernel answers at once; longer than this it does not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than the kernel puts into one packet of a list.
const BUFFER_LEN: usize = 1 << 16;

/// Requests about sockets of the namespace that the calling thread was in when it was made.
pub(super) struct Diagnosis(OwnedFd);

impl Diagnosis {
    /// # Errors
    /// The kernel's answer.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(SOCK_DIAG))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// All sockets that have a peer.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(super) fn with_peer(&self) -> io::Result<Vec<ConnectedSocket>> {
        let mut found = Vec::new();
        for family in [FAMILY_IPV4, FAMILY_IPV6] {
            for protocol in [TCP, UDP] {
                self.ask(&message::list(family, protocol), protocol, |socket| found.push(socket))?;
            }
        }
        Ok(found)
    }

    /// Ends a socket: whoever has it open is told that the connection was aborted. Returns false if it is gone already.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(super) fn destroy(&self, name: &SocketName) -> io::Result<bool> {
        match self.ask(&message::destroy(name), name.protocol, |_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, request: &[u8], protocol: u8, mut found: impl FnMut(ConnectedSocket)) -> io::Result<()> {
        sendto(&self.0, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            let (_, len) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..len).unwrap_or_default();
            while let Some((answer, behind)) = message::read(rest, protocol) {
                match answer {
                    Answer::Done => return Ok(()),
                    Answer::Refused(number) => return Err(io::Error::from_raw_os_error(number)),
                    Answer::Socket(socket) => socket.into_iter().for_each(&mut found),
                }
                rest = behind;
            }
        }
    }
}
