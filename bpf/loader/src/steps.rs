//! The programs that others go on with, in the map by which they do.

use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::Program;
use landbridge_bpf_maps::Step;

use crate::error::{DatapathError, MapError};
use crate::shape::STEPS;

/// Gives the programs those that they go on with. Where others are in place, these go on with the new ones from now on.
pub(crate) fn connect(object: &mut Ebpf) -> Result<(), DatapathError> {
    for step in Step::ALL {
        let name = step.program();
        let fd = match object.program(name) {
            Some(Program::SchedClassifier(program)) => program.fd(),
            _ => return Err(DatapathError::Missing(name)),
        };
        let fd = fd
            .and_then(|fd| Ok(fd.try_clone()?))
            .map_err(|source| DatapathError::Load { program: name, source })?;
        let map = object.map_mut(STEPS).ok_or(DatapathError::Missing(STEPS))?;
        let mut steps = ProgramArray::try_from(map).map_err(MapError::reading(STEPS))?;
        steps.set(step as u32, &fd, 0).map_err(MapError::reading(STEPS))?;
    }
    Ok(())
}

/// Takes one of them away.
#[cfg(feature = "trial")]
pub(crate) fn disconnect(object: &mut Ebpf, step: Step) -> Result<(), DatapathError> {
    let map = object.map_mut(STEPS).ok_or(DatapathError::Missing(STEPS))?;
    let mut steps = ProgramArray::try_from(map).map_err(MapError::reading(STEPS))?;
    Ok(steps.clear_index(&(step as u32)).map_err(MapError::reading(STEPS))?)
}
