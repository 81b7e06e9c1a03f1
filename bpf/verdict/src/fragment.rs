//! Pieces of datagrams: the first one says which ports all of them are for.
//!
//! ```text
//!  first ─► admitted ─► remembered       later ─► completed with the ports of the first ─► judged like it
//!                                                   └─ not remembered: dropped
//! ```
//!
//! Only a first piece that was admitted is remembered, so that nobody gives another's datagram other ports.

use landbridge_bpf_maps::{FragmentKey, FragmentPorts, Reason};

use crate::packet::{Flow, Fragment, Message};

/// The map of datagrams that came in pieces.
pub trait Fragments {
    /// What the first piece said.
    fn ports(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Writes an entry. If that is impossible, later pieces are dropped.
    fn remember_ports(&self, key: &FragmentKey, ports: &FragmentPorts);

    /// [`complete`] by this map.
    ///
    /// # Errors
    /// [`Reason::FRAGMENT_NOT_FOUND`].
    #[inline(always)]
    fn complete(&self, flow: &mut Flow) -> Result<(), Reason> {
        complete(self, flow)
    }

    /// [`remember`] in this map.
    #[inline(always)]
    fn remember_datagram(&self, flow: &Flow) {
        remember(self, flow);
    }
}

#[inline(always)]
fn key(flow: &Flow) -> FragmentKey {
    FragmentKey {
        source: flow.source,
        destination: flow.destination,
        identification: flow.identification,
        protocol: flow.policy_protocol,
        reserved: [0; 3],
    }
}

/// Gives a later piece the ports of its datagram. Leaves all other packets alone.
///
/// # Errors
/// [`Reason::FRAGMENT_NOT_FOUND`].
#[inline(always)]
pub fn complete<F: Fragments + ?Sized>(fragments: &F, flow: &mut Flow) -> Result<(), Reason> {
    if flow.fragment != Fragment::LATER {
        return Ok(());
    }
    let Some(ports) = fragments.ports(&key(flow)) else { return Err(Reason::FRAGMENT_NOT_FOUND) };
    flow.source_port = ports.source_port;
    flow.destination_port = ports.destination_port;
    flow.policy_port = ports.policy_port;
    let [_, kind] = ports.policy_port;
    flow.message = Message::of(flow.policy_protocol, kind);
    Ok(())
}

/// Keeps the ports of a first piece for the later ones. Leaves all other packets alone.
#[inline(always)]
pub fn remember<F: Fragments + ?Sized>(fragments: &F, flow: &Flow) {
    if flow.fragment == Fragment::FIRST {
        let ports = FragmentPorts {
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            policy_port: flow.policy_port,
            reserved: [0; 2],
        };
        fragments.remember_ports(&key(flow), &ports);
    }
}
