//! What the connects of sockets were translated to.

use std::fmt;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError as KernelError};
use landbridge_bpf_maps::SocketService;

use crate::error::{DatapathError, MapError};
use crate::shape::SOCKET_SERVICE;
use crate::tables::take;

/// The sockets that are connected to a backend, having named its service.
pub struct ConnectedSockets(HashMap<MapData, u64, SocketService>);

impl ConnectedSockets {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, DatapathError> {
        let map =
            HashMap::try_from(take(object, SOCKET_SERVICE)?).map_err(MapError::reading(SOCKET_SERVICE))?;
        Ok(Self(map))
    }

    /// What a socket named and what it got instead, by the socket's cookie. The socket may have closed or connected
    /// anew since.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn translation(&self, cookie: u64) -> Result<Option<SocketService>, MapError> {
        match self.0.get(&cookie, 0) {
            Ok(translation) => Ok(Some(translation)),
            Err(KernelError::KeyNotFound) => Ok(None),
            Err(error) => Err(MapError::reading(SOCKET_SERVICE)(error)),
        }
    }
}

impl fmt::Debug for ConnectedSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedSockets").finish_non_exhaustive()
    }
}
