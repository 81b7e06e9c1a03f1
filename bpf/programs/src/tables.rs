//! The maps of the programs, and how decisions look things up in them.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_NO_PREALLOC},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
    programs::TcContext,
};
#[cfg(feature = "trial")]
use landbridge_bpf_maps::Planted;
use landbridge_bpf_maps::{
    Address, Direction, Endpoint, IpcacheEntry, KeyForms, NODES_LEN, NodeEntry, NodeNumber, PolicyEntry,
    PolicyKey, PolicySet, Reason, identity,
};
#[cfg(feature = "trial")]
use landbridge_bpf_verdict::packet::tcp;
use landbridge_bpf_verdict::{
    Decision, Flow, Owners, Passage, Question, Rules, admit, decide, of_ranges, owner_of, sender,
};

use crate::config::cluster_shift;
use crate::events;

// The sizes are the loader's to choose.
#[map]
static IPCACHE: HashMap<Address, IpcacheEntry> = HashMap::with_max_entries(1 << 19, BPF_F_NO_PREALLOC);
#[map]
static CIDRS: LpmTrie<Address, IpcacheEntry> = LpmTrie::with_max_entries(1 << 16, 0);
#[map]
static NODES: Array<NodeEntry> = Array::with_max_entries(NODES_LEN, 0);
#[map]
static ENDPOINTS: HashMap<Address, Endpoint> = HashMap::with_max_entries(1 << 12, BPF_F_NO_PREALLOC);
#[map]
static POLICY: HashMap<PolicyKey, PolicyEntry> = HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);

/// The kernel's maps.
pub struct Maps;

impl Owners for Maps {
    #[inline(always)]
    fn address(&self, address: &Address) -> Option<IpcacheEntry> {
        // SAFETY: entries are replaced whole, and copied at once.
        unsafe { IPCACHE.get(address) }.copied()
    }

    #[inline(always)]
    fn prefix(&self, address: &Address) -> Option<IpcacheEntry> {
        CIDRS.get(Key::new(128, *address)).copied()
    }

    #[inline(always)]
    fn node(&self, number: NodeNumber) -> Option<NodeEntry> {
        NODES.get(number.0).copied()
    }
}

impl Rules for Maps {
    #[inline(always)]
    fn verdict(&self, key: &PolicyKey) -> u8 {
        ask_rule(key, 0) as u8
    }

    #[inline(always)]
    fn of_form(&self, key: &PolicyKey, lacks: KeyForms) -> u8 {
        ask_rule(key, u32::from(lacks.0)) as u8
    }

    #[inline(always)]
    fn of_ranges(&self, key: &PolicyKey, port_prefixes: u16) -> u8 {
        ask_ranges(key, u32::from(port_prefixes)) as u8
    }

    #[inline(always)]
    fn decide(&self, question: &Question) -> Decision {
        match ask_rules(question) {
            ALLOW => Decision::Allow,
            DENY => Decision::Deny,
            _ => Decision::NoMatch,
        }
    }
}

/// The pod of this node with an address.
#[inline(always)]
pub fn endpoint(address: &Address) -> Option<&'static Endpoint> {
    // SAFETY: the kernel keeps the entry while the program runs. One that is replaced meanwhile may be read half old and
    // half new, for this one packet.
    unsafe { ENDPOINTS.get(address) }
}

// The long parts are functions in the kernel too: each has its own stack, of which there are 512 bytes in all. They are known
// to the kernel by their names, so that it verifies each once, for whatever it may be called with, and not once more for each
// way that leads to it. It wants to see that null would do no harm. The kernel's calling convention has one number to return:
// the drop reason in its lowest byte, 0 for none.

/// See [`Rules::decide`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_rules(question: *const Question) -> u64 {
    // SAFETY: it is null or whole.
    match unsafe { question.as_ref() }.map(|question| decide(&Maps, question)) {
        Some(Decision::Allow) => ALLOW,
        Some(Decision::Deny) => DENY,
        Some(Decision::NoMatch) | None => NO_MATCH,
    }
}

/// See [`Rules::of_form`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_rule(key: *const PolicyKey, lacks: u32) -> u64 {
    // SAFETY: it is null or whole.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    if KeyForms(lacks as u16).has(KeyForms::of(key)) {
        return 0;
    }
    // SAFETY: entries are replaced whole.
    unsafe { POLICY.get(key) }.map_or(0, |entry| u64::from(entry.verdict))
}

/// See [`Rules::of_ranges`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_ranges(key: *const PolicyKey, port_prefixes: u32) -> u64 {
    // SAFETY: it is null or whole.
    unsafe { key.as_ref() }.map_or(0, |key| u64::from(of_ranges(&Maps, key, port_prefixes as u16)))
}

/// Answers of [`ask_rules`].
const NO_MATCH: u64 = 0;
const ALLOW: u64 = 1;
const DENY: u64 = 2;

/// See [`check_endpoint`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_pass(
    skb: *mut __sk_buff,
    endpoint: *const Endpoint,
    ingress: u32,
    flow: *mut Flow,
    peer: u32,
) -> u64 {
    let ingress = ingress != 0;
    // SAFETY: both are null or whole, and nobody else has the flow.
    let (Some(endpoint), Some(flow)) = (unsafe { endpoint.as_ref() }, unsafe { flow.as_mut() }) else {
        return u64::from(Reason::POLICY_DENIED.0);
    };
    #[cfg(feature = "trial")]
    if crate::trial::planted(Planted::PolicySkippedForReplies) && flow.tcp_flags & tcp::ACK != 0 {
        return 0;
    }
    let direction = if ingress { Direction::Ingress } else { Direction::Egress };
    // SAFETY: the helper only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let outcome = admit(&Maps, endpoint, direction, flow, peer, now, cluster_shift());
    let set = if ingress { endpoint.ingress } else { endpoint.egress };
    if set != PolicySet::NOT_ENFORCED {
        events::verdict(skb, flow, direction, (endpoint.identity, peer), outcome);
    }
    match outcome {
        Ok(passage) => u64::from(passage.0) << 8,
        Err(reason) => u64::from(reason.0),
    }
}

/// See [`check_sender`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_speak(source: *const Address, tunnel_source: *const Address, claimed: u32) -> u64 {
    // SAFETY: as in `may_pass`.
    let (Some(source), Some(tunnel_source)) = (unsafe { source.as_ref() }, unsafe { tunnel_source.as_ref() })
    else {
        return u64::from(Reason::UNKNOWN_SENDER.0);
    };
    match sender::check(&Maps, source, tunnel_source, claimed, cluster_shift()) {
        Ok(()) => 0,
        Err(reason) => u64::from(reason.0),
    }
}

/// See [`owner`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn owner_number(address: *const Address) -> u64 {
    // SAFETY: as in `may_pass`.
    let owner = unsafe { address.as_ref() }.and_then(|address| owner_of(&Maps, address));
    let owner = owner.unwrap_or(IpcacheEntry { identity: identity::WORLD, node: NodeNumber::NONE });
    u64::from(owner.node.0) << 32 | u64::from(owner.identity)
}

/// Who an address belongs to: the world, if nothing is known.
#[inline(always)]
pub fn owner(address: &Address) -> IpcacheEntry {
    let number = owner_number(address);
    IpcacheEntry { identity: number as u32, node: NodeNumber((number >> 32) as u32) }
}

/// The identity of a pod of this node, or of whoever else an address belongs to.
#[inline(always)]
pub fn identity_of(address: &Address) -> u32 {
    match endpoint(address) {
        Some(endpoint) => endpoint.identity,
        None => owner(address).identity,
    }
}

/// Zero, which the verifier does not know: it does not follow a number through halves in memory. Mixed into a constant, it
/// makes one way of what the verifier would follow as several, each with its own constant.
#[inline(always)]
pub fn zero() -> u32 {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    let mut place = MaybeUninit::<u32>::uninit();
    let halves: *mut u16 = place.as_mut_ptr().cast();
    // SAFETY: both halves are within the number, aligned, and written before it is read.
    let one = unsafe {
        halves.write_volatile(u16::from_ne_bytes([a, b]));
        halves.add(1).write_volatile(u16::from_ne_bytes([c, d]));
        place.as_ptr().read_volatile()
    };
    one ^ 1
}

/// Reads what such a function returned.
#[inline(always)]
pub fn outcome(number: u64) -> Result<(), Reason> {
    match number {
        0 => Ok(()),
        reason => Err(Reason(reason as u8)),
    }
}

/// Whether a packet may pass an endpoint, with `peer` the identity of the other side, and what it is to its connection.
/// Gives a later piece of a datagram its ports.
///
/// # Errors
/// Why not.
#[inline(always)]
pub fn check_endpoint(
    ctx: &TcContext,
    endpoint: &Endpoint,
    direction: Direction,
    flow: &mut Flow,
    peer: u32,
) -> Result<Passage, Reason> {
    let number =
        may_pass(ctx.skb.skb, endpoint, u32::from(matches!(direction, Direction::Ingress)), flow, peer);
    outcome(number & 0xff)?;
    Ok(Passage((number >> 8) as u8))
}

/// Whether an address may speak under an identity, in a tunnel from this underlay address.
///
/// # Errors
/// Why not.
#[inline(always)]
pub fn check_sender(source: &Address, tunnel_source: &Address, claimed: u32) -> Result<(), Reason> {
    outcome(may_speak(source, tunnel_source, claimed))
}
