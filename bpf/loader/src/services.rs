//! Services and their backends.
//!
//! ```text
//! SERVICES: key ─► entry ─┬─► BACKENDS:  … │ run of this service │ …
//!                         └─► MAGLEV:    … │ its table, if it has one │ …
//! ```
//!
//! A change writes run and table where nobody reads, then the entry, and gives the old ones back.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{Array, IterableMap as _, MapData};
use landbridge_bpf_maps::{Backend, SLOTS_PER_GROUP, ServiceEntry, ServiceKey, ServiceSettings, SlotGroup};
use landbridge_bpf_verdict::selection::groups_of;

use crate::batch::{self, Unfinished};
use crate::error::MapError;
use crate::places::{keep_places, table};
use crate::runs::Runs;
use crate::shape::{BACKENDS, MAGLEV};
use crate::table::OwnedTable;

/// The maps of services, as [`Datapath`](crate::Datapath) lends them.
pub struct Services<'a> {
    pub(crate) maps: &'a mut ServiceMaps,
}

/// What [`Services`] is lent from.
pub(crate) struct ServiceMaps {
    services: OwnedTable<ServiceKey, ServiceEntry>,
    backends: Array<MapData, Backend>,
    tables: Array<MapData, SlotGroup>,
    /// Which part of `backends` is whose.
    runs: Runs,
    /// Likewise of `tables`.
    groups: Runs,
}

/// Entries of an array, to be written before the services that point at them.
struct Writes<V> {
    indexes: Vec<u32>,
    values: Vec<V>,
}

impl<V> Default for Writes<V> {
    fn default() -> Self {
        Self { indexes: Vec::new(), values: Vec::new() }
    }
}

/// Services that have their places in the arrays, but are not written.
#[derive(Default)]
struct Prepared {
    backends: Writes<Backend>,
    groups: Writes<SlotGroup>,
    keys: Vec<ServiceKey>,
    entries: Vec<ServiceEntry>,
}

impl ServiceMaps {
    /// Reads which runs are in use. Returns nothing if services contradict each other.
    pub(crate) fn new(
        services: OwnedTable<ServiceKey, ServiceEntry>,
        backends: Array<MapData, Backend>,
        tables: Array<MapData, SlotGroup>,
    ) -> Result<Option<Self>, MapError> {
        let (mut runs, mut groups) = (Runs::new(backends.len()), Runs::new(tables.len()));
        let consistent = services.entries()?.values().all(|service| {
            runs.take(service.first, service.count)
                && groups.take(service.table, groups_of(service.table_len))
        });
        Ok(consistent.then_some(Self { services, backends, tables, runs, groups }))
    }

    /// Finds places for all of them, or for none.
    fn prepare<'a>(
        &mut self,
        services: impl Iterator<Item = (ServiceKey, ServiceSettings, &'a [Backend])>,
    ) -> Result<Prepared, MapError> {
        let mut prepared = Prepared::default();
        for (key, settings, backends) in services {
            if let Err(error) = self.add(&mut prepared, key, settings, backends) {
                self.release(&prepared.entries);
                return Err(error);
            }
        }
        Ok(prepared)
    }

    fn add(
        &mut self,
        prepared: &mut Prepared,
        key: ServiceKey,
        settings: ServiceSettings,
        backends: &[Backend],
    ) -> Result<(), MapError> {
        let no_backends = MapError::Full { map: BACKENDS, size: self.backends.len() };
        let no_groups = MapError::Full { map: MAGLEV, size: self.tables.len() };
        let before = if settings.affinity_seconds > 0 { self.run(&key)? } else { Vec::new() };
        let run = keep_places(&before, backends);
        let Ok(count) = u32::try_from(run.len()) else { return Err(no_backends) };
        let table = table(settings.algorithm, &run);
        let table_len = u32::try_from(table.len()).unwrap_or_default();
        let Some(first) = self.runs.allocate(count) else { return Err(no_backends) };
        let Some(group) = self.groups.allocate(groups_of(table_len)) else {
            self.runs.release(first, count);
            return Err(no_groups);
        };
        let ServiceSettings { service, algorithm, affinity_seconds } = settings;
        prepared.keys.push(key);
        prepared.entries.push(ServiceEntry {
            first,
            count,
            service,
            affinity_seconds,
            table: group,
            table_len,
            turn: 0,
            algorithm: algorithm as u8,
            reserved: [0; 3],
        });
        prepared.backends.add(first, run);
        prepared.groups.add(group, table.chunks(SLOTS_PER_GROUP as usize).map(group_of));
        Ok(())
    }

    /// The run of a service, places without a backend included; empty if there is none.
    fn run(&self, key: &ServiceKey) -> Result<Vec<Backend>, MapError> {
        let entry = self.services.get(key)?.unwrap_or_default();
        self.backends_of(&entry).collect()
    }

    fn backends_of(&self, entry: &ServiceEntry) -> impl Iterator<Item = Result<Backend, MapError>> {
        let run = entry.first..entry.first + entry.count;
        run.map(|index| self.backends.get(&index, 0).map_err(MapError::reading(BACKENDS)))
    }

    fn release(&mut self, entries: &[ServiceEntry]) {
        for entry in entries {
            self.runs.release(entry.first, entry.count);
            self.groups.release(entry.table, groups_of(entry.table_len));
        }
    }

    /// Writes what was prepared. If that fails, what was not written is as it was.
    fn write(&mut self, mut prepared: Prepared) -> Result<(), MapError> {
        let mut olds = Vec::with_capacity(prepared.keys.len());
        let arrays = prepared
            .backends
            .write(BACKENDS, self.backends.map())
            .and_then(|()| prepared.groups.write(MAGLEV, self.tables.map()))
            .and_then(|()| self.take_turns(&mut prepared, &mut olds));
        let (written, outcome) = match arrays {
            Ok(()) => match self.services.upsert_all(&prepared.keys, &prepared.entries) {
                Ok(()) => (prepared.keys.len(), Ok(())),
                Err((written, error)) => (written, Err(error)),
            },
            Err(error) => (0, Err(error)),
        };
        let unused: Vec<ServiceEntry> = olds.into_iter().take(written).flatten().collect();
        self.release(&unused);
        self.release(&prepared.entries[written..]);
        outcome
    }

    /// Reads the entries that are about to be replaced: turns go on where they are.
    fn take_turns(
        &self,
        prepared: &mut Prepared,
        olds: &mut Vec<Option<ServiceEntry>>,
    ) -> Result<(), MapError> {
        for (key, entry) in prepared.keys.iter().zip(&mut prepared.entries) {
            let old = self.services.get(key)?;
            entry.turn = old.map_or(0, |old| old.turn);
            olds.push(old);
        }
        Ok(())
    }
}

impl<V: Pod> Writes<V> {
    fn add(&mut self, first: u32, values: impl IntoIterator<Item = V>) {
        for (index, value) in (first..).zip(values) {
            self.indexes.push(index);
            self.values.push(value);
        }
    }

    fn write(&self, name: &'static str, map: &MapData) -> Result<(), MapError> {
        batch::update(map.fd().as_fd(), &self.indexes, &self.values)
            .map_err(|Unfinished { source, .. }| MapError::reading(name)(source.into()))
    }
}

fn group_of(slots: &[u16]) -> SlotGroup {
    let mut group = SlotGroup::default();
    for (place, slot) in group.0.iter_mut().zip(slots) {
        *place = *slot;
    }
    group
}

impl Services<'_> {
    /// Gives a service these settings and backends. A connect sees the old ones or the new ones, never a mixture; with none
    /// it is refused. Of more than 65,521 backends, all get the same share.
    ///
    /// # Errors
    /// [`MapError::Full`] if there is no room for the service, or for its backends or table beside the old ones, or
    /// [`MapError::Kernel`]; then the service is as it was.
    pub fn set(
        &mut self,
        key: ServiceKey,
        settings: ServiceSettings,
        backends: &[Backend],
    ) -> Result<(), MapError> {
        let prepared = self.maps.prepare([(key, settings, backends)].into_iter())?;
        self.maps.write(prepared)
    }

    /// As [`Services::set`] for many services, with few system calls. Each changes at once, one after the other.
    ///
    /// # Errors
    /// As [`Services::set`]; then some services may be as they were.
    pub fn load(
        &mut self,
        services: &BTreeMap<ServiceKey, (ServiceSettings, &[Backend])>,
    ) -> Result<(), MapError> {
        let services = services.iter().map(|(key, (settings, backends))| (*key, *settings, *backends));
        let prepared = self.maps.prepare(services)?;
        self.maps.write(prepared)
    }

    /// Removes a service; returns whether there was one. Its address is one like any other from now on.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn remove(&mut self, key: &ServiceKey) -> Result<bool, MapError> {
        let Some(old) = self.maps.services.get(key)? else { return Ok(false) };
        let removed = self.maps.services.remove(key)?;
        self.maps.release(&[old]);
        Ok(removed)
    }

    /// All services with their settings and backends, in ascending order.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn entries(&self) -> Result<BTreeMap<ServiceKey, (ServiceSettings, Vec<Backend>)>, MapError> {
        let services = self.maps.services.entries()?.into_iter();
        let with_backends = services.map(|(key, entry)| {
            let mut backends = self.maps.backends_of(&entry).collect::<Result<Vec<_>, _>>()?;
            backends.retain(|backend| !backend.address.is_none());
            backends.sort_unstable();
            Ok((key, (entry.settings(), backends)))
        });
        with_backends.collect()
    }
}
