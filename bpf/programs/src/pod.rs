//! Between a pod and its node: both directions of the node's side of a pod's interface.

use aya_ebpf::{helpers::bpf_redirect, macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{Direction, IpcacheEntry, NodeNumber, Reason, TracePoint, identity};

use crate::events::trace;
use crate::frame::{
    Dropped, OnAccountOf, Outcome, PASS, arrival_interface, deliver, finish, interface, read, set_tunnel,
};
use crate::metrics::count;
use crate::overlay::TUNNEL_IS_SET;
use crate::tables::{check_endpoint, endpoint, overlay_interface, owner, zero};

/// What a pod sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let outcome = leave(&ctx);
    finish(&ctx, outcome)
}

/// What the node's stack sends to a pod: from the node itself, or from outside of the mesh. Pods and other nodes reach
/// it past the stack.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    let outcome = arrive(&ctx);
    finish(&ctx, outcome)
}

#[inline(always)]
fn leave(ctx: &TcContext) -> Outcome {
    const OUT: Direction = Direction::Egress;
    const IN: Direction = Direction::Ingress;
    let Some(flow) = read(ctx).of(OUT)? else { return Ok(PASS) };
    let len = ctx.len();
    let sender = match endpoint(&flow.source) {
        Some(sender) if sender.interface == interface(ctx) => sender,
        _ => return Err(Dropped { reason: Reason::INVALID_SOURCE, direction: OUT }),
    };
    let receiver = endpoint(&flow.destination);
    let owner = match receiver {
        Some(receiver) => IpcacheEntry { identity: receiver.identity, node: NodeNumber(zero()) },
        None => owner(&flow.destination),
    };
    let passage = check_endpoint(ctx, sender, OUT, &flow, owner.identity).of(OUT)?;
    let identities = (sender.identity, owner.identity);
    if let Some(receiver) = receiver {
        count(Reason::FORWARDED, OUT, len);
        let passage = check_endpoint(ctx, receiver, IN, &flow, sender.identity).of(IN)?;
        let action = deliver(ctx, &flow, receiver).of(IN)?;
        count(Reason::FORWARDED, IN, len);
        trace(ctx, &flow, TracePoint::ToEndpoint, IN, identities, passage);
        return Ok(action);
    }
    if owner.node == NodeNumber::NONE {
        count(Reason::FORWARDED, OUT, len);
        trace(ctx, &flow, TracePoint::ToStack, OUT, identities, passage);
        return Ok(PASS);
    }
    set_tunnel(ctx, owner.node, sender.identity).of(OUT)?;
    ctx.set_mark(TUNNEL_IS_SET);
    count(Reason::FORWARDED, OUT, len);
    trace(ctx, &flow, TracePoint::ToOverlay, OUT, identities, passage);
    // SAFETY: the helper takes two numbers.
    Ok(unsafe { bpf_redirect(overlay_interface(), 0) } as i32)
}

#[inline(always)]
fn arrive(ctx: &TcContext) -> Outcome {
    const IN: Direction = Direction::Ingress;
    let dropped = |reason| Err(Dropped { reason, direction: IN });
    let Some(flow) = read(ctx).of(IN)? else { return Ok(PASS) };
    let receiver = match endpoint(&flow.destination) {
        Some(receiver) if receiver.interface == interface(ctx) => receiver,
        _ => return dropped(Reason::UNKNOWN_TARGET),
    };
    let peer = if let Some(sender) = endpoint(&flow.source) {
        // Another pod of this node: only if the packet came from its interface.
        if sender.interface != arrival_interface(ctx) {
            return dropped(Reason::INVALID_SOURCE);
        }
        sender.identity
    } else {
        let owner = owner(&flow.source);
        // What is behind a tunnel does not come this way.
        if owner.node != NodeNumber::NONE {
            return dropped(Reason::INVALID_SOURCE);
        }
        // What arrived nowhere began here, under whichever address the node has.
        if arrival_interface(ctx) == 0 { identity::HOST } else { owner.identity }
    };
    let passage = check_endpoint(ctx, receiver, IN, &flow, peer).of(IN)?;
    count(Reason::FORWARDED, IN, ctx.len());
    trace(ctx, &flow, TracePoint::ToEndpoint, IN, (peer, receiver.identity), passage);
    Ok(PASS)
}
