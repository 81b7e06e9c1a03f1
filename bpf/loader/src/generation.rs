//! How often what packets are judged by has changed, so that programs know when what they remember of flows is old.

use std::fmt;

use aya::maps::{Array, MapData};

use crate::error::MapError;
use crate::shape::GENERATION;

/// The `GENERATION` map; see [`GENERATION_LEN`](landbridge_bpf_maps::GENERATION_LEN) for what its number means.
pub(crate) struct Generation {
    map: Array<MapData, u64>,
    /// What the map says.
    number: u64,
}

impl Generation {
    /// Begins a new one: the owner before may have died amid a change.
    pub(crate) fn new(map: Array<MapData, u64>) -> Result<Self, MapError> {
        let number = map.get(&0, 0).map_err(MapError::reading(GENERATION))?;
        let mut generation = Self { map, number };
        generation.set(number | 1)?;
        generation.set((number | 1) + 1)?;
        Ok(generation)
    }

    fn set(&mut self, number: u64) -> Result<(), MapError> {
        self.map.set(0, number, 0).map_err(MapError::reading(GENERATION))?;
        self.number = number;
        Ok(())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Generation").field(&self.number).finish()
    }
}

/// A change: from here until it goes out of use, nothing that is known of flows counts.
pub(crate) struct Change<'a>(&'a mut Generation);

impl<'a> Change<'a> {
    /// Begins one, before the first write of it.
    ///
    /// # Errors
    /// [`MapError::Kernel`]: then nothing may be written.
    pub(crate) fn of(generation: &'a mut Generation) -> Result<Self, MapError> {
        generation.set(generation.number | 1)?;
        Ok(Self(generation))
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // If it stays odd, packets are judged one by one until the next change.
        let _ = self.0.set(self.0.number + 1);
    }
}
