//! Counts what passes an interface and lets it pass.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{Direction, Reason};

use crate::metrics;

/// Counts what arrives at the interface. Leaves the verdict to the programs after it.
#[classifier]
pub fn count_ingress(ctx: TcContext) -> i32 {
    metrics::count(Reason::FORWARDED, Direction::Ingress, ctx.len());
    TC_ACT_UNSPEC
}

/// Counts what leaves the interface. Leaves the verdict to the programs after it.
#[classifier]
pub fn count_egress(ctx: TcContext) -> i32 {
    metrics::count(Reason::FORWARDED, Direction::Egress, ctx.len());
    TC_ACT_UNSPEC
}
