//! Counts packets and bytes by reason and direction.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use landbridge_bpf_maps::{Direction, METRICS_LEN, Reason, TrafficCount, metrics_index};

#[map]
static METRICS: PerCpuArray<TrafficCount> = PerCpuArray::with_max_entries(METRICS_LEN, 0);

/// Counts one packet of `len` bytes.
#[inline(always)]
pub fn count(reason: Reason, direction: Direction, len: u32) {
    if let Some(count) = METRICS.get_ptr_mut(metrics_index(reason, direction)) {
        // SAFETY: the kernel hands out this CPU's own copy, and nothing preempts a program at an interface to run
        // another one on the same CPU. Programs of sockets may be preempted, and count what nobody else counts: there
        // one of two simultaneous refusals may be missing.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += u64::from(len);
        }
    }
}
