//! Between the node and everything else without a tunnel: both directions of the interface that leads there.
//!
//! Whatever is not a pod's is the node's own business and passes, whatever it is.

use aya_ebpf::{macros::classifier, programs::TcContext};
use landbridge_bpf_maps::{Direction, Hook, NodeNumber, Reason, Step, TracePoint, Way, identity};
use landbridge_bpf_verdict::{Flow, Passage, Scope, notice::Trouble, owner::is_allocated};

use crate::config::{is_direct, is_masquerading, to_underlay};
use crate::events::trace;
use crate::frame::{
    DROP, Dropped, OnAccountOf, Outcome, PASS, arrival_interface, deliver, expires, finish, read,
};
use crate::known_flows::{generation, known, learn};
use crate::masquerade::{Translation, comes_for, leaves_as};
use crate::metrics::count;
use crate::notice::make_error;
use crate::rewrite::{End, rewrite};
use crate::steps::{Told, go_on};
use crate::tables::{check_endpoint, endpoint, owner};

/// What the underlay brings: for pods of other nodes' pods, where there is no tunnel, and of the world.
#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    // With both the verifier would have too much to follow.
    if !is_masquerading()
        && let Some(action) = known(&ctx, Hook::Uplink)
    {
        return action;
    }
    let outcome = arrive(&ctx);
    finish(&ctx, outcome)
}

/// What leaves for the underlay.
#[classifier]
pub fn to_uplink(ctx: TcContext) -> i32 {
    let outcome = leave(&ctx);
    finish(&ctx, outcome)
}

#[inline(always)]
fn arrive(ctx: &TcContext) -> Outcome {
    const IN: Direction = Direction::Ingress;
    let dropped = |reason| Err(Dropped { reason, direction: IN });
    let mut flow = Flow::default();
    let Ok(Scope::Network) = read(ctx, &mut flow) else { return Ok(PASS) };
    let generation = generation();
    if endpoint(&flow.source).is_some() {
        // A pod of this node is not out there.
        return dropped(Reason::INVALID_SOURCE);
    }
    if is_masquerading()
        && let Translation::To(pod) = comes_for(&mut flow)
    {
        rewrite(ctx, &mut flow, End::Destination, &pod.address, pod.port).of(IN)?;
    }
    let Some(receiver) = endpoint(&flow.destination) else { return Ok(PASS) };
    let sender = owner(&flow.source);
    // A tunnel's other end speaks through the tunnel, and this node not from outside.
    if sender.identity == identity::HOST || sender.node != NodeNumber::NONE && !is_direct() {
        return dropped(Reason::INVALID_SOURCE);
    }
    let passage = check_endpoint(ctx, receiver, IN, &mut flow, sender.identity).of(IN)?;
    if expires(&flow) {
        let told = make_error(ctx, &flow, Trouble::TimeExceeded, Reason::TTL_EXCEEDED, IN);
        return if told { Ok(to_underlay()) } else { Ok(DROP) };
    }
    let len = ctx.len();
    if passage.has(Passage::TRANSLATED) {
        Told { peer: sender.identity, passage }.write(ctx);
        return go_on(ctx, Step::AsService, IN);
    }
    let action = deliver(ctx, &flow, receiver).of(IN)?;
    count(Reason::FORWARDED, IN, len);
    if !is_masquerading() {
        learn(ctx, &flow, passage, generation, (Hook::Uplink, Way::Pod, Some(receiver), None, 0));
    }
    trace(ctx, &flow, TracePoint::ToEndpoint, IN, (sender.identity, receiver.identity), passage);
    Ok(action)
}

#[inline(always)]
fn leave(ctx: &TcContext) -> Outcome {
    const OUT: Direction = Direction::Egress;
    let mut flow = Flow::default();
    let Ok(Scope::Network) = read(ctx, &mut flow) else { return Ok(PASS) };
    let Some(sender) = endpoint(&flow.source) else { return Ok(PASS) };
    // From anywhere but its interface, it is someone's who wants to be sent on as the pod.
    if sender.interface != arrival_interface(ctx) {
        return Err(Dropped { reason: Reason::INVALID_SOURCE, direction: OUT });
    }
    if !is_masquerading() {
        return Ok(PASS);
    }
    let receiver = owner(&flow.destination).identity;
    if receiver == identity::HOST || receiver == identity::REMOTE_NODE || is_allocated(receiver) {
        return Ok(PASS);
    }
    match leaves_as(&mut flow, sender.tag()).of(OUT)? {
        Translation::None => Ok(PASS),
        Translation::To(name) => {
            rewrite(ctx, &mut flow, End::Source, &name.address, name.port).of(OUT)?;
            Ok(PASS)
        }
    }
}
