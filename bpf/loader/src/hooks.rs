//! Which program goes where, and the links that keep it there.
//!
//! A pinned link is pointed at this process's program; only where there is none, or where what it was attached to is
//! gone, a new one is made. So a hook is never without its program, and never has two, but for the moment in which one that
//! is attached the older way ([`filters`](crate::filters)) takes over from a link, or a link from it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{CgroupAttachMode, LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType};
use landbridge_bpf_maps::Step;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::error::DatapathError;
use crate::filters;
use crate::link::replace_program;

/// On the cgroup of the node.
pub(crate) const SOCKET_PROGRAMS: [&str; 9] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "sock_release",
];
/// On the tunnel interface.
pub(crate) const OVERLAY_PROGRAMS: [InterfaceProgram; 2] =
    [("from_overlay", TcAttachType::Ingress), ("to_overlay", TcAttachType::Egress)];
/// On the interface that leads to other nodes and to the world.
pub(crate) const UPLINK_PROGRAMS: [InterfaceProgram; 2] =
    [("from_uplink", TcAttachType::Ingress), ("to_uplink", TcAttachType::Egress)];
/// On the node's side of a pod's interface.
pub(crate) const ENDPOINT_PROGRAMS: [InterfaceProgram; 2] =
    [("from_pod", TcAttachType::Ingress), ("to_pod", TcAttachType::Egress)];

/// Lines of the verifier's log that an error shows: its verdict comes last.
const VERIFIER_LINES: usize = 12;

pub(crate) type InterfaceProgram = (&'static str, TcAttachType);

/// How programs are held at interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By tcx links, of Linux 6.6 and newer.
    Tcx,
    /// As filters of a clsact qdisc, the older way.
    Clsact,
}

/// Loads every program into the kernel, so that nothing is attached if one is refused.
pub(crate) fn load_programs(object: &mut Ebpf) -> Result<(), DatapathError> {
    let of_interfaces =
        OVERLAY_PROGRAMS.iter().chain(&UPLINK_PROGRAMS).chain(&ENDPOINT_PROGRAMS).map(|(name, _)| *name);
    let steps = Step::ALL.map(Step::program);
    for name in SOCKET_PROGRAMS.into_iter().chain(of_interfaces).chain(steps) {
        let outcome = match object.program_mut(name) {
            Some(Program::SchedClassifier(program)) => program.load(),
            Some(Program::CgroupSockAddr(program)) => program.load(),
            Some(Program::CgroupSock(program)) => program.load(),
            _ => return Err(DatapathError::Missing(name)),
        };
        outcome.map_err(|error| match error {
            ProgramError::LoadError { verifier_log, .. } => {
                let log = last_lines(&verifier_log.to_string(), VERIFIER_LINES);
                DatapathError::Refused { program: name, log }
            }
            source => DatapathError::Load { program: name, source },
        })?;
    }
    Ok(())
}

/// Attaches the socket programs to a cgroup, with their links in a folder of `links`. Links to other cgroups go.
pub(crate) fn attach_cgroup(object: &mut Ebpf, links: &Path, cgroup: &Path) -> Result<(), DatapathError> {
    let unopened = |source| DatapathError::Cgroup { path: cgroup.to_owned(), source };
    let file = File::open(cgroup).map_err(unopened)?;
    // The inode number of a cgroup's folder is the kernel's id of the cgroup.
    let id = rustix::fs::fstat(&file).map_err(|error| unopened(error.into()))?.st_ino;
    let folder = links.join(id.to_string());
    make_folder(&folder)?;
    for name in SOCKET_PROGRAMS {
        let refused =
            |source| DatapathError::Attach { program: name, target: cgroup.display().to_string(), source };
        let path = folder.join(name);
        let program = object.program_mut(name).ok_or(DatapathError::Missing(name))?;
        if point_at(&path, name, program.fd().map_err(refused)?)? {
            continue;
        }
        let unlinked = |source| DatapathError::Link { program: name, source };
        // A link to a cgroup stands beside others by itself: the kernel refuses it any other mode.
        let mode = CgroupAttachMode::Single;
        let link = match program {
            Program::CgroupSockAddr(program) => {
                let id = program.attach(&file, mode).map_err(refused)?;
                program.take_link(id).map_err(refused)?.try_into().map_err(unlinked)?
            }
            Program::CgroupSock(program) => {
                let id = program.attach(&file, mode).map_err(refused)?;
                program.take_link(id).map_err(refused)?.try_into().map_err(unlinked)?
            }
            _ => return Err(DatapathError::Missing(name)),
        };
        pin(link, path)?;
    }
    remove_others(links, Some(&folder), &[])
}

/// Attaches programs to an interface, with their links in a folder of `links`, which is returned. If one cannot be
/// attached, the ones before it are detached again unless they were there before.
pub(crate) fn attach_interface(
    object: &mut Ebpf,
    links: &Path,
    interface: &str,
    programs: &[InterfaceProgram],
    attachment: Attachment,
) -> Result<PathBuf, DatapathError> {
    let folder = links.join(folder_name(interface, index_of(interface)?));
    make_folder(&folder)?;
    let mut fresh = Vec::new();
    for program in programs {
        match attach_classifier(object, *program, interface, &folder, attachment) {
            Ok(true) => fresh.push(*program),
            Ok(false) => {}
            Err(error) => {
                for program in fresh {
                    // The error that is returned says more than a second one would.
                    let _ = detach_classifier(program, &folder);
                }
                return Err(error);
            }
        }
    }
    Ok(folder)
}

/// Points all links of `programs` in the folders of `links` at this process's programs. Folders of interfaces that are
/// gone are deleted.
pub(crate) fn refresh(
    object: &mut Ebpf,
    links: &Path,
    programs: &[InterfaceProgram],
    attachment: Attachment,
) -> Result<(), DatapathError> {
    for folder in folders(links)? {
        let mut attached = false;
        for program in programs {
            attached |= refresh_classifier(object, *program, &folder, attachment)?;
        }
        if !attached {
            remove_folder(&folder)?;
        }
    }
    Ok(())
}

/// Puts this process's program where one was attached before. False if there was none.
fn refresh_classifier(
    object: &mut Ebpf,
    program: InterfaceProgram,
    folder: &Path,
    attachment: Attachment,
) -> Result<bool, DatapathError> {
    let (name, _) = program;
    let link = folder.join(name);
    let is_link = link.exists();
    if is_link && attachment == Attachment::Tcx {
        return point_at(&link, name, classifier(object, name)?.fd().map_err(not_attached(name, folder))?);
    }
    if !is_link && !filters::note(folder, name).exists() {
        return Ok(false);
    }
    // The other way, or a filter: these go by the interface.
    let here = interface_of(folder).filter(|(interface, index)| is_here(interface, *index));
    let Some((interface, _)) = here else { return Ok(false) };
    attach_classifier(object, program, &interface, folder, attachment).map(|_| true)
}

fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    match object.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(DatapathError::Missing(name)),
    }
}

fn not_attached(program: &'static str, target: &Path) -> impl Fn(ProgramError) -> DatapathError {
    move |source| DatapathError::Attach { program, target: target.display().to_string(), source }
}

/// Returns whether nothing was attached before. What was attached the other way is detached.
fn attach_classifier(
    object: &mut Ebpf,
    program: InterfaceProgram,
    interface: &str,
    folder: &Path,
    attachment: Attachment,
) -> Result<bool, DatapathError> {
    let (name, hook) = program;
    let link = folder.join(name);
    let loaded = classifier(object, name)?;
    if attachment == Attachment::Clsact {
        let is_new = filters::attach(loaded, program, interface, folder)?;
        remove_pin(&link)?;
        return Ok(is_new);
    }
    let refused = not_attached(name, Path::new(interface));
    let is_new = !point_at(&link, name, loaded.fd().map_err(&refused)?)?;
    if is_new {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = loaded.attach_with_options(interface, hook, options).map_err(&refused)?;
        let new = loaded.take_link(id).map_err(&refused)?;
        pin(new.try_into().map_err(|source| DatapathError::Link { program: name, source })?, link)?;
    }
    filters::detach(program, folder)?;
    Ok(is_new)
}

/// Detaches a program, whichever way it was attached.
fn detach_classifier(program: InterfaceProgram, folder: &Path) -> Result<(), DatapathError> {
    filters::detach(program, folder)?;
    remove_pin(&folder.join(program.0))
}

/// Points the pinned link at a program. False if there is none; one whose interface or cgroup is gone is deleted.
fn point_at(path: &Path, name: &'static str, program: impl AsFd) -> Result<bool, DatapathError> {
    let failed = |source| DatapathError::Replace { program: name, path: path.to_owned(), source };
    match replace_program(path, program.as_fd()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            fs::remove_file(path).map_err(failed)?;
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

fn pin(link: FdLink, path: PathBuf) -> Result<(), DatapathError> {
    link.pin(&path).map(drop).map_err(|source| DatapathError::Pin { path, source })
}

/// The number of an interface in the network namespace of the calling thread.
pub(crate) fn index_of(interface: &str) -> Result<u32, DatapathError> {
    let failed = |error: rustix::io::Errno| DatapathError::NoInterface {
        interface: interface.to_owned(),
        source: error.into(),
    };
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
    netdevice::name_to_index(any, interface).map_err(failed)
}

/// The folder of an interface's links. bpf filesystems take no dot in a name, and interfaces no colon.
fn folder_name(interface: &str, index: u32) -> String {
    format!("{}@{index}", interface.replace('.', ":"))
}

/// The interface that a folder is named after, and its number.
pub(crate) fn interface_of(folder: &Path) -> Option<(String, u32)> {
    let (name, index) = folder.file_name()?.to_str()?.rsplit_once('@')?;
    Some((name.replace(':', "."), index.parse().ok()?))
}

/// The folders in a folder; none if it does not exist.
pub(crate) fn folders(path: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let failed = |source| DatapathError::Folder { action: "read", path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

pub(crate) fn make_folder(path: &Path) -> Result<(), DatapathError> {
    fs::create_dir_all(path).map_err(|source| DatapathError::Folder {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

/// Whether the interface is there, and is the one that had this number.
pub(crate) fn is_here(interface: &str, index: u32) -> bool {
    index_of(interface).is_ok_and(|now| now == index)
}

/// Whether a program is attached, as far as the folder knows.
pub(crate) fn is_attached((name, _): InterfaceProgram, folder: &Path) -> bool {
    folder.join(name).exists() || filters::note(folder, name).exists()
}

/// Deletes a folder of an interface, which detaches its programs.
pub(crate) fn remove_interface(folder: &Path, programs: &[InterfaceProgram]) -> Result<(), DatapathError> {
    programs.iter().try_for_each(|program| filters::detach(*program, folder))?;
    remove_folder(folder)
}

/// Deletes a pin, if there is one.
pub(crate) fn remove_pin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Folder { action: "delete", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Deletes a folder of pins, which detaches what only they keep attached.
pub(crate) fn remove_folder(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Folder { action: "delete", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Deletes all folders of `links` but one, with what is attached by `programs`.
pub(crate) fn remove_others(
    links: &Path,
    kept: Option<&Path>,
    programs: &[InterfaceProgram],
) -> Result<(), DatapathError> {
    let folders = folders(links)?;
    let mut others = folders.iter().filter(|folder| Some(folder.as_path()) != kept);
    others.try_for_each(|folder| remove_interface(folder, programs))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_any_interface() {
        for name in ["lxc1", "eth0.100", "a@b"] {
            let folder = folder_name(name, 7);
            assert!(!folder.contains('.'));
            assert_eq!(interface_of(&Path::new("/x").join(folder)), Some((name.to_owned(), 7)));
        }
    }
}
