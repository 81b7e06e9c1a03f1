//! What those ask who look after a member, beside gRPC: nobody needs a right for it, and it tells nothing about keys.

use landbridge_kvstore_store::Store;
use tonic::Status;

use super::service::{Peer, Service};
use crate::engine::EngineStatus;
use crate::engine::counters::Counters;

impl Service {
    /// Whether a member leads, as far as this one knows.
    pub(crate) fn has_leader(&self) -> bool {
        self.engine().has_leader()
    }

    /// How the member is.
    pub(crate) fn status_now(&self) -> EngineStatus {
        self.engine().status()
    }

    /// Looks at the store, which stays as it is meanwhile.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        self.engine().read(look)
    }

    /// Whether there are users: then one without a name has no rights.
    pub(crate) fn has_users(&self) -> bool {
        self.permissions(&Peer::default()).is_err()
    }

    /// Whether keys can be read: as this member has them, or as the cluster does.
    pub(crate) async fn can_read(&self, is_local: bool) -> Result<(), Status> {
        if !is_local {
            self.engine().read_barrier().await?;
        }
        Ok(())
    }

    /// What is wrong with the store, by etcd's names: `NOSPACE`, `CORRUPT`; once for each member that has it.
    pub(crate) fn active_alarms(&self) -> Vec<&'static str> {
        self.engine().alarms().into_iter().map(|alarm| alarm.kind.name()).collect()
    }

    /// What the engine has done since its start.
    pub(crate) fn counters(&self) -> &Counters {
        self.engine().counters()
    }

    /// Whether this member has no vote.
    pub(crate) fn is_learner(&self) -> bool {
        self.engine().is_learner()
    }

    /// Bytes that the store may have; `None` if there is no limit.
    pub(crate) fn quota_bytes(&self) -> Option<u64> {
        self.engine().quota_bytes()
    }
}
