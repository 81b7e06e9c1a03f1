//! Why a deployment does not run.

use std::io;
use std::path::{Path, PathBuf};

use crate::LabError;

/// Lines of a program's log that an error shows.
const LAST_LINES: usize = 12;

/// Why Landbridge does not run on a lab.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// Something with the lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The lab has no such cluster, or one without nodes.
    #[error("the lab has no cluster {0} with nodes")]
    NoSuchCluster(String),
    /// No pod of that name runs.
    #[error("cluster {cluster} has no pod {pod}")]
    NoSuchPod {
        /// The cluster.
        cluster: String,
        /// What was asked for.
        pod: String,
    },
    /// There are fewer nodes.
    #[error("cluster {cluster} has no node {index}")]
    NoSuchNode {
        /// The cluster.
        cluster: String,
        /// What was asked for, counted from 0.
        index: usize,
    },
    /// A program is not where it should be.
    #[error("{0} is not there: build it with `cargo build --bins`, next to this program")]
    NoProgram(PathBuf),
    /// A program does not answer.
    #[error("{program} does not answer at {socket}; it last said:\n{words}")]
    Silent {
        /// The program.
        program: String,
        /// Where it should answer.
        socket: PathBuf,
        /// The end of its log.
        words: String,
    },
    /// A program ended with an error.
    #[error("{program} failed:\n{words}")]
    Failed {
        /// The program.
        program: String,
        /// What it said.
        words: String,
    },
    /// A file or folder.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A manifest that says something else than a pod needs.
    #[error("{path}: {reason}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The lab has fewer pods than the manifests.
    #[error("node {node} of the lab has no host left for pod {pod}: give it more pods")]
    NoHost {
        /// The node.
        node: String,
        /// The pod.
        pod: String,
    },
}

impl DeploymentError {
    pub(super) fn silent(program: &str, socket: &Path, log: &str) -> Self {
        Self::Silent { program: program.to_owned(), socket: socket.to_owned(), words: last_lines(log) }
    }

    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}

pub(super) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
