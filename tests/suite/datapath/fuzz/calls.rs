//! Random services, and who speaks to them.

use fastrand::Rng;
use landbridge_bpf_loader::maps::{Address, Algorithm, Backend, ServiceFlowKey, ServiceKey};
use landbridge_bpf_verdict::translation::hairpin_address;

use super::model::Model;
use super::services::Service;
use super::world::{any_address, any_address_like, any_port, pick, pod_address};

/// Who calls whom.
pub(super) struct Called {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) source_port: [u8; 2],
    pub(super) destination_port: [u8; 2],
    pub(super) protocol: u8,
}

/// A pod of this node that calls a service, or a backend that answers.
pub(super) fn any_call(random: &mut Rng, model: &Model) -> Option<Called> {
    let flows = model.tables.service_flows.borrow();
    let answers: Vec<_> = flows.keys().filter(|key| key.way == ServiceFlowKey::FROM_BACKEND).collect();
    if !answers.is_empty() && random.bool() {
        let answered = pick(random, &answers);
        let is_itself = answered.client == answered.server;
        return Some(Called {
            source: answered.server,
            destination: if is_itself { hairpin_address(&answered.client) } else { answered.client },
            source_port: answered.server_port,
            destination_port: answered.client_port,
            protocol: answered.protocol,
        });
    }
    let services: Vec<ServiceKey> = model.services.keys().copied().collect();
    let service = (!services.is_empty()).then(|| pick(random, &services))?;
    Some(Called {
        source: pod_address_like(random, service.address),
        destination: service.address,
        source_port: any_port(random),
        destination_port: service.port,
        protocol: service.protocol,
    })
}

fn pod_address_like(random: &mut Rng, other: Address) -> Address {
    std::iter::repeat_with(|| pod_address(random))
        .find(|address| address.is_ipv4() == other.is_ipv4())
        .expect("no end")
}

/// A service, most of whose backends are addresses that somebody has.
pub(super) fn any_service(random: &mut Rng, address: Address) -> (ServiceKey, Service) {
    let key = ServiceKey { address, port: any_port(random), protocol: pick(random, &[6, 17]), scope: 0 };
    let backends: Vec<Backend> = (0..random.u8(..4))
        .map(|_| {
            let at =
                if random.u8(..16) == 0 { any_address(random) } else { any_address_like(random, address) };
            Backend::new(at, any_port(random), 1)
        })
        .collect();
    let algorithm = pick(random, &[Algorithm::RoundRobin, Algorithm::Maglev]);
    (key, Service::new(algorithm, random.u32(..), &backends))
}
