//! The node's maps with a copy of what is in them, so that only differences are written.

use landbridge_agent_mesh::{Desired, MapWrite, ServiceSpec};
use landbridge_bpf_loader::{Datapath, DatapathError, MapError};
use landbridge_bpf_maps::{Address, Endpoint};

use crate::error_chain::chain;

/// The datapath and what its maps hold.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) datapath: Datapath,
    actual: Desired,
}

/// What became of some writes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How many were not, and will be tried again.
    pub(super) failed: usize,
    /// Why the first of them was not.
    pub(super) error: Option<String>,
}

impl Maps {
    /// Reads back what an agent before this one wrote.
    pub(super) fn read(mut datapath: Datapath) -> Result<Self, MapError> {
        let services = datapath.services().entries()?.into_iter();
        let actual = Desired {
            ipcache: datapath.ipcache().entries()?,
            cidrs: datapath.cidrs().entries()?,
            nodes: datapath.nodes().entries()?,
            endpoints: datapath.endpoints().entries()?,
            policy: datapath.policy().entries()?,
            services: services
                .map(|(key, (settings, backends))| (key, ServiceSpec { settings, backends }))
                .collect(),
        };
        Ok(Self { datapath, actual })
    }

    /// What the maps hold.
    pub(super) fn actual(&self) -> &Desired {
        &self.actual
    }

    /// Makes writes in their order. One that fails is left for the next time, and with a failed write to a policy set
    /// everything that relies on the set's being whole.
    pub(super) fn write(&mut self, writes: &[MapWrite]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut policy_is_whole = true;
        let both_services = |a: &MapWrite, b: &MapWrite| {
            matches!((a, b), (MapWrite::SetService(..), MapWrite::SetService(..)))
        };
        for writes in writes.chunk_by(both_services) {
            // If not all of them can be written together, one by one as many as possible are.
            if writes.len() > 1 && self.load(writes).is_ok() {
                for write in writes {
                    self.actual.apply(write);
                }
            } else {
                self.write_each(writes, &mut outcome, &mut policy_is_whole);
            }
        }
        outcome
    }

    fn load(&mut self, writes: &[MapWrite]) -> Result<(), MapError> {
        let services = writes.iter().filter_map(|write| match write {
            MapWrite::SetService(key, spec) => Some((*key, (spec.settings, spec.backends.as_slice()))),
            _ => None,
        });
        self.datapath.services().load(&services.collect())
    }

    fn write_each(&mut self, writes: &[MapWrite], outcome: &mut Outcome, policy_is_whole: &mut bool) {
        for write in writes {
            let relies_on_policy = matches!(write, MapWrite::UpsertEndpoint(..) | MapWrite::DeletePolicy(_));
            if relies_on_policy && !*policy_is_whole {
                outcome.failed += 1;
                continue;
            }
            match execute(&mut self.datapath, write) {
                Ok(()) => self.actual.apply(write),
                Err(error) => {
                    outcome.error.get_or_insert_with(|| format!("{write:?}: {}", chain(&error)));
                    outcome.failed += 1;
                    *policy_is_whole &= !matches!(write, MapWrite::UpsertPolicy(..));
                }
            }
        }
    }

    /// The endpoints that the maps have and `is_ours` does not know.
    pub(super) fn strangers(&self, is_ours: impl Fn(&Endpoint, Address) -> bool) -> Vec<MapWrite> {
        let strangers =
            self.actual.endpoints.iter().filter(|(address, endpoint)| !is_ours(endpoint, **address));
        strangers.map(|(address, _)| MapWrite::DeleteEndpoint(*address)).collect()
    }

    /// # Errors
    /// [`DatapathError`].
    pub(super) fn attached(&self) -> Result<Vec<String>, DatapathError> {
        self.datapath.attached_endpoints()
    }
}

fn execute(datapath: &mut Datapath, write: &MapWrite) -> Result<(), MapError> {
    match write {
        MapWrite::SetNode(number, node) => datapath.nodes().set(*number, *node),
        MapWrite::ClearNode(number) => datapath.nodes().clear(*number),
        MapWrite::UpsertCidr(key, entry) => datapath.cidrs().upsert(key, entry),
        MapWrite::DeleteCidr(key) => datapath.cidrs().remove(key).map(drop),
        MapWrite::UpsertIpcache(address, entry) => datapath.ipcache().upsert(address, entry),
        MapWrite::DeleteIpcache(address) => datapath.ipcache().remove(address).map(drop),
        MapWrite::UpsertPolicy(key, entry) => datapath.policy().upsert(key, entry),
        MapWrite::DeletePolicy(key) => datapath.policy().remove(key).map(drop),
        MapWrite::UpsertEndpoint(address, endpoint) => datapath.endpoints().upsert(address, endpoint),
        MapWrite::DeleteEndpoint(address) => datapath.endpoints().remove(address).map(drop),
        MapWrite::SetService(key, spec) => datapath.services().set(*key, spec.settings, &spec.backends),
        MapWrite::RemoveService(key) => datapath.services().remove(key).map(drop),
    }
}
