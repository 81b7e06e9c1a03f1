//! What the programs do to a frame, told a second time: plainly, in user space, over ordinary collections.
//!
//! What a packet is and whether it may pass is asked of `landbridge-bpf-verdict`, whose own tests compare it with models
//! of theirs; which question is asked of whom, and what is done to the frame, is written down here again.

use std::collections::BTreeMap;

use landbridge_bpf_loader::TrialAction;
use landbridge_bpf_loader::maps::{
    Address, Direction, Endpoint, IpcacheEntry, NodeConfig, NodeNumber, Reason, ServiceKey, Step,
    TrafficCount, identity,
};
use landbridge_bpf_verdict::tables::Tables;
use landbridge_bpf_verdict::{
    Flow, Fragment, Owners, Packet, Passage, admit,
    neighbour::{Heard, judge},
    notice::{self, Trouble},
    owner::is_allocated,
    owner_of, sender,
};

use super::edits::{answer, read};
use super::services::Service;

const UDP: u8 = 17;

/// The mark between `from_pod` and `to_overlay`.
pub(super) const TUNNEL_IS_SET: u32 = 0x4c42_0001;

const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

/// A node's datapath.
#[derive(Default)]
pub(super) struct Model {
    pub(super) config: NodeConfig,
    /// Packets are told of tunnels, which they do not come out of by themselves.
    pub(super) takes_told_tunnels: bool,
    pub(super) tables: Tables,
    pub(super) endpoints: BTreeMap<Address, Endpoint>,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) counts: BTreeMap<(Reason, Direction), TrafficCount>,
    /// How often packets went on with which program.
    pub(super) steps: BTreeMap<Step, u64>,
}

/// A frame at a hook, see [`TrialPacket`](landbridge_bpf_loader::TrialPacket).
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) frame: Vec<u8>,
    pub(super) interface: u32,
    pub(super) came_through: u32,
    pub(super) mark: u32,
    pub(super) tunnel: Option<(u32, Address)>,
}

/// What is to come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) action: TrialAction,
    pub(super) frame: Vec<u8>,
    pub(super) mark: u32,
    /// What it ended as, if it was counted.
    pub(super) counted: Option<(Reason, Direction)>,
}

pub(super) type Dropped = (Reason, Direction);

impl Model {
    /// Runs the program of this name at the time `now`, nanoseconds of the monotonic clock.
    pub(super) fn run(&mut self, program: &str, arrival: &Arrival, now: u64) -> Expected {
        let mut out = Expected {
            action: TrialAction::Pass,
            frame: arrival.frame.clone(),
            mark: arrival.mark,
            counted: None,
        };
        let outcome = match program {
            "from_pod" => self.sent_by_pod(arrival, &mut out, now),
            "to_pod" => self.given_to_pod(arrival, &mut out, now),
            "to_overlay" => self.sent_to_node(arrival, &mut out),
            "from_overlay" => self.come_from_node(arrival, &mut out, now),
            "from_uplink" => self.come_from_outside(arrival, &mut out, now),
            "to_uplink" => self.sent_outside(arrival),
            other => panic!("there is no model of {other}"),
        };
        if let Err((reason, direction)) = outcome {
            out.action = TrialAction::Drop;
            self.count(&mut out, reason, direction);
        }
        out
    }

    fn sent_by_pod(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        let Some(mut flow) = read(&arrival.frame).map_err(|reason| (reason, OUT))? else {
            self.step(Step::Hear);
            return self.hear(arrival, out).map_err(|reason| (reason, OUT));
        };
        let sender = self.endpoints.get(&flow.source).copied();
        let sender = sender
            .filter(|sender| sender.interface == arrival.interface)
            .ok_or((Reason::INVALID_SOURCE, OUT))?;
        if !self.endpoints.contains_key(&flow.destination) && self.is_for_service(&mut flow, &sender) {
            if !self.send_to_service(out, flow, &sender, now)? {
                return Ok(());
            }
            let read = read(&out.frame).map_err(|reason| (reason, OUT))?;
            flow = read.expect("it is no word to the link");
            flow.is_translated = true;
        }
        self.send_on(out, flow, &sender, now)
    }

    /// Lets a pod's packet pass and sends it on.
    fn send_on(
        &mut self,
        out: &mut Expected,
        mut flow: Flow,
        sender: &Endpoint,
        now: u64,
    ) -> Result<(), Dropped> {
        if let Some(receiver) = self.endpoints.get(&flow.destination).copied() {
            self.admit(sender, OUT, &mut flow, receiver.identity, now)?;
            self.count(out, Reason::FORWARDED, OUT);
            let passage = self.admit(&receiver, IN, &mut flow, sender.identity, now)?;
            if flow.ttl <= 1 && !flow.is_translated {
                self.refuse(out, &flow, Trouble::TimeExceeded, (Reason::TTL_EXCEEDED, OUT));
                return Ok(());
            }
            return self.give(out, &flow, &receiver, passage);
        }
        let owner = self.owner(&flow.destination);
        self.admit(sender, OUT, &mut flow, owner.identity, now)?;
        let port = u32::from(u16::from_be_bytes(flow.destination_port));
        if flow.policy_protocol == UDP && port == self.config.overlay_port && !is_allocated(owner.identity) {
            return Err((Reason::ENCAPSULATION_PROHIBITED, OUT));
        }
        if owner.node != NodeNumber::NONE {
            out.action = TrialAction::Redirect;
            if !self.is_direct() {
                self.tunnel_to(owner.node)?;
                if !flow.is_translated && self.refuse_large(out, &flow, owner.node)? {
                    return Ok(());
                }
                out.mark = TUNNEL_IS_SET;
            }
        }
        self.count(out, Reason::FORWARDED, OUT);
        Ok(())
    }

    /// What a pod says to its link.
    fn hear(&self, arrival: &Arrival, out: &mut Expected) -> Result<(), Reason> {
        let is_own = |address: &Address| {
            self.endpoints.get(address).is_some_and(|endpoint| endpoint.interface == arrival.interface)
        };
        let gateway = self.config.router6;
        let Heard::Asked(who) = judge(&arrival.frame[..], &gateway, is_own)? else { return Ok(()) };
        let asked: [u8; 6] = arrival.frame[..6].try_into().expect("a frame has addresses");
        let mac = match self.endpoints.get(&who) {
            Some(endpoint) => endpoint.host_mac,
            None if asked[0] & 1 != 0 => return Ok(()),
            None => asked,
        };
        answer(&mut out.frame, &notice::advertisement(&gateway, &who, mac));
        out.frame[6..12].copy_from_slice(&mac);
        out.action = TrialAction::Redirect;
        Ok(())
    }

    /// Drops a packet, and tells its sender why if anybody may be told. Returns whether it was.
    pub(super) fn refuse(
        &mut self,
        out: &mut Expected,
        flow: &Flow,
        trouble: Trouble,
        (reason, direction): Dropped,
    ) -> bool {
        self.count(out, reason, direction);
        out.action = TrialAction::Drop;
        if flow.is_error() || flow.fragment == Fragment::LATER {
            return false;
        }
        let frame = &out.frame[..];
        let told = if flow.version == 4 {
            let router = self.config.router.ipv4().expect("a router of IPv4");
            // What has options is not told of.
            let quoted = frame.words(14).filter(|_| frame[14] == 0x45);
            quoted.map(|quoted| notice::error4(router, trouble, &quoted).to_vec())
        } else {
            let quoted = frame.words(14);
            quoted.map(|quoted| notice::error6(&self.config.router6, trouble, &quoted).to_vec())
        };
        let Some(words) = told else { return false };
        answer(&mut out.frame, &words);
        out.action = TrialAction::Redirect;
        true
    }

    fn given_to_pod(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        let Some(mut flow) = read(&arrival.frame).map_err(|reason| (reason, IN))? else { return Ok(()) };
        let receiver = self.endpoints.get(&flow.destination).copied();
        let receiver = receiver
            .filter(|receiver| receiver.interface == arrival.interface)
            .ok_or((Reason::UNKNOWN_TARGET, IN))?;
        let spoofed = Err((Reason::INVALID_SOURCE, IN));
        let peer = match self.endpoints.get(&flow.source) {
            Some(sender) if sender.interface == arrival.came_through => sender.identity,
            Some(_) => return spoofed,
            None => match self.owner(&flow.source) {
                owner if owner.node != NodeNumber::NONE => return spoofed,
                _ if arrival.came_through == 0 => identity::HOST,
                owner => owner.identity,
            },
        };
        if self.admit(&receiver, IN, &mut flow, peer, now)?.has(Passage::TRANSLATED) {
            self.name_service(out, &flow, &receiver).map_err(|reason| (reason, IN))?;
        }
        self.count(out, Reason::FORWARDED, IN);
        Ok(())
    }

    fn sent_to_node(&mut self, arrival: &Arrival, out: &mut Expected) -> Result<(), Dropped> {
        if arrival.mark == TUNNEL_IS_SET {
            out.mark = 0;
            return Ok(());
        }
        let Some(flow) = read(&arrival.frame).map_err(|reason| (reason, OUT))? else {
            out.action = TrialAction::Drop;
            return Ok(());
        };
        let of_pod = self.endpoints.get(&flow.source);
        let may_speak = self.is_of_node(&flow.source)
            || match of_pod {
                Some(sender) => sender.interface == arrival.came_through,
                None => self.owner(&flow.source).identity == identity::HOST,
            };
        if !may_speak {
            return Err((Reason::INVALID_SOURCE, OUT));
        }
        self.tunnel_to(self.owner(&flow.destination).node)?;
        self.count(out, Reason::FORWARDED, OUT);
        Ok(())
    }

    fn come_from_node(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        let tunnel = arrival.tunnel.filter(|_| self.takes_told_tunnels);
        let (claimed, begin) = tunnel.ok_or((Reason::INVALID_TUNNEL_KEY, IN))?;
        let flow = read(&arrival.frame).map_err(|reason| (reason, IN))?;
        let mut flow = flow.ok_or((Reason::UNSUPPORTED_PROTOCOL, IN))?;
        sender::check(&self.tables, &flow.source, &begin, claimed, self.config.cluster_shift)
            .map_err(|reason| (reason, IN))?;
        if let Some(receiver) = self.endpoints.get(&flow.destination).copied() {
            let passage = self.admit(&receiver, IN, &mut flow, claimed, now)?;
            if flow.ttl <= 1 {
                if self.refuse(out, &flow, Trouble::TimeExceeded, (Reason::TTL_EXCEEDED, IN)) {
                    out.mark = TUNNEL_IS_SET;
                }
                return Ok(());
            }
            return self.give(out, &flow, &receiver, passage);
        }
        if !self.is_of_node(&flow.destination) && self.owner(&flow.destination).identity != identity::HOST {
            return Err((Reason::UNKNOWN_TARGET, IN));
        }
        self.count(out, Reason::FORWARDED, IN);
        Ok(())
    }

    fn come_from_outside(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        // What is not a pod's is not looked at closely.
        let Ok(Some(mut flow)) = read(&arrival.frame) else { return Ok(()) };
        let spoofed = Err((Reason::INVALID_SOURCE, IN));
        if self.endpoints.contains_key(&flow.source) {
            return spoofed;
        }
        let Some(receiver) = self.endpoints.get(&flow.destination).copied() else { return Ok(()) };
        let sender = self.owner(&flow.source);
        if sender.identity == identity::HOST || sender.node != NodeNumber::NONE && !self.is_direct() {
            return spoofed;
        }
        let passage = self.admit(&receiver, IN, &mut flow, sender.identity, now)?;
        if flow.ttl <= 1 {
            self.refuse(out, &flow, Trouble::TimeExceeded, (Reason::TTL_EXCEEDED, IN));
            return Ok(());
        }
        self.give(out, &flow, &receiver, passage)
    }

    fn sent_outside(&self, arrival: &Arrival) -> Result<(), Dropped> {
        let Ok(Some(flow)) = read(&arrival.frame) else { return Ok(()) };
        match self.endpoints.get(&flow.source) {
            Some(sender) if sender.interface != arrival.came_through => Err((Reason::INVALID_SOURCE, OUT)),
            _ => Ok(()),
        }
    }

    /// The tunnel that the sender of a frame is behind, if it is behind one.
    pub(super) fn fitting_tunnel(&self, frame: &[u8]) -> Option<(u32, Address)> {
        let flow = read(frame).ok()??;
        let entry = self.tables.addresses.get(&flow.source)?;
        let node = self.tables.nodes.get(&entry.node)?;
        Some((entry.identity & identity::MAX, node.underlay))
    }

    pub(super) fn owner(&self, address: &Address) -> IpcacheEntry {
        let world = IpcacheEntry { identity: identity::WORLD, node: NodeNumber::NONE };
        owner_of(&self.tables, address).unwrap_or(world)
    }

    pub(super) fn is_direct(&self) -> bool {
        self.config.flags & NodeConfig::DIRECT != 0
    }

    fn is_of_node(&self, address: &Address) -> bool {
        let NodeConfig { router, health, router6, health6, .. } = self.config;
        [router, health, router6, health6].contains(address)
    }

    /// The other end of the tunnel to a node.
    pub(super) fn tunnel_to(&self, node: NodeNumber) -> Result<Address, Dropped> {
        let node = self.tables.node(node).filter(|_| node != NodeNumber::NONE);
        let end = node.map(|node| node.underlay).filter(|end| !end.is_none());
        end.ok_or((Reason::NO_TUNNEL_ENDPOINT, OUT))
    }

    fn admit(
        &self,
        endpoint: &Endpoint,
        direction: Direction,
        flow: &mut Flow,
        peer: u32,
        now: u64,
    ) -> Result<Passage, Dropped> {
        admit(&self.tables, endpoint, direction, flow, peer, now, self.config.cluster_shift)
            .map_err(|reason| (reason, direction))
    }

    pub(super) fn count(&mut self, out: &mut Expected, reason: Reason, direction: Direction) {
        let count = self.counts.entry((reason, direction)).or_default();
        count.packets += 1;
        count.bytes += out.frame.len() as u64;
        out.counted = Some((reason, direction));
    }
}
