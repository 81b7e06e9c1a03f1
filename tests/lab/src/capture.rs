//! Writes the packets of an interface to a pcap file (draft-ietf-opsawg-pcap, with nanoseconds).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::error::{IoContext, LabError, write_error};
use crate::namespace::Namespace;
use crate::packet_socket::{PacketSocket, View};

/// Longest packet that is written whole; the largest the kernel hands over is below.
const SNAP_LEN: u32 = 262_144;
/// Timestamps have nanoseconds, numbers are little-endian.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;

/// A running capture. Dropping it ends it and keeps the file; an error is told only by [`Capture::stop`].
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    stop: Arc<std::os::fd::OwnedFd>,
    thread: Option<JoinHandle<io::Result<CaptureSummary>>>,
}

/// What a capture saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureSummary {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that passed and are missing, since the writer fell behind.
    pub missed: u64,
}

impl Capture {
    pub(crate) fn start(namespace: &Namespace, interface: &str, path: PathBuf) -> Result<Self, LabError> {
        let context =
            || format!("capture on {interface} (`ip link` inside of the host lists its interfaces)");
        let socket = namespace
            .run(|| PacketSocket::open(interface, View::Passing))
            .context(context)?
            .context(context)?;
        // Only now, so that a mistyped interface empties no file.
        let file = File::create(&path).map_err(|error| write_error(&path, error))?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context(context)?);
        let stopped = Arc::clone(&stop);
        let run = move || write_packets(&socket, &stopped, BufWriter::new(file));
        let thread = thread::Builder::new().name("lab-capture".to_owned()).spawn(run).context(context)?;
        Ok(Self { file: path, stop, thread: Some(thread) })
    }

    /// Ends the capture once everything that passed until now is in the file.
    ///
    /// # Errors
    /// [`LabError::DiskFull`] or [`LabError::Io`] if the file could not be written.
    pub fn stop(mut self) -> Result<CaptureSummary, LabError> {
        self.finish().map_err(|error| write_error(&self.file, error))
    }

    fn finish(&mut self) -> io::Result<CaptureSummary> {
        // Gone if it was stopped before it is dropped.
        let Some(thread) = self.thread.take() else { return Ok(CaptureSummary::default()) };
        // Writing to an eventfd fails only at its maximum, which a single write does not reach.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn write_packets(
    socket: &PacketSocket,
    stop: &std::os::fd::OwnedFd,
    mut file: impl Write,
) -> io::Result<CaptureSummary> {
    file.write_all(&file_header())?;
    let mut buffer = vec![0; SNAP_LEN as usize];
    let mut summary = CaptureSummary::default();
    loop {
        let mut events = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let stopping = events[1].revents().contains(PollFlags::IN);
        loop {
            match socket.receive(&mut buffer) {
                Ok(len) => {
                    file.write_all(&record_header(socket.last_timestamp()?, len))?;
                    file.write_all(&buffer[..len])?;
                    summary.packets += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The interface may be down for a while, or gone with the lab.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => break,
                Err(error) => return Err(error),
            }
        }
        // Whoever is killed leaves a whole file.
        file.flush()?;
        if stopping {
            summary.missed = socket.take_overruns()?;
            return Ok(summary);
        }
    }
}

fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
    // Version 2.4; time zone and accuracy stay zero.
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&SNAP_LEN.to_le_bytes());
    header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    header
}

fn record_header(time: std::time::Duration, len: usize) -> [u8; 16] {
    let len = u32::try_from(len).expect("no packet is longer than the buffer").to_le_bytes();
    // The format's clock ends in 2106.
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_le_bytes();
    let fields = [seconds, time.subsec_nanos().to_le_bytes(), len, len];
    let mut header = [0; 16];
    header.chunks_exact_mut(4).zip(fields).for_each(|(place, field)| place.copy_from_slice(&field));
    header
}
