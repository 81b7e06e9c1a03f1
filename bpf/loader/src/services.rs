//! Services and their backends.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use landbridge_bpf_maps::{Backend, ServiceEntry, ServiceKey};

use crate::error::MapError;
use crate::runs::Runs;
use crate::shape::BACKENDS;
use crate::table::OwnedTable;

/// The `SERVICES` and `BACKENDS` maps, as [`Datapath`](crate::Datapath) lends them.
pub struct Services<'a> {
    pub(crate) maps: &'a mut ServiceMaps,
}

/// What [`Services`] is lent from.
pub(crate) struct ServiceMaps {
    services: OwnedTable<ServiceKey, ServiceEntry>,
    backends: Array<MapData, Backend>,
    runs: Runs,
}

impl ServiceMaps {
    /// Reads which runs are in use. Returns nothing if services contradict each other.
    pub(crate) fn new(
        services: OwnedTable<ServiceKey, ServiceEntry>,
        backends: Array<MapData, Backend>,
    ) -> Result<Option<Self>, MapError> {
        let mut runs = Runs::new(backends.len());
        let consistent = services.entries()?.values().all(|service| runs.take(service.first, service.count));
        Ok(consistent.then_some(Self { services, backends, runs }))
    }

    fn write_run(&mut self, first: u32, backends: &[Backend]) -> Result<(), MapError> {
        (first..).zip(backends).try_for_each(|(index, backend)| {
            self.backends.set(index, backend, 0).map_err(MapError::reading(BACKENDS))
        })
    }
}

impl Services<'_> {
    /// Gives a service these backends, each as often as it is named. A connect sees the old ones or the new ones,
    /// never a mixture; with none it is refused. `service` is a number for people and events.
    ///
    /// # Errors
    /// [`MapError::Full`] if there is no room for the service or for its backends beside the old ones, or
    /// [`MapError::Kernel`]; then the service is as it was.
    pub fn set(&mut self, key: ServiceKey, service: u32, backends: &[Backend]) -> Result<(), MapError> {
        let full = MapError::Full { map: BACKENDS, size: self.maps.backends.len() };
        let Ok(count) = u32::try_from(backends.len()) else { return Err(full) };
        let old = self.maps.services.get(&key)?;
        let Some(first) = self.maps.runs.allocate(count) else { return Err(full) };
        let entry = ServiceEntry { first, count, service, flags: 0 };
        let written =
            self.maps.write_run(first, backends).and_then(|()| self.maps.services.upsert(&key, &entry));
        let unused =
            if written.is_ok() { old.map(|old| (old.first, old.count)) } else { Some((first, count)) };
        if let Some((first, count)) = unused {
            self.maps.runs.release(first, count);
        }
        written
    }

    /// Removes a service; returns whether there was one. Its address is one like any other from now on.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn remove(&mut self, key: &ServiceKey) -> Result<bool, MapError> {
        let Some(old) = self.maps.services.get(key)? else { return Ok(false) };
        let removed = self.maps.services.remove(key)?;
        self.maps.runs.release(old.first, old.count);
        Ok(removed)
    }

    /// All services with their numbers and backends.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn entries(&self) -> Result<BTreeMap<ServiceKey, (u32, Vec<Backend>)>, MapError> {
        let read = |index| self.maps.backends.get(&index, 0).map_err(MapError::reading(BACKENDS));
        let services = self.maps.services.entries()?.into_iter();
        let with_backends = services.map(|(key, ServiceEntry { first, count, service, .. })| {
            let backends = (first..first + count).map(read).collect::<Result<_, _>>()?;
            Ok((key, (service, backends)))
        });
        with_backends.collect()
    }
}
