//! Programs that others go on with, by a tail call.

use aya_ebpf::{macros::map, maps::ProgramArray, programs::TcContext};
use landbridge_bpf_maps::{Direction, Reason, Step};
use landbridge_bpf_verdict::Passage;

use crate::frame::{Dropped, Outcome};

// Filled by the loader before anything is attached.
#[map]
static STEPS: ProgramArray = ProgramArray::with_max_entries(Step::ALL.len() as u32, 0);

/// Goes on with another program, which decides what becomes of the packet.
#[inline(always)]
pub fn go_on(ctx: &TcContext, step: Step, direction: Direction) -> Outcome {
    // SAFETY: the programs of the map are of this kind. It returns only if there is none.
    let _ = unsafe { STEPS.tail_call(ctx, step as u32) };
    Err(Dropped { reason: Reason::MISSED_TAIL_CALL, direction })
}

/// What a program tells the next one in the packet's control block.
#[derive(Clone, Copy)]
pub struct Told {
    /// Identity of the sender.
    pub peer: u32,
    /// What the packet is to its connection.
    pub passage: Passage,
}

impl Told {
    /// Tells it. Whatever others left there is overwritten: nobody but the program before speaks to the next one.
    #[inline(always)]
    pub fn write(self, ctx: &TcContext) {
        // SAFETY: the kernel gives every program of this kind a valid context.
        unsafe {
            (*ctx.skb.skb).cb[0] = self.peer;
            (*ctx.skb.skb).cb[1] = u32::from(self.passage.0);
        }
    }

    /// Hears it.
    #[inline(always)]
    pub fn read(ctx: &TcContext) -> Self {
        // SAFETY: as above.
        let [peer, passage, ..] = unsafe { (*ctx.skb.skb).cb };
        Self { peer, passage: Passage(passage as u8) }
    }
}
