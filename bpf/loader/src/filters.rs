//! Programs at interfaces the older way, as filters of a `clsact` qdisc: for kernels without tcx links.
//!
//! A filter stays until it or its interface is deleted, whoever made it, so it needs no pin to live. What is pinned, beside
//! where a link would be, is its program: a note that the filter is there.

use std::path::{Path, PathBuf};

use aya::programs::links::Link as _;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier};

use crate::error::DatapathError;
use crate::hooks::{InterfaceProgram, interface_of, is_here, remove_pin};

/// Before filters that are left to the kernel to order, which begin at 49,152.
const PRIORITY: u16 = 0x4c42;
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// Ends the name of a note.
const NOTE: &str = "_filter";

/// Where the note of a program is that a folder of links stands for.
pub(crate) fn note(folder: &Path, program: &str) -> PathBuf {
    folder.join(format!("{program}{NOTE}"))
}

/// Attaches a program, or puts it in the place of its predecessor in one step. Returns whether there was none.
///
/// # Errors
/// [`DatapathError::Attach`], or [`DatapathError::Pin`] of the note.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    (name, hook): InterfaceProgram,
    interface: &str,
    folder: &Path,
) -> Result<bool, DatapathError> {
    let refused = |source| DatapathError::Attach { program: name, target: interface.to_owned(), source };
    match tc::qdisc_add_clsact(interface) {
        Err(error) if errno(&error) != Some(libc::EEXIST) => return Err(refused(error.into())),
        _ => {}
    }
    let existing = SchedClassifierLink::attached(interface, hook, PRIORITY, HANDLE, None);
    let existing = existing.map_err(|error| refused(TcError::IoError(error).into()))?;
    let (id, is_new) = match program.attach_to_link(existing) {
        Err(ProgramError::TcError(error)) if errno(&error) == Some(libc::ENOENT) => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let options = TcAttachOptions::Netlink(options);
            (program.attach_with_options(interface, hook, options).map_err(refused)?, true)
        }
        replaced => (replaced.map_err(refused)?, false),
    };
    // It would delete the filter when it is dropped.
    std::mem::forget(program.take_link(id).map_err(refused)?);
    let path = note(folder, name);
    remove_pin(&path)?;
    program.pin(&path).map_err(|source| DatapathError::Pin { path: path.clone(), source })?;
    Ok(is_new)
}

/// Deletes the filter of a program, if there is one, and its note.
///
/// # Errors
/// [`DatapathError::Detach`], or [`DatapathError::Folder`] for the note.
pub(crate) fn detach((name, hook): InterfaceProgram, folder: &Path) -> Result<(), DatapathError> {
    let path = note(folder, name);
    if !path.exists() {
        return Ok(());
    }
    // With its interface a filter is gone as well.
    if let Some((interface, _)) = interface_of(folder).filter(|(name, index)| is_here(name, *index)) {
        let refused = |source: ProgramError| DatapathError::Detach {
            program: name,
            interface: interface.clone(),
            source: Box::new(source),
        };
        let filter = SchedClassifierLink::attached(&interface, hook, PRIORITY, HANDLE, None);
        let filter = filter.map_err(|error| refused(TcError::IoError(error).into()))?;
        match filter.detach() {
            Err(ProgramError::NetlinkError(error)) if error.raw_os_error() == Some(libc::ENOENT) => {}
            outcome => outcome.map_err(refused)?,
        }
    }
    remove_pin(&path)
}

fn errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        TcError::AlreadyAttached => Some(libc::EEXIST),
        _ => None,
    }
}
