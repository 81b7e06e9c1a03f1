//! One direction of an impaired link: which frames get through, and when. Pure; the clock is an argument.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::LabError;

/// A rate-limited link drops what would wait longer than this before its own transmission begins.
const MAX_BACKLOG: Duration = Duration::from_millis(500);
/// Bytes held at once, so that a long delay of a fast link cannot eat the memory.
const MAX_HELD_BYTES: usize = 64 << 20;
/// Longer than any link; keeps the time at which a frame leaves within what the clock can tell.
const MAX_DELAY: Duration = Duration::from_mins(1);

/// What is done to one direction of a link. Starts as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Nothing gets through.
    pub cut: bool,
    /// How much later each frame arrives, at most a minute.
    pub delay: Duration,
    /// Which share of frames is dropped, each by its own throw of the dice.
    pub loss: Share,
    /// Which share of the frames that are not dropped arrives twice.
    pub duplicate: Share,
    /// How fast frames leave, in bits a second of whole Ethernet frames; unlimited if `None`.
    pub rate_bits_per_second: Option<NonZeroU64>,
}

impl Impairment {
    /// Nothing is done to the link.
    pub const NONE: Self = Self {
        cut: false,
        delay: Duration::ZERO,
        loss: Share::ZERO,
        duplicate: Share::ZERO,
        rate_bits_per_second: None,
    };

    /// Nothing gets through.
    pub const CUT: Self = Self { cut: true, ..Self::NONE };

    /// Checks what the types do not.
    pub(crate) fn validate(&self) -> Result<(), LabError> {
        if self.delay > MAX_DELAY {
            let (delay, longest) = (self.delay.as_secs(), MAX_DELAY.as_secs());
            return Err(LabError::InvalidImpairment(format!(
                "a delay of {delay} s is longer than {longest} s"
            )));
        }
        Ok(())
    }
}

/// A share of a whole, from nothing to all, in millionths. Written as a percentage, such as `0.5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share(u32);

/// Why a text is no share.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a percentage between 0% and 100%, such as 0.5%")]
pub struct InvalidShare(String);

impl Share {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    const WHOLE: u32 = 1_000_000;

    /// `percent` hundredths, at most 100.
    pub const fn percent(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self(percent as u32 * (Self::WHOLE / 100))
    }

    fn throw(self, dice: &mut fastrand::Rng) -> bool {
        self.0 > 0 && dice.u32(..Self::WHOLE) < self.0
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidShare(text.to_owned());
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || fraction.len() > 4 || !digits(whole) || !digits(fraction) {
            return Err(invalid());
        }
        let millionths: u32 = format!("{whole}{fraction:0<4}").parse().map_err(|_| invalid())?;
        if millionths > Self::WHOLE { Err(invalid()) } else { Ok(Self(millionths)) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What became of the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelCounters {
    /// Frames that arrived at the relay.
    pub received: u64,
    /// Frames that left it, second copies included.
    pub delivered: u64,
    /// Frames dropped by a cut.
    pub cut: u64,
    /// Frames dropped by the dice.
    pub lost: u64,
    /// Frames that were sent twice.
    pub duplicated: u64,
    /// Frames for which a queue had no room: the wait for the rate was too long, too much was held, or the relay was
    /// not scheduled for so long that the kernel's own queues before it were full.
    pub overflowed: u64,
}

/// A frame that has not left yet.
struct UnderWay<F> {
    due: Instant,
    len: usize,
    frame: F,
}

/// The frames under way in one direction, in the order in which they leave.
pub(crate) struct Channel<F> {
    impairment: Impairment,
    dice: fastrand::Rng,
    /// When the last frame will have left the sender, at the limited rate.
    sender_free_at: Option<Instant>,
    under_way: VecDeque<UnderWay<F>>,
    held_bytes: usize,
    counters: ChannelCounters,
}

impl<F: Clone> Channel<F> {
    /// An unimpaired direction; the same seed throws the same dice.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            impairment: Impairment::NONE,
            dice: fastrand::Rng::with_seed(seed),
            sender_free_at: None,
            under_way: VecDeque::new(),
            held_bytes: 0,
            counters: ChannelCounters::default(),
        }
    }

    /// Changes what is done to the frames that come from now on. A cut drops those under way too.
    pub(crate) fn set(&mut self, impairment: Impairment) {
        self.impairment = impairment;
        self.sender_free_at = None;
        if impairment.cut {
            self.counters.cut += u64::try_from(self.under_way.len()).unwrap_or(u64::MAX);
            self.under_way.clear();
            self.held_bytes = 0;
        }
    }

    pub(crate) fn impairment(&self) -> Impairment {
        self.impairment
    }

    pub(crate) fn counters(&self) -> ChannelCounters {
        self.counters
    }

    /// Takes a frame of `len` bytes that arrived at `now`.
    pub(crate) fn push(&mut self, now: Instant, len: usize, frame: F) {
        self.counters.received += 1;
        if self.impairment.cut {
            self.counters.cut += 1;
        } else if self.impairment.loss.throw(&mut self.dice) {
            self.counters.lost += 1;
        } else {
            if self.impairment.duplicate.throw(&mut self.dice) {
                self.counters.duplicated += 1;
                self.send(now, len, frame.clone());
            }
            self.send(now, len, frame);
        }
    }

    fn send(&mut self, now: Instant, len: usize, frame: F) {
        let begins = self.sender_free_at.map_or(now, |free_at| free_at.max(now));
        if begins - now > MAX_BACKLOG || self.held_bytes + len > MAX_HELD_BYTES {
            self.counters.overflowed += 1;
            return;
        }
        let ends = begins + self.transmission_time(len);
        self.sender_free_at = Some(ends);
        // A delay that was shortened a moment ago must not let frames overtake each other.
        let due = self.under_way.back().map_or(ends, |last| last.due).max(ends + self.impairment.delay);
        self.under_way.push_back(UnderWay { due, len, frame });
        self.held_bytes += len;
    }

    fn transmission_time(&self, len: usize) -> Duration {
        let Some(rate) = self.impairment.rate_bits_per_second else { return Duration::ZERO };
        let bits = u64::try_from(len).unwrap_or(u64::MAX).saturating_mul(8);
        Duration::from_nanos(
            u64::try_from(u128::from(bits) * 1_000_000_000 / u128::from(rate.get())).unwrap_or(u64::MAX),
        )
    }

    /// The next frame that has to leave by `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<F> {
        if self.next_due()? > now { None } else { self.pop() }
    }

    /// The next frame, whenever it has to leave.
    pub(crate) fn pop(&mut self) -> Option<F> {
        let UnderWay { len, frame, .. } = self.under_way.pop_front()?;
        self.held_bytes -= len;
        self.counters.delivered += 1;
        Some(frame)
    }

    /// Records frames that the kernel dropped before they reached the channel.
    pub(crate) fn count_missed(&mut self, frames: u64) {
        self.counters.received += frames;
        self.counters.overflowed += frames;
    }

    /// Records that a frame taken out by [`Self::pop_due`] found no room where it was to go.
    pub(crate) fn count_overflow(&mut self) {
        self.counters.delivered -= 1;
        self.counters.overflowed += 1;
    }

    /// When the next frame leaves.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.under_way.front().map(|next| next.due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel(impairment: Impairment) -> Channel<usize> {
        let mut channel = Channel::new(1);
        channel.set(impairment);
        channel
    }

    /// Everything that leaves until `end`, with the time it left at.
    fn drain(channel: &mut Channel<usize>, end: Instant) -> Vec<(Instant, usize)> {
        let mut out = Vec::new();
        while let Some(due) = channel.next_due().filter(|due| *due <= end) {
            out.push((due, channel.pop_due(due).unwrap()));
        }
        out
    }

    #[test]
    fn shares_are_read_and_written_as_percentages() {
        for (text, millionths) in
            [("0", 0), ("10%", 100_000), ("0.5%", 5_000), ("100%", 1_000_000), ("0.0001", 1)]
        {
            assert_eq!(text.parse::<Share>().unwrap(), Share(millionths), "{text}");
        }
        for text in ["", "%", "101%", "100.0001%", "-1", "1e2", "0.00001%", ".5", "1.2.3", "99999999999"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert_eq!(Share(5_000).to_string(), "0.5%");
        assert_eq!(Share::percent(100).to_string(), "100%");
        assert_eq!(Share::ZERO.to_string(), "0%");
    }

    #[test]
    fn a_frame_leaves_a_delayed_channel_exactly_one_delay_later() {
        let start = Instant::now();
        let delay = Duration::from_millis(50);
        let mut channel = channel(Impairment { delay, ..Impairment::NONE });
        channel.push(start, 100, 1);
        assert_eq!(channel.pop_due(start + Duration::from_nanos(49_999_999)), None);
        assert_eq!(channel.pop_due(start + delay), Some(1));
    }

    #[test]
    fn a_limited_rate_spaces_frames_and_bounds_the_wait() {
        let start = Instant::now();
        // 1,000 bytes take 8 ms at 1 Mbit/s.
        let rate_bits_per_second = NonZeroU64::new(1_000_000);
        let mut channel = channel(Impairment { rate_bits_per_second, ..Impairment::NONE });
        (0..100).for_each(|frame| channel.push(start, 1_000, frame));
        let left = drain(&mut channel, start + Duration::from_secs(10));
        let expected: Vec<_> =
            (0..63u32).map(|n| (start + Duration::from_millis(8) * (n + 1), n as usize)).collect();
        assert_eq!(left, expected, "500 ms of backlog hold 63 frames");
        assert_eq!(channel.counters().overflowed, 37);
    }

    #[test]
    fn held_bytes_are_bounded_and_given_back() {
        let start = Instant::now();
        let mut channel = channel(Impairment { delay: Duration::from_secs(1), ..Impairment::NONE });
        (0..100).for_each(|frame| channel.push(start, 1 << 20, frame));
        assert_eq!(channel.counters().overflowed, 100 - 64);
        assert_eq!(drain(&mut channel, start + Duration::from_secs(1)).len(), 64);
        channel.push(start, 1 << 20, 0);
        assert_eq!(channel.pop(), Some(0), "there is room again");
    }

    #[test]
    fn a_delay_that_no_link_has_is_refused() {
        let delayed = |seconds| Impairment { delay: Duration::from_secs(seconds), ..Impairment::NONE };
        assert!(delayed(60).validate().is_ok());
        let error = delayed(u64::MAX).validate().unwrap_err().to_string();
        assert!(error.ends_with("is longer than 60 s"), "{error}");
    }

    #[test]
    fn a_cut_drops_what_is_under_way() {
        let start = Instant::now();
        let mut channel = channel(Impairment { delay: Duration::from_secs(1), ..Impairment::NONE });
        channel.push(start, 100, 1);
        channel.set(Impairment::CUT);
        channel.push(start, 100, 2);
        channel.set(Impairment::NONE);
        assert_eq!(drain(&mut channel, start + Duration::from_secs(9)), []);
        assert_eq!(channel.counters().cut, 2);
    }

    prop_compose! {
        fn any_impairment()(
            cut in prop::bool::weighted(0.1),
            delay in 0u64..100,
            loss in 0u8..=100,
            duplicate in 0u8..=100,
            rate in prop::option::of(1u64..10_000_000),
        ) -> Impairment {
            Impairment {
                cut,
                delay: Duration::from_millis(delay),
                loss: Share::percent(loss),
                duplicate: Share::percent(duplicate),
                rate_bits_per_second: rate.and_then(NonZeroU64::new),
            }
        }
    }

    proptest! {
        /// Whatever is set and sent, frames keep their order, none leaves early, and each one is accounted for.
        #[test]
        fn frames_keep_their_order_and_are_accounted_for(
            steps in prop::collection::vec((any_impairment(), prop::collection::vec((0u64..20, 60usize..2_000), 0..30)), 1..6),
        ) {
            let mut now = Instant::now();
            let mut channel = Channel::new(7);
            let mut sent_at = Vec::new();
            let mut out = Vec::new();
            for (impairment, frames) in steps {
                channel.set(impairment);
                for (wait, len) in frames {
                    now += Duration::from_millis(wait);
                    channel.push(now, len, sent_at.len());
                    sent_at.push(now + impairment.delay);
                    out.extend(drain(&mut channel, now));
                }
            }
            out.extend(drain(&mut channel, now + Duration::from_secs(1_000_000)));
            prop_assert!(out.is_sorted());
            prop_assert!(out.iter().all(|(left, frame)| *left >= sent_at[*frame]));
            let counters = channel.counters();
            prop_assert_eq!(counters.delivered, out.len() as u64);
            prop_assert_eq!(
                counters.received + counters.duplicated,
                counters.delivered + counters.cut + counters.lost + counters.overflowed
            );
        }
    }

    #[test]
    fn the_dice_drop_and_double_the_share_they_are_told_to() {
        let start = Instant::now();
        let impairment =
            Impairment { loss: Share::percent(10), duplicate: Share::percent(20), ..Impairment::NONE };
        let mut channel = channel(impairment);
        (0..50_000).for_each(|frame| {
            channel.push(start, 100, frame);
            while channel.pop_due(start).is_some() {}
        });
        let counters = channel.counters();
        // Five standard deviations of a binomial distribution of 50,000 throws; the seed is fixed.
        assert!((4_664..=5_336).contains(&counters.lost), "{}", counters.lost);
        assert!((8_560..=9_440).contains(&counters.duplicated), "{}", counters.duplicated);
    }
}
