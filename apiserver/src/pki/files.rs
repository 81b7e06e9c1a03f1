//! Files that are private and appear whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What could not be done with a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}")]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Whether the file is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::new(action, path, source)
}

/// Makes a folder that only its owner may look into, with the folders above it. One that is there is made private.
pub(crate) fn create_private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("cannot make folder", path))?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(failed("cannot make private", path))
}

/// Waits for the lock of `folder`; it is free again when the file is dropped, or its process ends.
pub(crate) fn lock(folder: &Path) -> Result<File, FileError> {
    let path = folder.join(".lock");
    let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = open().map_err(failed("cannot open lock", &path))?;
    file.lock().map_err(failed("cannot lock", &path))?;
    Ok(file)
}

pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(failed("cannot read", path))
}

/// Writes a file that only its owner may read. It is there as a whole or as it was before, also after a power cut.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
    // A process of the same id may have died while it wrote.
    let _ = std::fs::remove_file(&beside);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        FileError::new("cannot write", path, error)
    })?;
    rename(&beside, path)
}

/// Moves a file to its final name, which may be taken by an older one, and syncs the folder.
fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(failed("cannot put in place", to))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(failed("cannot sync folder", folder))
}
