//! What a learner answers: it has a copy of the data and nothing to say.
//!
//! As in etcd 3.5: how it is, a copy of all, and ranges that need not be current. Everything else is refused before it is
//! looked at, what is no API of etcd's own included, as the check of health that gRPC has.

use tonic::Status;

use super::service::Service;
use super::status;

/// When a learner answers calls of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Always,
    /// The request says whether the answer may be old.
    IfOldWillDo,
    Never,
}

impl Answers {
    fn of(path: &str) -> Self {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        match (service, method) {
            ("etcdserverpb.Maintenance", "Status" | "Snapshot") => Self::Always,
            ("etcdserverpb.KV", "Range") => Self::IfOldWillDo,
            // etcd does not have it. It is about the program, not about the member.
            (service, _) if service.starts_with("grpc.reflection.") => Self::Always,
            _ => Self::Never,
        }
    }
}

impl Service {
    /// Whether this member looks at calls of the method at `path`.
    ///
    /// # Errors
    /// etcd's refusal, if it is a learner that does not.
    pub(super) fn check_learner(&self, path: &str) -> Result<(), Status> {
        if self.engine().is_learner() && Answers::of(path) == Answers::Never {
            return Err(status::not_for_learners());
        }
        Ok(())
    }

    /// Whether this member answers a range that has to be current unless `old_will_do`.
    ///
    /// # Errors
    /// As for [`Self::check_learner`].
    pub(super) fn check_learner_range(&self, old_will_do: bool) -> Result<(), Status> {
        if self.engine().is_learner() && !old_will_do { Err(status::not_for_learners()) } else { Ok(()) }
    }
}
