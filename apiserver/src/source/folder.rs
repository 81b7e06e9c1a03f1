//! The last good objects of each file. Pure: what is in the files is passed in.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::document;
use super::manifest::{self, Fault, Manifest};
use super::problem::Problem;
use super::scan::Files;
use crate::objects::{Object, ObjectId, Objects, PolicyName};

const WITHDRAWS_NOTHING: &str = "nothing is withdrawn from the mesh until it is right";

/// The files of a folder as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Folder {
    files: BTreeMap<PathBuf, File>,
    was_read: bool,
    /// Whether it had no manifest at the last look.
    is_bare: bool,
}

#[derive(Debug, Default)]
struct File {
    content: Option<Result<String, String>>,
    objects: BTreeMap<ObjectId, Object>,
    problems: Vec<Problem>,
    /// Whether there may be objects in it that were in force before the first look, and of which nothing good is known.
    has_unknown: bool,
    /// The same for policies that are wrong, one by one.
    unknown_policies: BTreeSet<PolicyName>,
}

impl Folder {
    /// Takes over what is in the files now. No file at all is taken for a folder that is not mounted, not for a cluster
    /// of which everything was withdrawn.
    pub(super) fn update(&mut self, files: Files) {
        self.is_bare = files.is_empty();
        if self.is_bare {
            return;
        }
        self.files.retain(|path, _| files.contains_key(path));
        let is_first = !std::mem::replace(&mut self.was_read, true);
        for (path, content) in files {
            let file = self.files.entry(path.clone());
            let file = file.or_insert_with(|| File { has_unknown: is_first, ..File::default() });
            if file.content.as_ref() != Some(&content) {
                file.update(&path, &content);
                file.content = Some(content);
            }
        }
    }

    /// All objects in force, and all problems. An object that several files declare is that of the first of them.
    pub(super) fn objects(&self) -> (Objects, Vec<Problem>) {
        let mut owners: BTreeMap<&ObjectId, &Path> = BTreeMap::new();
        let mut objects = Objects::default();
        let mut problems = Vec::new();
        if self.is_bare {
            objects.whole = self.was_read;
            problems.push(self.bare());
        }
        for (path, file) in &self.files {
            problems.extend(file.problems.iter().cloned());
            objects.whole &= !file.has_unknown;
            objects.unknown_policies.extend(file.unknown_policies.iter().cloned());
            for (id, object) in &file.objects {
                if let Some(owner) = owners.get(id) {
                    problems.push(Problem {
                        file: path.clone(),
                        place: None,
                        object: Some(id.clone()),
                        message: format!("declared in {} already", owner.display()),
                        hint: "that one is in force: remove one of them".to_owned(),
                    });
                } else {
                    owners.insert(id, path);
                    objects.insert(object.clone());
                }
            }
        }
        (objects, problems)
    }

    fn bare(&self) -> Problem {
        let hint = match self.files.values().map(|file| file.objects.len()).sum() {
            0 => WITHDRAWS_NOTHING.to_owned(),
            count => {
                format!(
                    "the {count} objects that it had stay in force; put an empty file into it to withdraw them"
                )
            }
        };
        let fault = Fault { place: None, message: "the folder has no manifest: is it mounted?".to_owned() };
        problem(Path::new(""), None, fault, hint)
    }
}

impl File {
    fn update(&mut self, path: &Path, content: &Result<String, String>) {
        let before = std::mem::take(self);
        let keep_all = |fault: Fault| {
            let hint = match before.objects.len() {
                0 if before.has_unknown => WITHDRAWS_NOTHING.to_owned(),
                0 => "nothing of the file is in force".to_owned(),
                count => format!("the {count} objects that it had stay in force"),
            };
            Self {
                content: None,
                objects: before.objects.clone(),
                problems: vec![problem(path, None, fault, hint)],
                has_unknown: before.has_unknown,
                unknown_policies: before.unknown_policies.clone(),
            }
        };
        *self = match content {
            Err(error) => keep_all(Fault { place: None, message: format!("cannot be read: {error}") }),
            Ok(text) => match Self::read(path, text, &before) {
                Ok(file) if file.is_empty() && !before.objects.is_empty() => {
                    let message =
                        "has no object any more: remove the file to withdraw what it had".to_owned();
                    keep_all(Fault { place: None, message })
                }
                Ok(file) => file,
                Err(fault) => keep_all(fault),
            },
        };
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.problems.is_empty()
    }

    /// The file's objects, with the last good version of those that are wrong now.
    fn read(path: &Path, text: &str, before: &Self) -> Result<Self, Fault> {
        let mut file = Self::default();
        for document in document::split(text) {
            match manifest::read(&document) {
                Manifest::Unreadable(fault) => return Err(fault),
                Manifest::Ignored => {}
                Manifest::Object(object, notes) => {
                    let id = object.id();
                    let hint = "the object is in force without it";
                    let notes =
                        notes.into_iter().map(|fault| problem(path, Some(&id), fault, hint.to_owned()));
                    file.problems.extend(notes);
                    file.insert(path, id, *object);
                }
                Manifest::Refused(id, fault) => {
                    let last_good = before.objects.get(&id).cloned();
                    let policy = id.policy_name();
                    let was_unknown =
                        policy.as_ref().is_some_and(|policy| before.unknown_policies.contains(policy));
                    let hint = match (&last_good, policy) {
                        (Some(_), _) => "its last good version stays in force",
                        (None, Some(policy)) if before.has_unknown || was_unknown => {
                            file.unknown_policies.insert(policy);
                            "what is known of it to the nodes stays in force"
                        }
                        (None, None) if before.has_unknown => {
                            file.has_unknown = true;
                            WITHDRAWS_NOTHING
                        }
                        _ => "it is not in force",
                    };
                    file.problems.push(problem(path, Some(&id), fault, hint.to_owned()));
                    if let Some(last_good) = last_good {
                        file.objects.insert(id, last_good);
                    }
                }
            }
        }
        Ok(file)
    }

    fn insert(&mut self, path: &Path, id: ObjectId, object: Object) {
        match self.objects.entry(id) {
            Entry::Vacant(free) => {
                free.insert(object);
            }
            Entry::Occupied(taken) => {
                let fault = Fault { place: None, message: "declared twice in this file".to_owned() };
                let hint = "the first one is in force: remove one of them".to_owned();
                self.problems.push(problem(path, Some(taken.key()), fault, hint));
            }
        }
    }
}

fn problem(path: &Path, id: Option<&ObjectId>, fault: Fault, hint: String) -> Problem {
    Problem {
        file: path.to_path_buf(),
        place: fault.place,
        object: id.cloned(),
        message: fault.message,
        hint,
    }
}
