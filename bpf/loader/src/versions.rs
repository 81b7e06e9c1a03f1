//! Pins that a version with another layout of the maps left.
//!
//! ```text
//!  open        v1/maps/CONNECTIONS … ─► v2/maps     what the programs wrote and means the same goes on being written
//!              v1/{endpoints, …}     ─► v2          links, which hold the old programs still, with the old maps
//!              the owner fills the new maps
//!  take over   links are pointed at the new programs, v1 is deleted
//! ```
//!
//! Each step is a rename or repeats what is done already, so that the next process goes on wherever one ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use landbridge_bpf_maps::SCHEMA;

use crate::error::{DatapathError, MapError};
use crate::hooks::{folders, make_folder, remove_folder};
use crate::shape::{
    self, CONNECTIONS, MASQUERADE, METRICS, MapShape, SERVICE_FLOWS, SOCKET_SERVICE, UDP_PEERS,
};
use crate::sizes::MapSizes;

/// The folder of maps in that of a version; the others are of links.
pub(crate) const MAPS: &str = "maps";

/// Maps that the programs write, with the schema since which they mean the same. What the owner writes is written anew. That
/// a side has closed a connection is said by other bits since 3, which only makes what was closing then last longer.
const KEPT: [(&str, u32); 6] = [
    (CONNECTIONS, 1),
    (MASQUERADE, 3),
    (SERVICE_FLOWS, 5),
    (UDP_PEERS, 1),
    (SOCKET_SERVICE, 4),
    (METRICS, 1),
];

/// The folder of this version.
pub(crate) fn folder(pins: &Path) -> PathBuf {
    pins.join(format!("v{SCHEMA}"))
}

/// The folders of older versions.
///
/// # Errors
/// [`DatapathError::Newer`] if there is a newer one, whose maps this version cannot read.
pub(crate) fn older(pins: &Path) -> Result<Vec<(u32, PathBuf)>, DatapathError> {
    let mut older = Vec::new();
    for path in folders(pins)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(schema) = name.and_then(|name| name.strip_prefix('v')?.parse().ok()) else { continue };
        if schema > SCHEMA {
            return Err(DatapathError::Newer { path, found: schema, known: SCHEMA });
        }
        if schema < SCHEMA {
            older.push((schema, path));
        }
    }
    Ok(older)
}

/// Moves into this version's folder what an older one has that goes on: maps that mean the same, and links.
///
/// # Errors
/// [`DatapathError::Folder`], [`DatapathError::Map`].
pub(crate) fn inherit(
    (schema, older): &(u32, PathBuf),
    current: &Path,
    sizes: &MapSizes,
) -> Result<(), DatapathError> {
    let maps = current.join(MAPS);
    make_folder(&maps)?;
    for (name, wanted) in shape::all(sizes) {
        let pin = older.join(MAPS).join(name);
        let means_the_same = KEPT.iter().any(|(kept, since)| *kept == name && since <= schema);
        if !means_the_same || !pin.exists() || maps.join(name).exists() {
            continue;
        }
        let found = MapInfo::from_pin(&pin)
            .and_then(|info| MapShape::read(&info))
            .map_err(MapError::reading(name))?;
        if found == wanted {
            rename(&pin, &maps.join(name))?;
        }
    }
    for links in folders(older)?.into_iter().filter(|links| !links.ends_with(MAPS)) {
        for folder in folders(&links)? {
            let place = current.join(links.strip_prefix(older).unwrap_or(&links));
            make_folder(&place)?;
            let place = place.join(folder.strip_prefix(&links).unwrap_or(&folder));
            if !place.exists() {
                rename(&folder, &place)?;
            }
        }
    }
    Ok(())
}

/// Deletes what is left of older versions.
///
/// # Errors
/// [`DatapathError::Folder`].
pub(crate) fn forget(older: &[(u32, PathBuf)]) -> Result<(), DatapathError> {
    older.iter().try_for_each(|(_, folder)| remove_folder(folder))
}

fn rename(from: &Path, to: &Path) -> Result<(), DatapathError> {
    match fs::rename(from, to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Folder { action: "move", path: from.to_owned(), source })
        }
        _ => Ok(()),
    }
}
