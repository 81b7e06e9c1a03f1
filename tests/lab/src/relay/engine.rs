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

/// Where a relay stands, and how to take it away again.
struct Place {
    plan: LinkPlan,
    switch: Namespace,
    far: Namespace,
}

impl Engine {
    /// Puts a relay into a link that has none. Frames that pass at this moment may be lost.
    pub(crate) fn start(plan: &LinkPlan, switch: &Namespace, far: &Namespace) -> Result<Self, LabError> {
        let context = || format!("put a relay into link {}", plan.name);
        let place = Place { plan: plan.clone(), switch: switch.clone(), far: far.clone() };
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(context)?);
        let (requests, receiver) = mpsc::sync_channel(COMMAND_QUEUE_LEN);
        let (port, tap) = place.interpose()?;
        let woken = Arc::clone(&wake);
        let run = move || {
            Relay::new(&place.plan, port, tap).run(&receiver, &woken);
            // The TAP device is gone. A lab that is being removed needs its link no more.
            let _ = place.restore();
        };
        let thread =
            thread::Builder::new().name(format!("relay-{}", plan.name)).spawn(run).context(context)?;
        Ok(Self { link: plan.name.clone(), requests, wake, thread: Mutex::new(Some(thread)) })
    }

    /// Has the relay carry out a command, and returns where it stands after that.
    pub(crate) fn ask(&self, command: Command) -> Result<RelayCounters, LabError> {
        let (answer, answers) = mpsc::channel();
        let ended =
            |_| LabError::Relay { link: self.link.clone(), reason: "its thread has ended".to_owned() };
        self.requests.send(Request { command, answer }).map_err(|_| ended(mpsc::RecvError))?;
        // Writing to an eventfd fails only at its maximum, where the relay is awake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        answers.recv().map_err(ended)
    }

    /// Stops the relay, waits until the kernel has the link back, and returns what passed.
    pub(crate) fn stop(&self) -> Result<RelayCounters, LabError> {
        let counters = self.ask(Command::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
        counters
    }
}

impl Place {
    fn interpose(&self) -> Result<(PacketSocket, Tap), LabError> {
        let LinkPlan { name, port, .. } = &self.plan;
        let context = || format!("put a relay into link {name}");
        let tap_name = format!("r-{port}");
        let open =
            || -> io::Result<_> { Ok((PacketSocket::open(port, View::Arriving)?, Tap::create(&tap_name)?)) };
        let devices = self.switch.run(open).context(context)?.context(context)?;
        // Packets become wire frames before they reach the relay, so that a share of frames is a share of frames.
        self.limit_segments(1)?;
        netlink::within(&self.switch, async |netlink| {
            netlink.set_queue_len(&tap_name, TAP_QUEUE_LEN).await?;
            netlink.set_up(&tap_name).await?;
            netlink.set_bridge(port, None).await?;
            netlink.set_bridge(&tap_name, Some(BRIDGE)).await
        })?;
        Ok(devices)
    }

    fn limit_segments(&self, segments: u32) -> Result<(), LabError> {
        let interface = &self.plan.far_interface;
        netlink::within(&self.far, async |netlink| netlink.set_gso_max_segments(interface, segments).await)
    }

    fn restore(&self) -> Result<(), LabError> {
        let port = &self.plan.port;
        netlink::within(&self.switch, async |netlink| netlink.set_bridge(port, Some(BRIDGE)).await)?;
        self.limit_segments(DEFAULT_GSO_SEGMENTS)
    }
}

/// Gives the kernel a link back whose relay died without doing so.
pub(crate) fn restore(plan: &LinkPlan, switch: &Namespace, far: &Namespace) -> Result<(), LabError> {
    Place { plan: plan.clone(), switch: switch.clone(), far: far.clone() }.restore()
}

/// The devices and the frames between them.
struct Relay {
    port: PacketSocket,
    tap: Tap,
    /// What arrived at the port and goes to the bridge.
    to_bridge: Channel<Vec<u8>>,
    /// What the bridge sent and goes out of the port.
    to_port: Channel<Vec<u8>>,
    /// Whether frames that arrive at the port leave the named end of the link.
    port_is_outbound: bool,
}

impl Relay {
    fn new(plan: &LinkPlan, port: PacketSocket, tap: Tap) -> Self {
        let [to_bridge, to_port] = SEEDS.map(Channel::new);
        Self { port, tap, to_bridge, to_port, port_is_outbound: plan.port_is_outbound }
    }

    fn run(mut self, requests: &Receiver<Request>, wake: &OwnedFd) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            loop {
                match requests.try_recv() {
                    Ok(Request { command, answer }) => {
                        self.carry_out(command);
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
            give(|frame| self.tap.send(frame), &mut self.to_bridge, now);
            give(|frame| self.port.send(frame), &mut self.to_port, now);
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
            let from_port = (direction == Direction::Outbound) == self.port_is_outbound;
            let channel = if from_port { &mut self.to_bridge } else { &mut self.to_port };
            channel.set(impairment);
        }
    }

    fn counters(&self) -> RelayCounters {
        let (outbound, inbound) = if self.port_is_outbound {
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

/// Moves what is due from a channel to the other side.
fn give(send: impl Fn(&[u8]) -> io::Result<()>, channel: &mut Channel<Vec<u8>>, now: Instant) {
    while let Some(frame) = channel.pop_due(now) {
        if send(&frame).is_err() {
            channel.count_overflow();
        }
    }
}
