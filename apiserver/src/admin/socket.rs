//! The Unix socket of the admin API, for its owner alone.

use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// A socket in its place; the file goes with it.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl AdminSocket {
    /// Whether the socket can be made, without making it.
    ///
    /// # Errors
    /// If somebody answers at `path`, or it is not a socket.
    pub fn check(path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let file = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.with_context(|| format!("--admin-socket: cannot look at {shown}"))?,
        };
        if !file.file_type().is_socket() {
            bail!("--admin-socket: {shown} is not a socket; remove it, or name another path");
        }
        match UnixStream::connect(path) {
            Ok(_) => bail!("--admin-socket: somebody answers at {shown}; stop it, or name another path"),
            // Left by a process that ended.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error).with_context(|| format!("--admin-socket: cannot look at {shown}")),
        }
    }

    /// Listens at `path`, which nobody else may open. A file that a dead process left is replaced.
    ///
    /// # Errors
    /// As for [`AdminSocket::check`], and if the socket cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        Self::check(path)?;
        let shown = path.display();
        let failed = || format!("--admin-socket: cannot listen at {shown}");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(failed)?;
        }
        // It is made where nobody else gets to, whatever the umask, and leaves from there when nobody else can open it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let private = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let place = || {
            let _ = std::fs::remove_dir_all(&private);
            DirBuilder::new().mode(0o700).create(&private)?;
            let beside = private.join("s");
            let listener = StdListener::bind(&beside)?;
            std::fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            std::fs::rename(&beside, path)?;
            Ok::<_, std::io::Error>(listener)
        };
        let placed = place();
        let _ = std::fs::remove_dir_all(&private);
        let listener = placed.with_context(failed)?;
        let listener = UnixListener::from_std(listener).with_context(failed)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener) })
    }

    /// The listener, to be served. It can be taken once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        let error = AdminSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("somebody answers"), "{error}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(AdminSocket::bind(&path).unwrap());

        std::fs::write(&path, "precious").unwrap();
        assert!(AdminSocket::bind(&path).unwrap_err().to_string().contains("is not a socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
