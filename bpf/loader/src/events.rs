//! What the programs tell of packets while someone listens.

use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use landbridge_bpf_maps::{Event, EventBudget, EventControl, EventKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::error::{DatapathError, MapError};
use crate::shape::{EVENT_BUDGET, EVENT_CONTROL, EVENTS};
use crate::tables::take;

/// The one listener of a datapath. When it is dropped, or has not said for a while that it listens, nothing is told.
pub struct Events {
    ring: RingBuf<MapData>,
    control: Array<MapData, EventControl>,
    budget: PerCpuArray<MapData, EventBudget>,
}

/// What a listener wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest<'a> {
    /// Of which kinds.
    pub kinds: &'a [EventKind],
    /// How many events a CPU may tell in a second, and at once after a second of silence; the others are counted.
    pub per_second: NonZeroU32,
    /// For how long, unless it is said again.
    pub lease: Duration,
}

/// Events that were not told, of all CPUs since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostEvents {
    /// There were more in a second than the listener wanted.
    pub limited: u64,
    /// The listener was too slow.
    pub overflowed: u64,
}

impl Events {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, DatapathError> {
        let reading = MapError::reading;
        Ok(Self {
            ring: RingBuf::try_from(take(object, EVENTS)?).map_err(reading(EVENTS))?,
            control: Array::try_from(take(object, EVENT_CONTROL)?).map_err(reading(EVENT_CONTROL))?,
            budget: PerCpuArray::try_from(take(object, EVENT_BUDGET)?).map_err(reading(EVENT_BUDGET))?,
        })
    }

    /// Says that someone listens from now on. What a listener before left unread is still there.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn listen(&mut self, interest: &Interest<'_>) -> Result<(), MapError> {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let part = |value: i64| u64::try_from(value).unwrap_or_default();
        let now = Duration::from_secs(part(tv_sec)) + Duration::from_nanos(part(tv_nsec));
        let control = EventControl {
            until: nanoseconds(now.saturating_add(interest.lease)),
            kinds: interest.kinds.iter().fold(0, |kinds, kind| kinds | kind.bit()),
            cost: (1_000_000_000 / interest.per_second).max(1),
        };
        self.control.set(0, control, 0).map_err(MapError::reading(EVENT_CONTROL))
    }

    /// The oldest event that was not read yet.
    pub fn read(&mut self) -> Option<Event> {
        let record = self.ring.next()?;
        let bytes: &[u8; size_of::<Event>()] = record.first_chunk()?;
        #[expect(unsafe_code, reason = "a record is the bytes of the type that the programs write")]
        // SAFETY: the type is `repr(C)` of numbers without padding, so that any bytes are one of it.
        Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
    }

    /// Waits for events, at most `timeout`; returns whether there are any. Programs do not wake the listener for a few: it
    /// has to look by itself ten times a second or so, and is woken when the ring fills up before.
    ///
    /// # Errors
    /// [`MapError::Wait`].
    pub fn wait(&self, timeout: Duration) -> Result<bool, MapError> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut ring = [PollFd::new(&self.ring, PollFlags::IN)];
        match poll(&mut ring, Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(MapError::Wait { map: EVENTS, source: error.into() }),
        }
    }

    /// What was not told.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn lost(&self) -> Result<LostEvents, MapError> {
        let by_cpu = self.budget.get(&0, 0).map_err(MapError::reading(EVENT_BUDGET))?;
        Ok(by_cpu.iter().fold(LostEvents::default(), |sum, budget| LostEvents {
            limited: sum.limited + budget.limited,
            overflowed: sum.overflowed + budget.overflowed,
        }))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // If that fails, the programs stop when the time that was asked for is over.
        let _ = self.control.set(0, EventControl::default(), 0);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("ring", &self.ring.as_fd()).finish_non_exhaustive()
    }
}
