//! What the programs do to a frame, told a second time: plainly, in user space, over ordinary collections.
//!
//! What a packet is and whether it may pass is asked of `landbridge-bpf-verdict`, whose own tests compare it with models
//! of theirs; which question is asked of whom, and what is done to the frame, is written down here again.

use std::collections::BTreeMap;

use landbridge_bpf_loader::TrialAction;
use landbridge_bpf_loader::maps::{
    Address, Direction, Endpoint, IpcacheEntry, NodeConfig, NodeNumber, Reason, TrafficCount, identity,
};
use landbridge_bpf_verdict::tables::Tables;
use landbridge_bpf_verdict::{Flow, Owners, admit, owner_of, parse, sender};

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
    pub(super) counts: BTreeMap<(Reason, Direction), TrafficCount>,
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

type Dropped = (Reason, Direction);

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
            other => panic!("there is no model of {other}"),
        };
        if let Err((reason, direction)) = outcome {
            out.action = TrialAction::Drop;
            self.count(&mut out, reason, direction);
        }
        out
    }

    fn sent_by_pod(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        let Some(flow) = parse(&arrival.frame[..]).map_err(|reason| (reason, OUT))? else { return Ok(()) };
        let sender = self.endpoints.get(&flow.source).copied();
        let sender = sender
            .filter(|sender| sender.interface == arrival.interface)
            .ok_or((Reason::INVALID_SOURCE, OUT))?;
        let Some(receiver) = self.endpoints.get(&flow.destination).copied() else {
            let owner = self.owner(&flow.destination);
            self.admit(&sender, OUT, &flow, owner.identity, now)?;
            if owner.node != NodeNumber::NONE {
                self.has_tunnel(owner.node)?;
                out.mark = TUNNEL_IS_SET;
                out.action = TrialAction::Redirect;
            }
            self.count(out, Reason::FORWARDED, OUT);
            return Ok(());
        };
        self.admit(&sender, OUT, &flow, receiver.identity, now)?;
        self.count(out, Reason::FORWARDED, OUT);
        self.admit(&receiver, IN, &flow, sender.identity, now)?;
        deliver(&receiver, &mut out.frame, &flow)?;
        out.action = TrialAction::Redirect;
        self.count(out, Reason::FORWARDED, IN);
        Ok(())
    }

    fn given_to_pod(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        let Some(flow) = parse(&arrival.frame[..]).map_err(|reason| (reason, IN))? else { return Ok(()) };
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
        self.admit(&receiver, IN, &flow, peer, now)?;
        self.count(out, Reason::FORWARDED, IN);
        Ok(())
    }

    fn sent_to_node(&mut self, arrival: &Arrival, out: &mut Expected) -> Result<(), Dropped> {
        if arrival.mark == TUNNEL_IS_SET {
            out.mark = 0;
            return Ok(());
        }
        let flow = parse(&arrival.frame[..]).map_err(|reason| (reason, OUT))?;
        let flow = flow.ok_or((Reason::UNSUPPORTED_PROTOCOL, OUT))?;
        let of_node = [self.config.router, self.config.health].contains(&flow.source);
        let of_pod = self.endpoints.get(&flow.source);
        let may_speak = of_node
            || match of_pod {
                Some(sender) => sender.interface == arrival.came_through,
                None => self.owner(&flow.source).identity == identity::HOST,
            };
        if !may_speak {
            return Err((Reason::INVALID_SOURCE, OUT));
        }
        self.has_tunnel(self.owner(&flow.destination).node)?;
        self.count(out, Reason::FORWARDED, OUT);
        Ok(())
    }

    fn come_from_node(&mut self, arrival: &Arrival, out: &mut Expected, now: u64) -> Result<(), Dropped> {
        let tunnel = arrival.tunnel.filter(|_| self.takes_told_tunnels);
        let (claimed, begin) = tunnel.ok_or((Reason::INVALID_TUNNEL_KEY, IN))?;
        let flow = parse(&arrival.frame[..]).map_err(|reason| (reason, IN))?;
        let flow = flow.ok_or((Reason::UNSUPPORTED_PROTOCOL, IN))?;
        sender::check(&self.tables, &flow.source, &begin, claimed, self.config.cluster_shift)
            .map_err(|reason| (reason, IN))?;
        if let Some(receiver) = self.endpoints.get(&flow.destination).copied() {
            self.admit(&receiver, IN, &flow, claimed, now)?;
            deliver(&receiver, &mut out.frame, &flow)?;
            out.action = TrialAction::Redirect;
        } else {
            let of_node = [self.config.router, self.config.health].contains(&flow.destination);
            if !of_node && self.owner(&flow.destination).identity != identity::HOST {
                return Err((Reason::UNKNOWN_TARGET, IN));
            }
        }
        self.count(out, Reason::FORWARDED, IN);
        Ok(())
    }

    /// The tunnel that the sender of a frame is behind, if it is behind one.
    pub(super) fn fitting_tunnel(&self, frame: &[u8]) -> Option<(u32, Address)> {
        let flow = parse(frame).ok()??;
        let entry = self.tables.addresses.get(&flow.source)?;
        let node = self.tables.nodes.get(&entry.node)?;
        Some((entry.identity & identity::MAX, node.underlay))
    }

    fn owner(&self, address: &Address) -> IpcacheEntry {
        let world = IpcacheEntry { identity: identity::WORLD, node: NodeNumber::NONE };
        owner_of(&self.tables, address).unwrap_or(world)
    }

    fn has_tunnel(&self, node: NodeNumber) -> Result<(), Dropped> {
        let node = self.tables.node(node).filter(|_| node != NodeNumber::NONE);
        let has_end = node.is_some_and(|node| node.underlay.ipv4().is_some());
        if has_end { Ok(()) } else { Err((Reason::NO_TUNNEL_ENDPOINT, OUT)) }
    }

    fn admit(
        &self,
        endpoint: &Endpoint,
        direction: Direction,
        flow: &Flow,
        peer: u32,
        now: u64,
    ) -> Result<(), Dropped> {
        admit(&self.tables, endpoint, direction, flow, peer, now, self.config.cluster_shift)
            .map(|_| ())
            .map_err(|reason| (reason, direction))
    }

    fn count(&mut self, out: &mut Expected, reason: Reason, direction: Direction) {
        let count = self.counts.entry((reason, direction)).or_default();
        count.packets += 1;
        count.bytes += out.frame.len() as u64;
        out.counted = Some((reason, direction));
    }
}

/// Makes the frame one for a pod: a router's work.
fn deliver(receiver: &Endpoint, frame: &mut [u8], flow: &Flow) -> Result<(), Dropped> {
    if flow.ttl <= 1 {
        return Err((Reason::TTL_EXCEEDED, IN));
    }
    frame[0..6].copy_from_slice(&receiver.mac);
    frame[6..12].copy_from_slice(&receiver.host_mac);
    // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    let word = |frame: &[u8], place: usize| u16::from_be_bytes([frame[place], frame[place + 1]]);
    let before = word(frame, 22);
    frame[22] -= 1;
    let after = word(frame, 22);
    let sum = [!word(frame, 24), !before, after].into_iter().map(u32::from).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    frame[24..26].copy_from_slice(&(!u16::try_from(folded).expect("folded")).to_be_bytes());
    Ok(())
}
