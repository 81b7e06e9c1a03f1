//! Between a pod and its node: both directions of the node's side of a pod's interface.

use aya_ebpf::{helpers::bpf_redirect, macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{
    Direction, Endpoint, Hook, IpcacheEntry, NodeNumber, Reason, Step, TracePoint, Way, identity,
};
use landbridge_bpf_verdict::{Flow, Passage, Scope, notice::Trouble, owner::is_allocated, packet::protocol};

use crate::config::{is_direct, overlay_interface, overlay_mtu, overlay_port, to_underlay};
use crate::events::trace;
use crate::frame::{
    DROP, Dropped, OnAccountOf, Outcome, PASS, arrival_interface, deliver, expires, finish, interface, read,
    to_peer,
};
use crate::known_flows::{generation, known, learn};
use crate::metrics::count;
use crate::notice::{hear, is_too_big, make_error};
use crate::overlay::TUNNEL_IS_SET;
use crate::steps::{Told, go_on};
use crate::tables::{check_endpoint, endpoint, owner, zero};
use crate::translation::{is_for_service, name_service};
use crate::tunnel::{room_to, set_tunnel, underlay};

/// What a pod sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    if let Some(action) = known(&ctx, Hook::Pod) {
        return action;
    }
    let outcome = leave(&ctx, false);
    finish(&ctx, outcome)
}

/// What a pod sent to a service, and is for a backend by now, see [`service_steps`](crate::service_steps).
#[classifier]
pub fn to_backend(ctx: TcContext) -> i32 {
    let outcome = leave(&ctx, true);
    finish(&ctx, outcome)
}

/// What a pod says to its link alone.
#[classifier]
pub fn hear_pod(ctx: TcContext) -> i32 {
    let outcome = hear(&ctx);
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
fn leave(ctx: &TcContext, is_translated: bool) -> Outcome {
    const OUT: Direction = Direction::Egress;
    const IN: Direction = Direction::Ingress;
    let mut flow = Flow::default();
    if read(ctx, &mut flow).of(OUT)? == Scope::Link {
        return go_on(ctx, Step::Hear, OUT);
    }
    flow.is_translated = is_translated;
    let len = ctx.len();
    // What was translated is known to nobody by these names.
    let generation = generation() | u32::from(is_translated);
    let sender = match endpoint(&flow.source) {
        Some(sender) if sender.interface == interface(ctx) => sender,
        _ => return Err(Dropped { reason: Reason::INVALID_SOURCE, direction: OUT }),
    };
    let receiver = endpoint(&flow.destination);
    if !is_translated && receiver.is_none() && is_for_service(&mut flow, sender) {
        return go_on(ctx, Step::ToService, OUT);
    }
    let owner = match receiver {
        Some(receiver) => IpcacheEntry { identity: receiver.identity, node: NodeNumber(zero()) },
        None => owner(&flow.destination),
    };
    let passage = check_endpoint(ctx, sender, OUT, &mut flow, owner.identity).of(OUT)?;
    let identities = (sender.identity, owner.identity);
    if let Some(receiver) = receiver {
        count(Reason::FORWARDED, OUT, len);
        let arrival = check_endpoint(ctx, receiver, IN, &mut flow, sender.identity).of(IN)?;
        if !is_translated && expires(&flow) {
            return Ok(refuse(ctx, &flow, sender, Trouble::TimeExceeded, Reason::TTL_EXCEEDED));
        }
        let is_answer = arrival.has(Passage::TRANSLATED);
        if is_answer || flow.is_to_itself() {
            Told { peer: sender.identity, passage: arrival }.write(ctx);
            return go_on(ctx, if is_answer { Step::AsService } else { Step::HideClient }, IN);
        }
        let action = deliver(ctx, &flow, receiver).of(IN)?;
        count(Reason::FORWARDED, IN, len);
        learn(ctx, &flow, passage.and(arrival), generation, (Hook::Pod, Way::Pod, Some(receiver), None, 0));
        trace(ctx, &flow, TracePoint::ToEndpoint, IN, identities, arrival);
        return Ok(action);
    }
    if is_tunnel(&flow) && !is_allocated(owner.identity) {
        return Err(Dropped { reason: Reason::ENCAPSULATION_PROHIBITED, direction: OUT });
    }
    if owner.node == NodeNumber::NONE {
        count(Reason::FORWARDED, OUT, len);
        learn(ctx, &flow, passage, generation, (Hook::Pod, Way::Stack, None, None, 0));
        trace(ctx, &flow, TracePoint::ToStack, OUT, identities, passage);
        return Ok(PASS);
    }
    if is_direct() {
        count(Reason::FORWARDED, OUT, len);
        learn(ctx, &flow, passage, generation, (Hook::Pod, Way::Uplink, None, None, 0));
        trace(ctx, &flow, TracePoint::ToNetwork, OUT, identities, passage);
        return Ok(to_underlay());
    }
    let underlay = underlay(owner.node).of(OUT)?;
    let room = room_to(&underlay, overlay_mtu());
    if !is_translated && room != 0 && is_too_big(ctx, &flow, room) {
        return Ok(refuse(ctx, &flow, sender, Trouble::TooBig(room as u16), Reason::FRAGMENTATION_NEEDED));
    }
    set_tunnel(ctx, &underlay, sender.identity).of(OUT)?;
    ctx.set_mark(TUNNEL_IS_SET);
    count(Reason::FORWARDED, OUT, len);
    learn(ctx, &flow, passage, generation, (Hook::Pod, Way::Tunnel, None, Some(&underlay), sender.identity));
    trace(ctx, &flow, TracePoint::ToOverlay, OUT, identities, passage);
    // SAFETY: the helper takes two numbers.
    Ok(unsafe { bpf_redirect(overlay_interface(), 0) } as i32)
}

/// Drops a packet of a pod and tells the pod why.
#[inline(always)]
pub fn refuse(ctx: &TcContext, flow: &Flow, sender: &Endpoint, trouble: Trouble, reason: Reason) -> i32 {
    if make_error(ctx, flow, trouble, reason, Direction::Egress) { to_peer(sender.interface) } else { DROP }
}

/// Whether a packet is what nodes send each other: a pod that could send it would be believed to be any other.
#[inline(always)]
fn is_tunnel(flow: &Flow) -> bool {
    flow.policy_protocol == protocol::UDP
        && u32::from(u16::from_be_bytes(flow.destination_port)) == overlay_port()
}

#[inline(always)]
fn arrive(ctx: &TcContext) -> Outcome {
    const IN: Direction = Direction::Ingress;
    let dropped = |reason| Err(Dropped { reason, direction: IN });
    let mut flow = Flow::default();
    if read(ctx, &mut flow).of(IN)? == Scope::Link {
        return Ok(PASS);
    }
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
    let passage = check_endpoint(ctx, receiver, IN, &mut flow, peer).of(IN)?;
    if passage.has(Passage::TRANSLATED) {
        name_service(ctx, &mut flow, receiver).of(IN)?;
    }
    count(Reason::FORWARDED, IN, ctx.len());
    trace(ctx, &flow, TracePoint::ToEndpoint, IN, (peer, receiver.identity), passage);
    Ok(PASS)
}
