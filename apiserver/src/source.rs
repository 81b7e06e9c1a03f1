//! Where a cluster's objects come from when there is no Kubernetes API: a folder of manifests, watched.
//!
//! ```text
//! folder ─ scan ─► Folder (last good objects of each file) ─► watch: Arc<Objects>
//!   ▲                                                    └──► watch: Problems
//!   └─ looked at again when the kernel tells of a change, and every 10 seconds in any case
//! ```
//!
//! - A file that cannot be read or parsed keeps the objects that it had, and so does an empty one: half a file withdraws
//!   nothing. An object that breaks a rule keeps its last good version. Removing a file withdraws its
//!   objects, unless it was the only one: a folder without any is taken for one that is not mounted.
//! - While nothing good is known of some file, the objects are not [whole](Objects::whole), so that nothing that may be
//!   in it is withdrawn.
//! - Each problem names file, line and column.
//! - Folders and files whose names start with `.` are not looked at; that leaves out what editors and mounts of
//!   `ConfigMap`s leave behind.

mod document;
mod folder;
mod locate;
mod manifest;
mod problem;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::Objects;
use folder::Folder;
pub use problem::{Place, Problem};
pub use scan::FolderError;

/// How long a folder has to be quiet before it is looked at: a file is written in several steps.
const QUIET: Duration = Duration::from_millis(20);
/// The longest that a folder which is never quiet is left alone.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How often the folder is looked at in any case: not every file system tells of changes.
const RESCAN: Duration = Duration::from_secs(10);

/// What is wrong with manifests, in the order of files and lines.
pub type Problems = Arc<[Problem]>;

/// What a look at a folder brings.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The objects that are in order.
    pub objects: Objects,
    /// What is wrong with the others.
    pub problems: Problems,
}

/// Looks at a folder once.
///
/// # Errors
/// [`FolderError`] if the folder itself cannot be read.
pub fn validate(dir: &Path) -> Result<Checked, FolderError> {
    let mut folder = Folder::default();
    folder.update(scan::scan(dir)?);
    let (objects, problems) = folder.objects();
    Ok(Checked { objects, problems: problems.into() })
}

/// A folder that is watched, until it is told to stop.
#[derive(Debug)]
pub struct Source {
    objects: watch::Receiver<Arc<Objects>>,
    problems: watch::Receiver<Problems>,
    task: JoinHandle<()>,
}

impl Source {
    /// Looks at the folder, and goes on watching it. Problems of manifests do not keep it from starting.
    ///
    /// # Errors
    /// [`FolderError`] if the folder itself cannot be read.
    pub async fn start(dir: PathBuf, stop: CancellationToken) -> Result<Self, FolderError> {
        // Before the first look, so that no change falls between both. One hint is enough, whoever comes later finds it
        // there; so a full queue drops.
        let (hint, hints) = mpsc::channel(1);
        let watcher = watch_folder(&dir, hint.clone());
        let mut folder = Folder::default();
        let first = dir.clone();
        folder.update(blocking(move || scan::scan(&first)).await?);
        let (found, wrong) = folder.objects();
        info!(dir = %dir.display(), problems = wrong.len(), "manifests read");
        let (objects, objects_seen) = watch::channel(Arc::new(found));
        let (problems, problems_seen) = watch::channel(Problems::from(wrong));
        let watched = Watched { dir, folder, objects, problems, hint, hints, watcher };
        let task = tokio::spawn(watched.run(stop));
        Ok(Self { objects: objects_seen, problems: problems_seen, task })
    }

    /// The objects, whenever they change.
    pub fn objects(&self) -> watch::Receiver<Arc<Objects>> {
        self.objects.clone()
    }

    /// What is wrong, whenever that changes.
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }

    /// Resolves when watching has ended, which it does only if it is told to.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// The task's own.
struct Watched {
    dir: PathBuf,
    folder: Folder,
    objects: watch::Sender<Arc<Objects>>,
    problems: watch::Sender<Problems>,
    hint: mpsc::Sender<()>,
    hints: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
}

impl Watched {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = self.hints.recv() => settle(&mut self.hints).await,
                // A watch ends unseen with the folder that it was for; a new one is on whatever has the name now.
                () = sleep(RESCAN) => self.watcher = watch_folder(&self.dir, self.hint.clone()),
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let dir = self.dir.clone();
        let (objects, problems) = match blocking(move || scan::scan(&dir)).await {
            Ok(files) => {
                self.folder.update(files);
                self.folder.objects()
            }
            Err(error) => {
                let (objects, mut problems) = self.folder.objects();
                problems.push(error.into());
                (objects, problems)
            }
        };
        self.problems.send_if_modified(|known| {
            let is_new = **known != *problems;
            if is_new {
                for problem in problems.iter().filter(|problem| !known.contains(problem)) {
                    warn!(problem = %problem, "manifest problem");
                }
                *known = problems.into();
            }
            is_new
        });
        self.objects.send_if_modified(|known| {
            let is_new = **known != objects;
            if is_new {
                *known = Arc::new(objects);
            }
            is_new
        });
    }
}

/// Waits until no change was told of for a while.
async fn settle(hints: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + LONGEST_WAIT;
    loop {
        tokio::select! {
            Some(()) = hints.recv() => {}
            () = sleep(QUIET) => return,
            () = sleep_until(latest) => return,
        }
    }
}

/// A watch that sends hints for as long as it is kept; `None` if the kernel gives none, in which case the folder is
/// still looked at from time to time.
fn watch_folder(dir: &Path, hint: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        // Reading a file is an event as well, and we read all of them.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            hint.try_send(()).ok();
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watcher.inspect_err(|error| warn!(dir = %dir.display(), error = %error, "folder cannot be watched")).ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
