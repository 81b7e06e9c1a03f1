//! Raw packets of one interface of the calling thread's namespace, see packet(7).

use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::netdevice;

/// Room for what arrives while the reader is not scheduled.
const RECEIVE_BUFFER_BYTES: c_int = 16 << 20;

/// An `AF_PACKET` socket on one interface.
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

/// What a reader of an interface wants to see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// What arrives, each frame behind a `virtio_net_hdr` that says which work is left to a network card.
    Arriving,
    /// What passes in both directions, plain.
    Passing,
}

impl PacketSocket {
    pub(crate) fn open(interface: &str, view: View) -> io::Result<Self> {
        // Protocol 0 receives nothing until the socket is bound, so that no other interface gets in.
        let fd = socket()?;
        let index = c_int::try_from(netdevice::name_to_index(&fd, interface)?).map_err(io::Error::other)?;
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER_BYTES)?;
        if view == View::Arriving {
            set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
            set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        }
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).expect("the kernel's field has 16 bits"),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
        bind(fd.as_fd(), index)?;
        Ok(Self { fd })
    }

    /// Reads one packet; `WouldBlock` when there is none.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Sends one packet.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }

    /// When the kernel saw the packet read last, as time since 1970.
    pub(crate) fn last_timestamp(&self) -> io::Result<Duration> {
        let time = timestamp(self.fd.as_fd())?;
        let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
        let nanoseconds = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
        Ok(Duration::new(seconds, nanoseconds))
    }

    /// How many packets did not fit the receive buffer since the last call.
    pub(crate) fn take_overruns(&self) -> io::Result<u64> {
        statistics(self.fd.as_fd()).map(|statistics| u64::from(statistics.tp_drops))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[expect(unsafe_code, reason = "rustix opens no socket of AF_PACKET with protocol 0")]
fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "rustix has no options of packet sockets")]
fn set_option<T>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("an option has a few bytes");
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let outcome = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "rustix has no address of packet sockets")]
fn bind(fd: BorrowedFd<'_>, index: c_int) -> io::Result<()> {
    let protocol = u16::try_from(libc::ETH_P_ALL).expect("an EtherType has 16 bits").to_be();
    let family = u16::try_from(libc::AF_PACKET).expect("an address family has 16 bits");
    // SAFETY: all fields of the address are numbers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    (address.sll_family, address.sll_protocol, address.sll_ifindex) = (family, protocol, index);
    let len = libc::socklen_t::try_from(size_of_val(&address)).expect("an address has a few bytes");
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let outcome = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "rustix has no SIOCGSTAMPNS")]
fn timestamp(fd: BorrowedFd<'_>) -> io::Result<libc::timespec> {
    /// `SIOCGSTAMPNS` of socket(7), not in libc.
    const SIOCGSTAMPNS: libc::c_ulong = 0x8907;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the request writes one timespec, which is what the pointer leads to.
    let outcome = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) };
    if outcome == 0 { Ok(time) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "rustix has no options of packet sockets")]
fn statistics(fd: BorrowedFd<'_>) -> io::Result<libc::tpacket_stats> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = libc::socklen_t::try_from(size_of_val(&statistics)).expect("an option has a few bytes");
    // SAFETY: the pointers lead to the statistics and to their length, which outlive the call.
    let outcome = unsafe {
        let value = (&raw mut statistics).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut len)
    };
    if outcome == 0 { Ok(statistics) } else { Err(io::Error::last_os_error()) }
}
