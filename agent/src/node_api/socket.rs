//! A Unix socket that only its owner may use, taken by one agent at a time.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::state_dir::{self, StateError};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another agent serves it.
    #[error(transparent)]
    Lock(#[from] StateError),
    /// It cannot be made.
    #[error("cannot make the socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A listening socket. Its file goes with it.
#[derive(Debug)]
pub(crate) struct NodeSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The socket's file and the lock beside it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    _lock: File,
}

impl NodeSocket {
    /// Listens at `path`. A file that an agent left there is replaced; the socket is never open to others, not even for a
    /// moment.
    ///
    /// # Errors
    /// [`SocketError::Lock`] if another agent is at it, [`SocketError::Io`].
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let lock = state_dir::lock(&with_suffix(path, ".lock"))?;
        let unfinished = with_suffix(path, ".new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&unfinished).map_err(failed)?;
        // Whoever connects between these two lines finds it under a name that nobody knows; a rename keeps the mode.
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&unfinished, path).map_err(failed)?;
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), _lock: lock } })
    }

    /// The listener, and what has to live as long.
    pub(super) fn into_listener(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Still locked, so that it is not another agent's. One that stays is replaced by the next.
        let _ = fs::remove_file(&self.path);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let first = NodeSocket::bind(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        let error = NodeSocket::bind(&path).unwrap_err();
        assert!(error.to_string().contains("locked by another agent"), "{error}");
        UnixStream::connect(&path).unwrap();

        drop(first);
        assert!(!path.exists());
        // What a crash leaves: a file without a lock.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _second = NodeSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }
}
