//! How the reconciler answers requests about this node's pods.

use std::net::{IpAddr, Ipv4Addr};

use landbridge_agent_mesh::LocalEndpoint;
use landbridge_bpf_maps::Address;
use landbridge_kvstore_schema::NamespacedName;
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tracing::{info, warn};

use super::Reconciler;
use super::requests::{Allocation, Drops, NodeError, Request};
use crate::endpoint::{Activation, Attachment, EndpointRecord, UnknownEndpoint};
use crate::error_chain::chain;

/// Drop reasons begin here; what is below says that a packet was let through (Cilium `bpf/lib/drop_reasons.h`).
const FIRST_DROP_REASON: u8 = 130;

/// A request that waits for something to be known or written.
pub(super) enum Waiter {
    /// For a pod's identity.
    Identity {
        attachment: Attachment,
        pod: NamespacedName,
        reply: oneshot::Sender<Result<Allocation, NodeError>>,
    },
    /// For an endpoint to be in the maps.
    Served { attachment: Attachment, reply: oneshot::Sender<Result<(), NodeError>> },
}

impl Reconciler {
    /// Fulfils a request, or lets it wait.
    pub(super) async fn handle(&mut self, request: Request) {
        // An answer that nobody waits for any more is no loss.
        match request {
            Request::Allocate { attachment, pod, reply } => {
                self.waiters.push(Waiter::Identity { attachment, pod, reply });
            }
            Request::Activate { attachment, activation, reply } => {
                match self.activate(&attachment, activation).await {
                    Ok(()) => self.waiters.push(Waiter::Served { attachment, reply }),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Request::Delete { attachment, reply } => drop(reply.send(self.delete(&attachment).await)),
            Request::Check { attachment, reply } => drop(reply.send(self.check(&attachment).await)),
            Request::Endpoints { reply } => {
                let identity = |record: &EndpointRecord| self.mesh.identity_of(&record.pod()).map(|id| id.0);
                let endpoints = self.table.iter().map(|record| (record.clone(), identity(record)));
                drop(reply.send(Ok(endpoints.collect())));
            }
            Request::Drops { reply } => drop(reply.send(self.drops())),
            Request::Stale { connections, reply } => drop(reply.send(Ok(self.stale(&connections)))),
        }
    }

    /// Answers the requests whose time has come, and drops those that nobody waits for any more.
    pub(super) fn answer_waiters(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter {
                Waiter::Identity { reply, .. } if reply.is_closed() => {}
                Waiter::Served { reply, .. } if reply.is_closed() => {}
                Waiter::Identity { attachment, pod, reply } => match self.mesh.identity_of(&pod) {
                    Some(identity) => drop(reply.send(self.allocate(&attachment, &pod, identity.0))),
                    None => self.waiters.push(Waiter::Identity { attachment, pod, reply }),
                },
                Waiter::Served { attachment, reply } => match self.is_served(&attachment) {
                    None => drop(reply.send(Err(UnknownEndpoint(attachment).into()))),
                    Some(true) => drop(reply.send(Ok(()))),
                    Some(false) => self.waiters.push(Waiter::Served { attachment, reply }),
                },
            }
        }
    }

    fn allocate(
        &mut self,
        attachment: &Attachment,
        pod: &NamespacedName,
        identity: u32,
    ) -> Result<Allocation, NodeError> {
        let cidr = self.table.cidr();
        // Other nodes know a published address under the identity of the pod that had it last.
        let rests = |address: Ipv4Addr| self.published.contains(address);
        let record = block_in_place(|| self.table.allocate(attachment, pod, rests))?;
        info!(%pod, address = %record.address, endpoint = record.id, identity, "endpoint allocated");
        Ok(Allocation {
            addresses: cidr.both(record.address).collect(),
            routers: cidr.both(cidr.router()).collect(),
            host_interface: record.host_interface.clone(),
            mtu: self.network.pod_mtu,
            identity,
        })
    }

    async fn activate(&mut self, attachment: &Attachment, activation: Activation) -> Result<(), NodeError> {
        let record = self.table.get(attachment).ok_or_else(|| UnknownEndpoint(attachment.clone()))?;
        let (name, id, pod) = (record.host_interface.clone(), record.id, record.pod());
        let interface = self.netlink.existing(&name).await?;
        block_in_place(|| -> Result<(), NodeError> {
            // Before anything leads to it: its programs drop what no endpoint is known for.
            self.maps.datapath.attach_endpoint(&name)?;
            Ok(self.table.activate(attachment, activation)?)
        })?;
        self.interfaces.insert(attachment.clone(), interface.index);
        self.endpoints_changed();
        info!(%pod, endpoint = id, interface = name, "endpoint activated");
        Ok(())
    }

    async fn delete(&mut self, attachment: &Attachment) -> Result<(), NodeError> {
        let record = self.table.get(attachment).cloned();
        let name =
            record.as_ref().map_or_else(|| attachment.host_interface(), |it| it.host_interface.clone());
        // Without its programs an interface lets everything through; so it goes before them, and before its address.
        self.netlink.remove_link(&name).await?;
        block_in_place(|| -> Result<(), NodeError> {
            self.maps.datapath.detach_endpoint(&name)?;
            Ok(self.table.release(attachment).map(drop)?)
        })?;
        let Some(record) = record else { return Ok(()) };
        self.interfaces.remove(attachment);
        self.endpoints_changed();
        self.pass().await;
        info!(pod = %record.pod(), endpoint = record.id, address = %record.address, "endpoint deleted");
        Ok(())
    }

    async fn check(&self, attachment: &Attachment) -> Result<(), NodeError> {
        let record = self.table.get(attachment).ok_or_else(|| UnknownEndpoint(attachment.clone()))?;
        let broken = |what| NodeError::Broken { id: record.id, pod: record.pod(), what };
        if record.activation.is_none() {
            return Err(broken("was never activated"));
        }
        let interface = self.netlink.interface(&record.host_interface).await?;
        if interface.map(|interface| interface.index) != self.interfaces.get(attachment).copied() {
            return Err(broken("has lost its interface"));
        }
        if !self.maps.attached()?.contains(&record.host_interface) {
            return Err(broken("has lost its programs"));
        }
        if self.is_served(attachment) != Some(true) {
            return Err(broken("is not in the datapath's maps"));
        }
        Ok(())
    }

    /// Whether an activated endpoint is in the maps, policy included: the maps are written in that order.
    fn is_served(&self, attachment: &Attachment) -> Option<bool> {
        let record = self.table.get(attachment)?;
        let interface = self.interfaces.get(attachment);
        let is_served = |address: IpAddr| {
            let served = self.maps.actual().endpoints.get(&Address::from(address));
            served.is_some_and(|endpoint| endpoint.id == record.id && Some(&endpoint.interface) == interface)
        };
        Some(self.table.cidr().both(record.address).all(is_served))
    }

    fn drops(&self) -> Result<Drops, NodeError> {
        let counts = block_in_place(|| self.maps.datapath.counts())?;
        Ok(counts.into_iter().filter(|(reason, _, _)| reason.0 >= FIRST_DROP_REASON).collect())
    }

    /// Serves what was served before a restart: programs go back to their interfaces, and endpoints whose interface is
    /// gone, or was never served, are dropped.
    ///
    /// # Errors
    /// [`NodeError`], if interfaces cannot be looked at or an endpoint cannot be dropped.
    pub(super) async fn restore_endpoints(&mut self) -> Result<(), NodeError> {
        self.drop_gone_endpoints().await?;
        self.drop_unfinished_endpoints()?;
        let records: Vec<_> = self.table.iter().cloned().collect();
        for record in &records {
            let attached = block_in_place(|| self.maps.datapath.attach_endpoint(&record.host_interface));
            if let Err(error) = attached {
                let error = chain(&error);
                warn!(pod = %record.pod(), endpoint = record.id, error, "endpoint keeps the programs that it has");
            }
        }
        for interface in self.maps.attached()? {
            if !records.iter().any(|record| record.host_interface == interface) {
                // Its programs stay: they drop all that is no endpoint's, and without them everything would get through.
                warn!(interface, "no endpoint is known for an interface, its pod is cut off: delete the pod");
            }
        }
        self.endpoints_changed();
        info!(endpoints = records.len(), "endpoints restored");
        Ok(())
    }

    /// Drops endpoints whose interface went with its pod, without a DEL, and finds those that were made anew.
    pub(super) async fn drop_gone_endpoints(&mut self) -> Result<(), NodeError> {
        let active: Vec<_> =
            self.table.iter().filter(|record| record.activation.is_some()).cloned().collect();
        for record in active {
            let attachment = &record.attachment;
            if let Some(interface) = self.netlink.interface(&record.host_interface).await? {
                let before = self.interfaces.insert(attachment.clone(), interface.index);
                if before.is_some_and(|before| before != interface.index) {
                    block_in_place(|| self.maps.datapath.attach_endpoint(&record.host_interface))?;
                }
                if before != Some(interface.index) {
                    self.endpoints_changed();
                }
                continue;
            }
            warn!(
                pod = %record.pod(), endpoint = record.id, interface = record.host_interface,
                "dropping an endpoint whose interface is gone"
            );
            block_in_place(|| -> Result<(), NodeError> {
                self.maps.datapath.detach_endpoint(&record.host_interface)?;
                Ok(self.table.release(attachment).map(drop)?)
            })?;
            self.interfaces.remove(attachment);
            self.endpoints_changed();
        }
        Ok(())
    }

    /// Drops endpoints whose ADD ended with the agent before this one. Should its plugin still be at work, it is told
    /// that the endpoint is unknown, and undoes the rest.
    fn drop_unfinished_endpoints(&mut self) -> Result<(), NodeError> {
        let unfinished: Vec<_> =
            self.table.iter().filter(|record| record.activation.is_none()).cloned().collect();
        for record in unfinished {
            warn!(pod = %record.pod(), endpoint = record.id, "dropping an endpoint whose interface was never served");
            block_in_place(|| self.table.release(&record.attachment))?;
        }
        Ok(())
    }

    /// Tells the mesh which pods this node serves.
    fn endpoints_changed(&mut self) {
        let cidr = self.table.cidr();
        let served = self.table.iter().filter_map(|record| {
            let activation = record.activation.as_ref()?;
            let endpoint = LocalEndpoint {
                interface: *self.interfaces.get(&record.attachment)?,
                mac: activation.pod_mac,
                host_mac: activation.host_mac,
                id: record.id,
                pod: record.pod(),
            };
            Some(cidr.both(record.address).map(move |address| (address, endpoint.clone())))
        });
        self.mesh.set_endpoints(served.flatten().collect());
        self.dirty = true;
    }
}
