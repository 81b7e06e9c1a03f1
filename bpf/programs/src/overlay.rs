//! Between nodes: both directions of the tunnel interface, whose packets carry the sender's identity as their VNI.

use aya_ebpf::{macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{Direction, NodeNumber, Reason, TracePoint, identity};

use crate::events::trace;
use crate::frame::{
    Dropped, OnAccountOf, Outcome, PASS, accept, arrival_interface, deliver, finish, mark, read, set_tunnel,
    tunnel,
};
use crate::metrics::count;
use crate::tables::{check_endpoint, check_sender, endpoint, is_of_this_node, owner};

/// The mark of a packet whose tunnel is set already, from `from_pod` to `to_overlay`. Programs of the node may set it too:
/// then there is no tunnel, and the interface drops the packet.
pub const TUNNEL_IS_SET: u32 = 0x4c42_0001;

/// What another node sends.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    let outcome = arrive(&ctx);
    finish(&ctx, outcome)
}

/// What goes to another node: of a pod, ready, or of this node itself.
#[classifier]
pub fn to_overlay(ctx: TcContext) -> i32 {
    let outcome = leave(&ctx);
    finish(&ctx, outcome)
}

#[inline(always)]
fn arrive(ctx: &TcContext) -> Outcome {
    const IN: Direction = Direction::Ingress;
    let dropped = |reason| Err(Dropped { reason, direction: IN });
    let (claimed, tunnel_source) = tunnel(ctx).of(IN)?;
    let Some(flow) = read(ctx).of(IN)? else { return dropped(Reason::UNSUPPORTED_PROTOCOL) };
    let len = ctx.len();
    check_sender(&flow.source, &tunnel_source, claimed).of(IN)?;
    if let Some(receiver) = endpoint(&flow.destination) {
        let passage = check_endpoint(ctx, receiver, IN, &flow, claimed).of(IN)?;
        let action = deliver(ctx, &flow, receiver).of(IN)?;
        count(Reason::FORWARDED, IN, len);
        trace(ctx, &flow, TracePoint::ToEndpoint, IN, (claimed, receiver.identity), passage);
        return Ok(action);
    }
    let for_node = is_of_this_node(&flow.destination) || owner(&flow.destination).identity == identity::HOST;
    if !for_node {
        return dropped(Reason::UNKNOWN_TARGET);
    }
    accept(ctx).of(IN)?;
    count(Reason::FORWARDED, IN, len);
    Ok(PASS)
}

#[inline(always)]
fn leave(ctx: &TcContext) -> Outcome {
    const OUT: Direction = Direction::Egress;
    let dropped = |reason| Err(Dropped { reason, direction: OUT });
    if mark(ctx) == TUNNEL_IS_SET {
        // The underlay need not know.
        ctx.set_mark(0);
        return Ok(PASS);
    }
    let Some(flow) = read(ctx).of(OUT)? else { return dropped(Reason::UNSUPPORTED_PROTOCOL) };
    let sender = if is_of_this_node(&flow.source) {
        identity::REMOTE_NODE
    } else if let Some(sender) = endpoint(&flow.source) {
        // A pod's that took the way through the stack, since its receiver was not known yet. From anywhere but its
        // interface, it is someone's who wants to be sent on as the pod.
        if sender.interface != arrival_interface(ctx) {
            return dropped(Reason::INVALID_SOURCE);
        }
        sender.identity
    } else if owner(&flow.source).identity == identity::HOST {
        identity::REMOTE_NODE
    } else {
        return dropped(Reason::INVALID_SOURCE);
    };
    let node = owner(&flow.destination).node;
    if node == NodeNumber::NONE {
        return dropped(Reason::NO_TUNNEL_ENDPOINT);
    }
    set_tunnel(ctx, node, sender).of(OUT)?;
    count(Reason::FORWARDED, OUT, ctx.len());
    Ok(PASS)
}
