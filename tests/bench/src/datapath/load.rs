//! A load of TCP connections: an echo server and a closed-loop client, each a process of its own in a host of the lab,
//! both on one CPU, since on few CPUs the scheduler's choice of place would decide the result.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use landbridge_lab::Host;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// First byte of what is only to be swallowed; anything else is sent back.
const SWALLOWED: u8 = 0xff;
/// Bytes of an exchange.
const MESSAGE: [u8; 64] = [7; 64];
/// Connections that the kernel holds for the server.
const BACKLOG: i32 = 4096;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Connects and resets.
    Connect,
    /// Connects, sends 64 bytes, gets them back, and resets.
    ConnectExchange,
    /// Sends 64 bytes and gets them back, on one connection.
    Exchange,
    /// Sends as much as it can, on one connection.
    Bulk,
}

/// One side of a load, as a process.
#[derive(clap::Subcommand)]
pub(crate) enum Side {
    /// Send back what arrives, until killed
    Server {
        /// Where to listen.
        addresses: Vec<SocketAddr>,
    },
    /// Print the result as JSON
    Client {
        /// What to do.
        mode: Mode,
        /// Whom to call.
        to: SocketAddr,
        /// For how long.
        milliseconds: u64,
    },
}

/// What a client found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LoadResult {
    /// Rounds in a second; of [`Mode::Bulk`] bytes in a second.
    pub(crate) rate: f64,
    /// Median of a round, in microseconds.
    pub(crate) p50: f64,
    /// Rounds that failed.
    pub(crate) errors: u64,
}

impl Side {
    pub(crate) fn run(self) -> Result<()> {
        pin()?;
        match self {
            Self::Server { addresses } => serve(&addresses),
            Self::Client { mode, to, milliseconds } => {
                let result = drive(mode, to, Duration::from_millis(milliseconds))?;
                println!("{}", serde_json::to_string(&result)?);
                Ok(())
            }
        }
    }
}

/// Runs a client inside a host, to its end.
pub(super) fn client(host: &Host, mode: Mode, to: SocketAddr, time: Duration) -> Result<LoadResult> {
    let mode = clap::ValueEnum::to_possible_value(&mode).expect("no mode is hidden");
    let own = std::env::current_exe().context("cannot find the build")?;
    let mut command = host.command(own)?;
    command.args(["load", "client", mode.get_name(), &to.to_string(), &time.as_millis().to_string()]);
    let output = command.output().context("cannot start a client")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the client of {to} in {} failed: {}", host.name(), errors.trim());
    let result: LoadResult = serde_json::from_slice(&output.stdout).context("a client's result")?;
    ensure!(result.errors == 0, "{} rounds of {mode:?} to {to} failed: {}", result.errors, errors.trim());
    Ok(result)
}

/// Keeps the process on the last CPU.
fn pin() -> Result<()> {
    let last = std::thread::available_parallelism().context("the CPUs")?.get() - 1;
    let mut set = CpuSet::new();
    set.set(last);
    sched_setaffinity(None, &set).with_context(|| format!("cannot go to CPU {last}"))
}

fn serve(addresses: &[SocketAddr]) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut sockets: Vec<Option<OwnedFd>> = Vec::new();
    for address in addresses {
        let listener = socket(address, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        net::bind(&listener, address).with_context(|| format!("cannot listen on {address}"))?;
        net::listen(&listener, BACKLOG)?;
        watch(&poll, listener, &mut sockets)?;
    }
    let listeners = sockets.len();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let place = usize::try_from(event.data.u64()).expect("a place in a vector");
            if place < listeners {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                while let Some(accepted) =
                    sockets[place].as_ref().map(|listener| net::accept_with(listener, flags))
                {
                    match accepted {
                        Ok(stream) => {
                            sockopt::set_tcp_nodelay(&stream, true)?;
                            watch(&poll, stream, &mut sockets)?;
                        }
                        // A client that has gone again already.
                        Err(Errno::CONNABORTED) => {}
                        Err(_) => break,
                    }
                }
            } else if sockets[place].as_ref().is_some_and(|stream| !echo(stream, &mut buffer)) {
                sockets[place] = None;
            }
        }
        forget(&mut sockets, listeners);
    }
}

/// Sends back what is there; false if the connection has ended.
fn echo(stream: &OwnedFd, buffer: &mut [u8]) -> bool {
    match net::recv(stream, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => false,
        Ok((len, _)) if buffer[0] == SWALLOWED => len > 0,
        Ok((len, _)) => net::send(stream, &buffer[..len], SendFlags::NOSIGNAL).is_ok(),
        Err(error) => error == Errno::AGAIN,
    }
}

/// A socket's place is what the kernel tells it by.
fn watch(poll: &OwnedFd, socket: OwnedFd, sockets: &mut Vec<Option<OwnedFd>>) -> Result<()> {
    let place = sockets.len();
    epoll::add(poll, &socket, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)?;
    sockets.push(Some(socket));
    Ok(())
}

/// Connections end in about the order in which they began.
fn forget(sockets: &mut Vec<Option<OwnedFd>>, listeners: usize) {
    while sockets.len() > listeners && sockets.last().is_some_and(Option::is_none) {
        sockets.pop();
    }
}

fn socket(to: &SocketAddr, flags: SocketFlags) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn connect(to: &SocketAddr) -> Result<TcpStream> {
    let socket = socket(to, SocketFlags::CLOEXEC)?;
    // Closing resets, so that no port is left waiting.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
    }
    net::connect(&socket, to)?;
    Ok(socket.into())
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&MESSAGE)?;
    stream.read_exact(&mut [0; MESSAGE.len()])?;
    Ok(())
}

fn drive(mode: Mode, to: SocketAddr, time: Duration) -> Result<LoadResult> {
    // Nanoseconds, to three digits.
    let longest = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let mut rounds = Histogram::<u64>::new_with_bounds(1, longest, 3)?;
    let (mut errors, mut bytes) = (0, 0);
    let mut open = match mode {
        Mode::Exchange | Mode::Bulk => Some(connect(&to).with_context(|| format!("cannot connect to {to}"))?),
        Mode::Connect | Mode::ConnectExchange => None,
    };
    let block = vec![SWALLOWED; 1 << 16];
    let start = Instant::now();
    while start.elapsed() < time {
        let begin = Instant::now();
        let outcome = match (&mut open, mode) {
            (Some(stream), Mode::Bulk) => {
                stream.write(&block).map(|len| bytes += len as u64).map_err(anyhow::Error::from)
            }
            (Some(stream), _) => exchange(stream),
            (None, Mode::Connect) => connect(&to).map(drop),
            (None, _) => connect(&to).and_then(|mut stream| exchange(&mut stream)),
        };
        match outcome {
            Ok(()) => rounds.saturating_record(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            Err(error) => {
                if errors == 0 {
                    eprintln!("{error:#}");
                }
                errors += 1;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (count, p50) = (
        if mode == Mode::Bulk { bytes as f64 } else { rounds.len() as f64 },
        rounds.value_at_quantile(0.5) as f64 / 1e3,
    );
    Ok(LoadResult { rate: count / seconds, p50, errors })
}
