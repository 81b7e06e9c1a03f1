//! HTTP/2 frame by frame (RFC 9113, 7541), for what no client says; and what a process holds.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The largest window that there is.
const WINDOW: u32 = (1 << 31) - 1;
/// The window that there is before anybody says anything.
const FIRST_WINDOW: u32 = 65_535;

/// A connection of which only the sending side is anything like a client.
pub(crate) struct Wire(TcpStream);

impl Wire {
    /// Begins a connection. With `wide` windows the server may send as much as it likes.
    pub(crate) fn open(url: &str, wide: bool) -> Self {
        let mut tcp = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let initial_window = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
        let settings = if wide { &initial_window[..] } else { &[] };
        tcp.write_all(&frame(SETTINGS, 0, 0, settings)).unwrap();
        if wide {
            let more = WINDOW - FIRST_WINDOW;
            tcp.write_all(&frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes())).unwrap();
        }
        Self(tcp)
    }

    /// # Errors
    /// The connection's: the server may end it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The other half, to read what comes and forget it.
    pub(crate) fn reader(&self) -> TcpStream {
        self.0.try_clone().unwrap()
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a gRPC request.
pub(crate) fn head(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // POST, http, and the names of path, authority and content type are in the static table.
    [
        &[0x83, 0x86, 0x04][..],
        &text(path),
        &[0x01],
        &text("store"),
        &[0x0f, 0x10],
        &text("application/grpc"),
        &[0x00],
        &text("te"),
        &text("trailers"),
    ]
    .concat()
}

/// A whole request; one that is to go on does not end its stream.
pub(crate) fn call(stream: u32, path: &str, message: &[u8], ends: bool) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &len, message].concat();
    let end = if ends { END_STREAM } else { 0 };
    [frame(HEADERS, END_HEADERS, stream, &head(path)), frame(DATA, end, stream, &body)].concat()
}

fn of_process(process: u32, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The memory that a process has, in bytes.
pub(crate) fn resident_bytes(process: u32) -> usize {
    of_process(process, "VmRSS:")
}

/// The most memory that a process has had since [`forget_peak`].
pub(crate) fn peak_bytes(process: u32) -> usize {
    of_process(process, "VmHWM:")
}

/// proc(5), `clear_refs`.
pub(crate) fn forget_peak(process: u32) {
    fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
}

pub(crate) fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

pub(crate) fn open_sockets(process: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let names = files.filter_map(|file| fs::read_link(file.path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
}

/// A page of the store.
pub(crate) fn page(url: &str, path: &str) -> String {
    let mut tcp = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    write!(tcp, "GET {path} HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    tcp.read_to_string(&mut page).unwrap();
    page
}
