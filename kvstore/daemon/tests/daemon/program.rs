//! Programs that the tests run.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// Our binary, with nothing in its environment.
pub(crate) fn store(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge-kvstore"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
    command
}

/// Ends with the test, however that ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts the store with its data in `data`, and waits until it says that it is ready.
    pub(crate) fn start(data: &Path, url: &str, args: &[&str]) -> Self {
        // Many stores run at a time: each has a port of its own for the others.
        Self::start_program(store(&[]), data, url, &free_url(), args)
    }

    /// [`Self::start`], of any program that takes etcd's flags.
    pub(crate) fn start_program(
        mut command: Command,
        data: &Path,
        url: &str,
        peer: &str,
        args: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        command.args(["-data-dir", data.to_str().unwrap(), "--listen-client-urls", url]);
        command.args(["--listen-peer-urls", peer]).args(args);
        command.env("NOTIFY_SOCKET", &path).env("ETCD_ADVERTISE_CLIENT_URLS", url).stderr(Stdio::null());
        let running = Self(command.spawn().unwrap());
        let mut said = [0; 64];
        let length = manager.recv(&mut said).unwrap();
        assert_eq!(said[..length].trim_ascii(), b"READY=1");
        running
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(killed.success());
        self.0.wait().unwrap()
    }
}

pub(crate) fn free_url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

pub(crate) fn etcdctl(endpoint: &str, args: &[&str]) -> Output {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint, "--command-timeout=30s"]);
    command.args(args).output().unwrap()
}
