//! Services in the model: who serves a packet, and what is done to the frame then.

use landbridge_bpf_loader::TrialAction;
use landbridge_bpf_loader::maps::{
    AffinityEntry, AffinityKey, Algorithm, Backend, Direction, Endpoint, NodeNumber, Reason, SLOTS_PER_GROUP,
    ServiceEntry, ServiceFlow, ServiceFlowKey, Step,
};
use landbridge_bpf_verdict::maglev::{self, Walk};
use landbridge_bpf_verdict::notice::Trouble;
use landbridge_bpf_verdict::selection::{Request, Services};
use landbridge_bpf_verdict::translation::{self, Offer, Offers, entry_of};
use landbridge_bpf_verdict::{Flow, Fragments, Passage, Translations};

use super::edits::{End, deliver, rewrite};
use super::model::{Dropped, Expected, Model};

const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

/// A service as the loader writes it, but for where in the arrays that is.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) entry: ServiceEntry,
    run: Vec<Backend>,
    table: Vec<u16>,
}

impl Service {
    /// One that takes turns, or goes by hashes: what is left to chance no model knows.
    pub(super) fn new(algorithm: Algorithm, service: u32, backends: &[Backend]) -> Self {
        let mut run = backends.to_vec();
        run.sort_unstable_by_key(|backend| (backend.address, backend.port));
        run.dedup_by_key(|backend| (backend.address, backend.port));
        let mut table = Vec::new();
        if algorithm == Algorithm::Maglev && run.len() > 1 {
            let len = maglev::table_len(run.iter().map(|backend| backend.weight)).expect("a few");
            let mut walks: Vec<Walk> =
                run.iter().zip(0..).map(|(backend, place)| Walk::new(backend, place, len)).collect();
            table = vec![0; len as usize];
            maglev::fill(&mut table, &mut walks);
        }
        let count = |len: usize| u32::try_from(len).expect("a few");
        let entry = ServiceEntry {
            count: count(run.len()),
            table_len: count(table.len()),
            service,
            algorithm: algorithm as u8,
            ..ServiceEntry::default()
        };
        Self { entry, run, table }
    }

    pub(super) fn backends(&self) -> &[Backend] {
        &self.run
    }
}

impl Services for Service {
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.run.get(index as usize)
    }

    fn slot(&self, group: u32, slot: u32) -> Option<u16> {
        self.table.get((group * SLOTS_PER_GROUP + slot) as usize).copied()
    }

    fn affinity(&self, _: &AffinityKey) -> Option<&AffinityEntry> {
        None
    }

    fn keep(&self, _: &AffinityKey, _: &AffinityEntry) {}
}

/// A service, and who asks it.
pub(super) struct Asked<'a>(pub(super) &'a Service, pub(super) &'a ServiceFlowKey);

impl Offers for Asked<'_> {
    fn offer(&self, attempt: u32) -> Option<Offer> {
        let Self(service, place) = self;
        let request = Request { number: 0, turn: service.entry.turn, now: 0 };
        let selected = translation::offer(*service, &service.entry, place, &request, attempt)?;
        let entry = entry_of(&service.entry, selected.index, service.backend(selected.index)?);
        Some(Offer { entry, is_chosen: selected.is_chosen })
    }

    fn has(&self, entry: &ServiceFlow) -> bool {
        translation::has(self.0, &self.0.entry, entry)
    }
}

impl Model {
    /// Whether a pod's packet is for a service, or for the pod under another address.
    pub(super) fn is_for_service(&self, flow: &mut Flow, sender: &Endpoint) -> bool {
        if self.tables.complete(flow).is_err() {
            return false;
        }
        if translation::is_hairpin(flow) {
            let key = translation::key_from_backend(flow, flow.source, sender.tag());
            return self.tables.service_flow(&key).is_some();
        }
        let key = translation::service_key(&translation::key_to_service(flow, sender.tag()));
        self.services.contains_key(&key)
    }

    /// Gives a packet to a service the address of who serves it. Returns whether it goes on.
    pub(super) fn send_to_service(
        &mut self,
        out: &mut Expected,
        flow: Flow,
        sender: &Endpoint,
        now: u64,
    ) -> Result<bool, Dropped> {
        self.step(Step::ToService);
        if flow.ttl <= 1 {
            self.refuse(out, &flow, Trouble::TimeExceeded, (Reason::TTL_EXCEEDED, OUT));
            return Ok(false);
        }
        let served = if translation::is_hairpin(&flow) {
            Some(ServiceFlow { address: flow.source, port: flow.destination_port, ..ServiceFlow::default() })
        } else {
            let place = translation::key_to_service(&flow, sender.tag());
            let service = self.services.get_mut(&translation::service_key(&place)).expect("it is there");
            let offer = translation::to_backend(&self.tables, &Asked(service, &place), &flow, &place, now)
                .map_err(|reason| (reason, OUT))?;
            if offer.is_some_and(|offer| offer.is_chosen)
                && service.entry.algorithm == Algorithm::RoundRobin as u8
            {
                service.entry.turn += 1;
            }
            offer.map(|offer| offer.entry)
        };
        if let Some(served) = served {
            let node = self.owner(&served.address).node;
            if node != NodeNumber::NONE && !self.is_direct() && self.refuse_large(out, &flow, node)? {
                return Ok(false);
            }
            self.tables.remember_datagram(&flow);
            rewrite(&mut out.frame, &flow, End::Destination, &served.address, served.port)
                .map_err(|reason| (reason, OUT))?;
        }
        self.step(Step::ToBackend);
        Ok(true)
    }

    /// Gives a packet that was let through to a pod of this node.
    pub(super) fn give(
        &mut self,
        out: &mut Expected,
        flow: &Flow,
        receiver: &Endpoint,
        passage: Passage,
    ) -> Result<(), Dropped> {
        let outcome = if passage.has(Passage::TRANSLATED) {
            self.step(Step::AsService);
            self.name_service(out, flow, receiver)
        } else if flow.is_to_itself() {
            self.step(Step::HideClient);
            let hidden = translation::hairpin_address(&flow.source);
            rewrite(&mut out.frame, flow, End::Source, &hidden, flow.source_port)
        } else {
            Ok(())
        };
        outcome.map_err(|reason| (reason, IN))?;
        deliver(receiver, &mut out.frame, flow);
        out.action = TrialAction::Redirect;
        self.count(out, Reason::FORWARDED, IN);
        Ok(())
    }

    /// Gives an answer the name that its receiver called.
    pub(super) fn name_service(
        &self,
        out: &mut Expected,
        flow: &Flow,
        receiver: &Endpoint,
    ) -> Result<(), Reason> {
        let key = translation::key_from_backend(flow, flow.destination, receiver.tag());
        let service = self.tables.service_flow(&key).ok_or(Reason::CONNECTION_NOT_TRACKED)?;
        rewrite(&mut out.frame, flow, End::Source, &service.address, service.port)
    }

    pub(super) fn step(&mut self, step: Step) {
        *self.steps.entry(step).or_default() += 1;
    }

    /// Refuses a packet that is too large for the tunnel to a node. Returns whether it is.
    pub(super) fn refuse_large(
        &mut self,
        out: &mut Expected,
        flow: &Flow,
        node: NodeNumber,
    ) -> Result<bool, Dropped> {
        let end = self.tunnel_to(node)?;
        let room = self.config.overlay_mtu - if end.is_ipv4() { 0 } else { 20 };
        let is_whole = flow.version != 4 || out.frame[20] & 0x40 != 0;
        if !is_whole || out.frame.len() <= 14 + room as usize {
            return Ok(false);
        }
        let room = u16::try_from(room).expect("a packet's size");
        self.refuse(out, flow, Trouble::TooBig(room), (Reason::FRAGMENTATION_NEEDED, OUT));
        Ok(true)
    }
}
