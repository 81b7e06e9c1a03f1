//! Maps that are keyed by what they are about, with one writer.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use aya::Pod;
use aya::maps::{HashMap, IterableMap as _, Map, MapData};

use crate::batch::{self, Unfinished};
use crate::error::{MapError, errno};
use crate::generation::{Change, Generation};

/// A hash or a trie of the datapath, as [`Datapath`](crate::Datapath) lends it.
#[derive(Debug)]
pub struct Table<'a, K, V> {
    map: &'a mut OwnedTable<K, V>,
    generation: &'a mut Generation,
}

/// What a [`Table`] is lent from.
#[derive(Debug)]
pub(crate) struct OwnedTable<K, V> {
    name: &'static str,
    size: u32,
    /// A trie looks for the longest prefix where a hash looks for the key itself.
    is_trie: bool,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + Ord, V: Pod> OwnedTable<K, V> {
    pub(crate) fn new(name: &'static str, size: u32, map: Map) -> Result<Self, MapError> {
        let is_trie = matches!(map, Map::LpmTrie(_));
        // The system calls of both are the same, and the key of a trie begins with the length of its prefix.
        let map = if let Map::LpmTrie(data) = map { Map::HashMap(data) } else { map };
        let map = HashMap::try_from(map).map_err(MapError::reading(name))?;
        Ok(Self { name, size, is_trie, map })
    }

    pub(crate) fn lend<'a>(&'a mut self, generation: &'a mut Generation) -> Table<'a, K, V> {
        Table { map: self, generation }
    }

    pub(crate) fn upsert(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.map.insert(key, value, 0).map_err(|source| MapError::writing(self.name, self.size, source))
    }

    /// Writes entries in their order. If that fails, says how many were written, too.
    pub(crate) fn upsert_all(&mut self, keys: &[K], values: &[V]) -> Result<(), (usize, MapError)> {
        batch::update(self.map.map().fd().as_fd(), keys, values).map_err(|Unfinished { written, source }| {
            (written, MapError::writing(self.name, self.size, source.into()))
        })
    }

    pub(crate) fn remove(&mut self, key: &K) -> Result<bool, MapError> {
        match self.map.remove(key) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(MapError::reading(self.name)(error)),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        if self.is_trie {
            return Ok(self.entries()?.remove(key));
        }
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(MapError::reading(self.name)(error)),
        }
    }

    pub(crate) fn entries(&self) -> Result<BTreeMap<K, V>, MapError> {
        self.map.iter().collect::<Result<_, _>>().map_err(MapError::reading(self.name))
    }
}

impl<K: Pod + Ord, V: Pod> Table<'_, K, V> {
    /// Writes one entry, new or not; readers see the old value or the new one.
    ///
    /// # Errors
    /// [`MapError::Full`], or [`MapError::Kernel`].
    pub fn upsert(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        let _change = Change::of(self.generation)?;
        self.map.upsert(key, value)
    }

    /// Removes one entry; returns whether there was one.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn remove(&mut self, key: &K) -> Result<bool, MapError> {
        let _change = Change::of(self.generation)?;
        self.map.remove(key)
    }

    /// The entry of exactly this key. Of a trie this reads all entries, since the kernel looks for prefixes only.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        self.map.get(key)
    }

    /// All entries, one system call or two for each.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn entries(&self) -> Result<BTreeMap<K, V>, MapError> {
        self.map.entries()
    }
}
