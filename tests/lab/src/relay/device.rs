//! The two ends between which a relay stands: the link's port, taken out of its bridge, and a TAP device in its
//! place. Both pass frames behind a `virtio_net_hdr`, so that checksums and segments survive the way.

use std::ffi::c_ulong;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The length of a `virtio_net_hdr` without mergeable buffers (virtio 1.2, section 5.1.6).
pub(crate) const VNET_HEADER_LEN: usize = 10;
/// `TUNSETIFF` of `linux/if_tun.h`, not in libc for all targets.
const TUNSETIFF: c_ulong = 0x4004_54ca;

/// A TAP device of the namespace it was made in; it goes with its descriptor.
pub(crate) struct Tap {
    file: File,
}

impl Tap {
    pub(crate) fn create(name: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        name_tap(&file, name)?;
        Ok(Self { file })
    }

    /// Takes one frame that the bridge sent; `WouldBlock` when there is none.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.file, buffer)?)
    }

    /// Hands one frame to the bridge.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.file, frame)?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[expect(unsafe_code, reason = "rustix has no TUNSETIFF")]
fn name_tap(file: &File, name: &str) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags.try_into().map_err(io::Error::other)? },
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name {name:?} is too long"),
        ));
    }
    let place = request.ifr_name.iter_mut();
    place.zip(name.bytes()).for_each(|(place, byte)| *place = libc::c_char::from_ne_bytes([byte]));
    // SAFETY: the request reads and writes one ifreq, which is what the pointer leads to.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
