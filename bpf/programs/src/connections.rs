//! Connections and datagrams in pieces, as the programs remember them.

use aya_ebpf::{macros::map, maps::LruHashMap};
use landbridge_bpf_maps::{ConnectionEntry, ConnectionKey, FragmentKey, FragmentPorts, Reason};
use landbridge_bpf_verdict::{
    Connections, Flow, Fragment, Fragments, Passage,
    admission::{is_alive, is_news, is_of},
    fragment,
};

use crate::tables::{Maps, outcome};

// The sizes are the loader's to choose.
#[map]
static CONNECTIONS: LruHashMap<ConnectionKey, ConnectionEntry> = LruHashMap::with_max_entries(1 << 18, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> = LruHashMap::with_max_entries(1 << 13, 0);

impl Connections for Maps {
    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<ConnectionEntry> {
        // SAFETY: entries are replaced whole or written to byte by byte, and copied at once.
        unsafe { CONNECTIONS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &ConnectionKey, entry: &ConnectionEntry) -> bool {
        CONNECTIONS.insert(key, entry, 0).is_ok()
    }

    #[inline(always)]
    fn known(&self, key: &ConnectionKey, now: u64) -> Option<u32> {
        match know_connection(key, now) {
            UNKNOWN => None,
            flags => Some(flags as u32),
        }
    }

    #[inline(always)]
    fn see(&self, key: &ConnectionKey, flags: u32, now: u64) -> Option<Passage> {
        match see_connection(key, flags, now) {
            UNKNOWN => None,
            seen => Some(Passage(seen as u8)),
        }
    }
}

impl Fragments for Maps {
    #[inline(always)]
    fn ports(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: as above.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_ports(&self, key: &FragmentKey, ports: &FragmentPorts) {
        // Without it the later pieces are dropped, which is counted.
        let _ = FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn complete(&self, flow: &mut Flow) -> Result<(), Reason> {
        if flow.fragment == Fragment::LATER { outcome(complete_piece(flow)) } else { Ok(()) }
    }

    #[inline(always)]
    fn remember_datagram(&self, flow: &Flow) {
        if flow.fragment == Fragment::FIRST {
            remember_piece(flow);
        }
    }
}

// Known to the kernel by their names, see `tables`.

/// See [`Fragments::complete`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn complete_piece(flow: *mut Flow) -> u64 {
    // SAFETY: it is null or whole, and nobody else has it.
    let outcome = unsafe { flow.as_mut() }.map(|flow| fragment::complete(&Maps, flow));
    match outcome {
        Some(Err(reason)) => u64::from(reason.0),
        Some(Ok(())) | None => 0,
    }
}

/// See [`Fragments::remember_datagram`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn remember_piece(flow: *const Flow) -> u64 {
    // SAFETY: it is null or whole.
    if let Some(flow) = unsafe { flow.as_ref() } {
        fragment::remember(&Maps, flow);
    }
    0
}

/// See [`Connections::known`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn know_connection(key: *const ConnectionKey, now: u64) -> u64 {
    // SAFETY: it is null or whole.
    let Some(key) = (unsafe { key.as_ref() }) else { return UNKNOWN };
    match Maps.connection(key).filter(|entry| is_alive(entry, key.protocol, now)) {
        Some(entry) => u64::from(entry.flags),
        None => UNKNOWN,
    }
}

/// See [`Connections::see`]. A flag is written where it is, so that of two sides that close at once none is forgotten.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn see_connection(key: *const ConnectionKey, flags: u32, now: u64) -> u64 {
    // SAFETY: it is null or whole.
    let Some(key) = (unsafe { key.as_ref() }) else { return UNKNOWN };
    let Some(place) = CONNECTIONS.get_ptr_mut(key) else { return UNKNOWN };
    // SAFETY: the kernel keeps the memory of the entry. In a full map another connection may get it meanwhile: it then has a
    // younger time or more flags than it should, as one that was seen more often has.
    let entry = unsafe { *place };
    if !is_alive(&entry, key.protocol, now) || !is_of(&entry, flags) {
        return UNKNOWN;
    }
    let seen = Passage::of_flags(entry.flags | flags);
    if !is_news(&entry, flags, now) {
        return u64::from(seen.0);
    }
    // SAFETY: as above.
    let flag: *mut u8 = unsafe { (&raw mut (*place).flags).cast() };
    for (byte, added) in flags.to_ne_bytes().into_iter().enumerate() {
        if added != 0 {
            // SAFETY: as above, within the four bytes of the flags.
            unsafe { flag.add(byte).write_volatile(added) };
        }
    }
    // SAFETY: as above. The later of two writers may be the one that looked at the clock first: by a moment.
    unsafe { (&raw mut (*place).last_seen).write_volatile(now) };
    u64::from(seen.and(Passage::NOTED).0)
}

/// No such connection: no flags are that.
const UNKNOWN: u64 = 1 << 32;
