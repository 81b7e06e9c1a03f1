//! Between nodes: both directions of the tunnel interface, whose packets carry the sender's identity as their VNI.

use aya_ebpf::{helpers::bpf_redirect, macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{Direction, Hook, NodeNumber, Reason, Step, TracePoint, Way, identity};
use landbridge_bpf_verdict::{Flow, Passage, Scope, notice::Trouble};

use crate::config::{is_of_this_node, overlay_interface};
use crate::events::trace;
use crate::frame::{
    DROP, Dropped, OnAccountOf, Outcome, PASS, accept, arrival_interface, deliver, expires, finish, mark,
    read,
};
use crate::known_flows::{generation, known, learn};
use crate::metrics::count;
use crate::notice::make_error;
use crate::steps::{Told, go_on};
use crate::tables::{check_endpoint, check_sender, endpoint, owner};
use crate::tunnel::{Tunnel, set_tunnel, tunnel, underlay};

/// The mark of a packet whose tunnel is set already, from `from_pod` to `to_overlay`. Programs of the node may set it too:
/// then there is no tunnel, and the interface drops the packet.
pub const TUNNEL_IS_SET: u32 = 0x4c42_0001;

/// What another node sends.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    if let Some(action) = known(&ctx, Hook::Overlay) {
        return action;
    }
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
    let Tunnel { identity: claimed, begin: tunnel_source } = tunnel(ctx).of(IN)?;
    let mut flow = Flow::default();
    if read(ctx, &mut flow).of(IN)? == Scope::Link {
        return dropped(Reason::UNSUPPORTED_PROTOCOL);
    }
    let len = ctx.len();
    let generation = generation();
    check_sender(&flow.source, &tunnel_source, claimed).of(IN)?;
    if let Some(receiver) = endpoint(&flow.destination) {
        let passage = check_endpoint(ctx, receiver, IN, &mut flow, claimed).of(IN)?;
        if expires(&flow) {
            if !make_error(ctx, &flow, Trouble::TimeExceeded, Reason::TTL_EXCEEDED, IN) {
                return Ok(DROP);
            }
            // Back through the tunnel that it came through.
            set_tunnel(ctx, &tunnel_source, identity::REMOTE_NODE).of(IN)?;
            ctx.set_mark(TUNNEL_IS_SET);
            // SAFETY: the helper takes two numbers.
            return Ok(unsafe { bpf_redirect(overlay_interface(), 0) } as i32);
        }
        if passage.has(Passage::TRANSLATED) {
            Told { peer: claimed, passage }.write(ctx);
            return go_on(ctx, Step::AsService, IN);
        }
        let action = deliver(ctx, &flow, receiver).of(IN)?;
        count(Reason::FORWARDED, IN, len);
        learn(
            ctx,
            &flow,
            passage,
            generation,
            (Hook::Overlay, Way::Pod, Some(receiver), Some(&tunnel_source), claimed),
        );
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
    let mut flow = Flow::default();
    if read(ctx, &mut flow).of(OUT)? == Scope::Link {
        // What the kernel tells its neighbours of itself: there are none.
        return Ok(DROP);
    }
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
    set_tunnel(ctx, &underlay(node).of(OUT)?, sender).of(OUT)?;
    count(Reason::FORWARDED, OUT, ctx.len());
    Ok(PASS)
}
