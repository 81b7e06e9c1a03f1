//! The files of a folder, as they are on the disk.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::problem::Problem;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 8 << 20;
/// How deep folders can be in each other.
const MAX_DEPTH: usize = 16;

/// What is in each file, or why that is not known; by path relative to the folder.
pub(super) type Files = BTreeMap<PathBuf, Result<String, String>>;

/// A folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("folder {} cannot be read: check --manifests", dir.display())]
pub struct FolderError {
    /// The folder.
    pub dir: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl From<FolderError> for Problem {
    fn from(error: FolderError) -> Self {
        Self {
            file: PathBuf::new(),
            place: None,
            object: None,
            message: format!("{error}: {}", error.source),
            hint: "all objects that were read from it stay in force".to_owned(),
        }
    }
}

/// Reads all manifests of `dir` and the folders in it. Symbolic links to files are followed, those to folders are not.
///
/// # Errors
/// [`FolderError`] if a folder cannot be listed, so that it is not known which files there are.
pub(super) fn scan(dir: &Path) -> Result<Files, FolderError> {
    let mut files = Files::new();
    let mut pending = vec![(dir.to_path_buf(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        let failed = |source| FolderError { dir: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                if depth < MAX_DEPTH {
                    pending.push((entry.path(), depth + 1));
                }
            } else if is_manifest(&entry) {
                let path = entry.path();
                let name = path.strip_prefix(dir).unwrap_or(&path).to_path_buf();
                match read(&path) {
                    // It went between listing and reading; a link that leads nowhere for a moment did not.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
                    content => drop(files.insert(name, content.map_err(|error| error.to_string()))),
                }
            }
        }
    }
    Ok(files)
}

fn is_manifest(entry: &DirEntry) -> bool {
    let path = entry.path();
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes: split it")));
    }
    fs::read_to_string(path)
}
