//! Packets of services that no socket program translated: on the way to a backend another destination, on the way back
//! another source.
//!
//! ```text
//!  pod ─► from_pod ─► to_service ─► to_backend ─┬─► like from_pod: to a pod, another node, the stack
//!                                               └─► hide_client ─► the pod itself, if that is the backend
//!  pod ◄─ as_service ◄─ from_pod, to_backend, from_overlay, from_uplink       (through the stack: to_pod does it itself)
//! ```
//!
//! Each arrow is a tail call, see [`steps`](crate::steps). What was let through before needs no second look.

use aya_ebpf::{macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{Direction, Endpoint, NodeNumber, Reason, ServiceFlow, Step, TracePoint};
use landbridge_bpf_verdict::{Flow, Fragments, Scope, notice::Trouble};

use crate::config::{is_direct, overlay_mtu};
use crate::events::trace;
use crate::frame::{Dropped, OnAccountOf, Outcome, PASS, deliver, expires, finish, read};
use crate::metrics::count;
use crate::notice::is_too_big;
use crate::pod::refuse;
use crate::rewrite::{End, rewrite};
use crate::steps::{Told, go_on};
use crate::tables::{Maps, endpoint, owner};
use crate::translation::{self, name_service, receiver_of};
use crate::tunnel::{room_to, underlay};

const OUT: Direction = Direction::Egress;
const IN: Direction = Direction::Ingress;

/// What a pod sends to a service: finds the backend, and sends the packet there.
#[classifier]
pub fn to_service(ctx: TcContext) -> i32 {
    let outcome = send_on(&ctx);
    finish(&ctx, outcome)
}

/// What a pod gets from whom it called by the name of a service.
#[classifier]
pub fn as_service(ctx: TcContext) -> i32 {
    let outcome = give_to_pod(&ctx, name_service);
    finish(&ctx, outcome)
}

/// What a pod gets from itself.
#[classifier]
pub fn hide_client(ctx: TcContext) -> i32 {
    let outcome = give_to_pod(&ctx, |ctx, flow, _| translation::hide_client(ctx, flow));
    finish(&ctx, outcome)
}

#[inline(always)]
fn send_on(ctx: &TcContext) -> Outcome {
    let mut flow = Flow::default();
    if read(ctx, &mut flow).of(OUT)? == Scope::Link {
        return Ok(PASS);
    }
    let Some(sender) = endpoint(&flow.source) else {
        return Err(Dropped { reason: Reason::INVALID_SOURCE, direction: OUT });
    };
    // A pod is told of packets as it sent them, so whether it has to be is looked at here.
    if expires(&flow) {
        return Ok(refuse(ctx, &flow, sender, Trouble::TimeExceeded, Reason::TTL_EXCEEDED));
    }
    let mut receiver = ServiceFlow::default();
    if receiver_of(&mut flow, sender, &mut receiver).of(OUT)? {
        let node = owner(&receiver.address).node;
        if !is_direct() && node != NodeNumber::NONE {
            let room = room_to(&underlay(node).of(OUT)?, overlay_mtu());
            if room != 0 && is_too_big(ctx, &flow, room) {
                let trouble = Trouble::TooBig(room as u16);
                return Ok(refuse(ctx, &flow, sender, trouble, Reason::FRAGMENTATION_NEEDED));
            }
        }
        // By the name that the later pieces will come under as well.
        Maps.remember_datagram(&flow);
        rewrite(ctx, &mut flow, End::Destination, &receiver.address, receiver.port).of(OUT)?;
    }
    go_on(ctx, Step::ToBackend, OUT)
}

/// Gives a packet that was let through to its pod, after something was done to it.
#[inline(always)]
fn give_to_pod(
    ctx: &TcContext,
    change: impl Fn(&TcContext, &mut Flow, &Endpoint) -> Result<(), Reason>,
) -> Outcome {
    let Told { peer, passage } = Told::read(ctx);
    let mut flow = Flow::default();
    if read(ctx, &mut flow).of(IN)? == Scope::Link {
        return Ok(PASS);
    }
    Maps.complete(&mut flow).of(IN)?;
    let Some(receiver) = endpoint(&flow.destination) else {
        return Err(Dropped { reason: Reason::UNKNOWN_TARGET, direction: IN });
    };
    let len = ctx.len();
    change(ctx, &mut flow, receiver).of(IN)?;
    let action = deliver(ctx, &flow, receiver).of(IN)?;
    count(Reason::FORWARDED, IN, len);
    trace(ctx, &flow, TracePoint::ToEndpoint, IN, (peer, receiver.identity), passage);
    Ok(action)
}
