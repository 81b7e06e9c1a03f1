//! The container's network namespace.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{panic, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::answer::{CniError, Code};
use crate::netlink::Netlink;
use crate::node_network::NodeNetworkError;

/// The plugin's own namespace, which is the node's.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace of a container.
pub(super) struct ContainerNamespace(File);

impl ContainerNamespace {
    /// Opens the namespace that is at `path`.
    ///
    /// # Errors
    /// [`Code::UnknownContainer`] if it is not there, [`Code::InvalidEnvironment`] if it is the node's.
    pub(super) fn open(path: &Path) -> Result<Self, CniError> {
        let shown = path.display();
        let missing = |error| {
            CniError::new(Code::UnknownContainer, format!("CNI_NETNS {shown} cannot be opened"))
                .because(&error)
        };
        let file = File::open(path).map_err(missing)?;
        let (own, container) = (std::fs::metadata(OWN).map_err(missing)?, file.metadata().map_err(missing)?);
        if (own.dev(), own.ino()) == (container.dev(), container.ino()) {
            let message = format!("CNI_NETNS {shown} is the network namespace of the node itself");
            return Err(CniError::new(Code::InvalidEnvironment, message)
                .with_details("a pod on the node's network needs no interface"));
        }
        Ok(Self(file))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Makes requests inside of the namespace: on a thread of its own, which ends with them.
    pub(super) fn within<T: Send>(
        &self,
        requests: impl AsyncFnOnce(Netlink) -> Result<T, NodeNetworkError> + Send,
    ) -> Result<T, CniError> {
        let failed = |error: io::Error| {
            CniError::new(Code::Network, "cannot enter the container's network namespace").because(&error)
        };
        let run = || {
            move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| failed(error.into()))?;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
            let outcome = runtime.block_on(async { requests(Netlink::connect()?).await });
            outcome.map_err(|error| network_error("the container's network is not as it has to be", &error))
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    }
}

pub(super) fn network_error(message: &str, error: &dyn Error) -> CniError {
    CniError::new(Code::Network, message).because(error)
}
