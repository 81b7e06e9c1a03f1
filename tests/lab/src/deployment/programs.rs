//! Where Landbridge's programs are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::DeploymentError;

/// The programs of one build, side by side in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs in `folder`.
    ///
    /// # Errors
    /// [`DeploymentError::NoProgram`] for the first one that is missing.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Result<Self, DeploymentError> {
        let programs = Self { folder: folder.into() };
        for program in [programs.apiserver(), programs.agent(), programs.cni()] {
            if !program.is_file() {
                return Err(DeploymentError::NoProgram(program));
            }
        }
        Ok(programs)
    }

    /// The programs that were built together with this one: in its folder, or above it where Cargo keeps tests.
    ///
    /// # Errors
    /// [`DeploymentError::NoProgram`].
    pub fn beside_this() -> Result<Self, DeploymentError> {
        let this = env::current_exe().map_err(DeploymentError::file("find", Path::new("/proc/self/exe")))?;
        let folder = this.parent().unwrap_or(Path::new("/"));
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Self::in_folder(folder)
    }

    /// `landbridge-apiserver`.
    pub fn apiserver(&self) -> PathBuf {
        self.folder.join("landbridge-apiserver")
    }

    /// `landbridge-agent`.
    pub fn agent(&self) -> PathBuf {
        self.folder.join("landbridge-agent")
    }

    /// `landbridge-cni`.
    pub fn cni(&self) -> PathBuf {
        self.folder.join("landbridge-cni")
    }

    /// Looks for mistakes in a folder of manifests, without starting anything.
    ///
    /// # Errors
    /// [`DeploymentError::Failed`] with every place that is wrong.
    pub fn check_manifests(&self, folder: &Path) -> Result<(), DeploymentError> {
        let mut check = Command::new(self.apiserver());
        check.args(["check", "--manifests"]).arg(folder);
        run_to_end(&format!("checking the manifests in {}", folder.display()), &mut check).map(drop)
    }

    /// What a pod's manifest calls `name`: one of these programs, or else one of the machine's.
    pub(super) fn find(&self, name: &str) -> PathBuf {
        let ours = self.folder.join(name);
        if ours.is_file() { ours } else { PathBuf::from(name) }
    }
}

pub(super) fn run_to_end(name: &str, command: &mut Command) -> Result<Vec<u8>, DeploymentError> {
    let output = command.output().map_err(DeploymentError::file("run", Path::new(command.get_program())))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = [output.stdout, output.stderr].concat();
    Err(DeploymentError::Failed {
        program: name.to_owned(),
        words: String::from_utf8_lossy(&words).trim_end().to_owned(),
    })
}
