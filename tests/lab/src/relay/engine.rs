//! The thread of a relay: moves frames between the port and the TAP device as its two channels decide.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Direction;
use super::channel::Channel;
use super::control::{Command, RelayCounters, Request};
use super::device::{Tap, VNET_HEADER_LEN};
use crate::error::{IoContext, LabError};
use crate::link::LinkPlan;
use crate::namespace::Namespace;
use crate::netlink;
use crate::packet_socket::{PacketSocket, View};
use crate::topology::BRIDGE;

/// Frames taken from one side before the other has its turn.
const BATCH: usize = 64;
/// Commands that may wait; whoever sends more waits too.
const COMMAND_QUEUE_LEN: usize = 8;
/// Frames the bridge may queue while the relay is not scheduled.
const TAP_QUEUE_LEN: u32 = 16_384;
/// Room for the largest packet the kernel builds, with its headers.
const BUFFER_BYTES: usize = VNET_HEADER_LEN + (1 << 16) + 64;
/// What the kernel gives a new veth device.
const DEFAULT_GSO_SEGMENTS: u32 = 65_535;
/// Each direction throws its own dice, the same in every run.
const SEEDS: [u64; 2] = [1, 2];

/// The handle on a running relay.
pub(crate) struct Engine {
    link: String,
    requests: SyncSender<Request>,
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where a relay stands.
#[derive(Clone)]
pub(crate) struct RelayPlace {
    pub(crate) plan: LinkPlan,
    /// The namespace that the relay stands in.
    pub(crate) switch: Namespace,
    /// The namespace at the other end of the cable.
    pub(crate) far: Namespace,
    /// Of the whole lab, in bytes.
    pub(crate) mtu: u32,
}

/// Gives the kernel its link back when the relay's thread ends, however it ends.
struct Interposed(RelayPlace);

impl Drop for Interposed {
    fn drop(&mut self) {
        // A lab that is being removed needs its links no more.
        let _ = self.0.restore();
    }
}

impl Engine {
    /// Puts a relay into a link that has none, and has it carry out a first command before the first frame. A few
    /// frames that pass at this moment may be lost.
    pub(crate) fn start(place: &RelayPlace, first: Command) -> Result<(Self, RelayCounters), LabError> {
        let link = place.plan.name.clone();
        let context = || format!("put a relay into link {link}");
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(context)?);
        let (requests, receiver) = mpsc::sync_channel(COMMAND_QUEUE_LEN);
        let interposed = Interposed(place.clone());
        let (port, tap) = place.interpose()?;
        let mut relay = Relay::new(place, port, tap);
        relay.carry_out(first);
        let counters = relay.counters();
        let woken = Arc::clone(&wake);
        let run = move || {
            // Dropped after the relay, and with it the TAP device.
            let _interposed = interposed;
            relay.run(&receiver, &woken);
        };
        let thread = thread::Builder::new().name(format!("relay-{link}")).spawn(run).context(context)?;
        Ok((Self { link, requests, wake, thread: Mutex::new(Some(thread)) }, counters))
    }

    /// Has the relay carry out a command, and returns where it stands after that.
    pub(crate) fn ask(&self, command: Command) -> Result<RelayCounters, LabError> {
        let (answer, answers) = mpsc::channel();
        let sent = self.requests.send(Request { command, answer });
        // Writing to an eventfd fails only at its maximum, where the relay is awake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        let answered = sent.ok().and_then(|()| answers.recv().ok());
        answered.ok_or_else(|| self.failed("its thread has ended"))
    }

    /// Stops the relay, waits until the kernel has the link back, and returns what passed.
    pub(crate) fn stop(&self) -> Result<RelayCounters, LabError> {
        let counters = self.ask(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Called while a lab is removed, which a panic of one relay must not keep from happening.
        thread.map_or(Ok(()), JoinHandle::join).map_err(|_| self.failed("its thread panicked"))?;
        counters
    }

    fn failed(&self, reason: &str) -> LabError {
        LabError::Relay { link: self.link.clone(), reason: reason.to_owned() }
    }
}

impl RelayPlace {
    fn interpose(&self) -> Result<(PacketSocket, Tap), LabError> {
        let LinkPlan { name, port, .. } = &self.plan;
        let context = || format!("put a relay into link {name}");
        let tap_name = self.tap_name();
        let open =
            || -> io::Result<_> { Ok((PacketSocket::open(port, View::Arriving)?, Tap::create(&tap_name)?)) };
        let (socket, tap) = self.switch.run(open).context(context)?.context(context)?;
        // Packets become wire frames before they reach the relay, so that a share of frames is a share of frames.
        self.limit_segments(1)?;
        netlink::within(&self.switch, async |netlink| {
            netlink.set_mtu(&tap_name, self.mtu).await?;
            netlink.set_queue_len(&tap_name, TAP_QUEUE_LEN).await?;
            netlink.set_up(&tap_name).await?;
            netlink.set_bridge(port, None).await?;
            netlink.set_bridge(&tap_name, Some(BRIDGE)).await
        })?;
        // The bridge has forwarded these already.
        let mut buffer = [0; 64];
        while socket.receive(&mut buffer).is_ok() {}
        Ok((socket, tap))
    }

    fn tap_name(&self) -> String {
        format!("r-{}", self.plan.port)
    }

    fn limit_segments(&self, segments: u32) -> Result<(), LabError> {
        let interface = &self.plan.far_interface;
        netlink::within(&self.far, async |netlink| netlink.set_gso_max_segments(interface, segments).await)
    }

    /// Gives the kernel its link back. Does no harm to a link that has no relay.
    pub(crate) fn restore(&self) -> Result<(), LabError> {
        let port = &self.plan.port;
        netlink::within(&self.switch, async |netlink| netlink.set_bridge(port, Some(BRIDGE)).await)?;
        self.limit_segments(DEFAULT_GSO_SEGMENTS)
    }

    /// Whether the kernel has the link: its port is in the bridge.
    pub(crate) fn is_whole(&self) -> Result<bool, LabError> {
        netlink::within(&self.switch, async |netlink| netlink.has_bridge(&self.plan.port).await)
    }
}

/// The devices and the frames between them.
struct Relay {
    port: PacketSocket,
    tap: Tap,
    /// What arrived at the port and goes to the bridge.
    to_bridge: Channel<Vec<u8>>,
    /// What the bridge sent and goes out of the port.
    to_port: Channel<Vec<u8>>,
    place: RelayPlace,
    /// Frames that the kernel could not queue for the TAP device, as far as they are counted.
    tap_dropped: u64,
}

impl Relay {
    fn new(place: &RelayPlace, port: PacketSocket, tap: Tap) -> Self {
        let [to_bridge, to_port] = SEEDS.map(Channel::new);
        Self { port, tap, to_bridge, to_port, place: place.clone(), tap_dropped: 0 }
    }

    fn run(mut self, requests: &Receiver<Request>, wake: &OwnedFd) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            loop {
                match requests.try_recv() {
                    Ok(Request { command, answer }) => {
                        self.carry_out(command);
                        if matches!(command, Command::Stop) {
                            // What is under way arrives early rather than never.
                            give(|frame| self.tap.send(frame), &mut self.to_bridge, None);
                            give(|frame| self.port.send(frame), &mut self.to_port, None);
                        }
                        // Whoever asked may have gone.
                        let _ = answer.send(self.counters());
                        if matches!(command, Command::Stop) {
                            return;
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let now = Instant::now();
            take(|buffer| self.port.receive(buffer), &mut self.to_bridge, &mut buffer, now);
            take(|buffer| self.tap.receive(buffer), &mut self.to_port, &mut buffer, now);
            let now = Instant::now();
            give(|frame| self.tap.send(frame), &mut self.to_bridge, Some(now));
            give(|frame| self.port.send(frame), &mut self.to_port, Some(now));
            self.wait(wake);
        }
    }

    /// Waits for a frame, for the time at which one leaves, or for a command.
    fn wait(&self, wake: &OwnedFd) {
        let due = [self.to_bridge.next_due(), self.to_port.next_due()].into_iter().flatten().min();
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [
            PollFd::new(&self.port, PollFlags::IN),
            PollFd::new(&self.tap, PollFlags::IN),
            PollFd::new(wake, PollFlags::IN),
        ];
        // An interrupted wait is a short one.
        let _ = poll(&mut events, timeout.as_ref());
        if events[2].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
    }

    fn carry_out(&mut self, command: Command) {
        if let Command::Set(direction, impairment) = command {
            let from_port = (direction == Direction::Outbound) == self.place.plan.port_is_outbound;
            let channel = if from_port { &mut self.to_bridge } else { &mut self.to_port };
            channel.set(impairment);
        }
    }

    fn counters(&mut self) -> RelayCounters {
        self.count_missed();
        let (outbound, inbound) = if self.place.plan.port_is_outbound {
            (&self.to_bridge, &self.to_port)
        } else {
            (&self.to_port, &self.to_bridge)
        };
        RelayCounters {
            outbound: outbound.impairment(),
            outbound_frames: outbound.counters(),
            inbound: inbound.impairment(),
            inbound_frames: inbound.counters(),
        }
    }

    /// Adds what the kernel's queues had no room for. What cannot be read now is read the next time.
    fn count_missed(&mut self) {
        self.to_bridge.count_missed(self.port.take_overruns().unwrap_or(0));
        let tap = self.place.tap_name();
        let dropped = netlink::within(&self.place.switch, async |netlink| netlink.dropped(&tap).await);
        if let Ok(dropped) = dropped {
            self.to_port.count_missed(dropped.saturating_sub(self.tap_dropped));
            self.tap_dropped = dropped;
        }
    }
}

/// Moves what has arrived at one side into its channel.
fn take(
    receive: impl Fn(&mut [u8]) -> io::Result<usize>,
    channel: &mut Channel<Vec<u8>>,
    buffer: &mut [u8],
    now: Instant,
) {
    for _ in 0..BATCH {
        // Nothing there is the common reason to stop; an interface that is down has nothing either.
        let Ok(len) = receive(buffer) else { return };
        channel.push(now, len.saturating_sub(VNET_HEADER_LEN), buffer[..len].to_vec());
    }
}

/// Moves what is due by `now` from a channel to the other side; everything without a time.
fn give(send: impl Fn(&[u8]) -> io::Result<()>, channel: &mut Channel<Vec<u8>>, now: Option<Instant>) {
    while let Some(frame) = match now {
        Some(now) => channel.pop_due(now),
        None => channel.pop(),
    } {
        if send(&frame).is_err() {
            channel.count_overflow();
        }
    }
}
