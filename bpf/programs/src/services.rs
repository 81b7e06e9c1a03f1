//! The maps of services, and how a connection gets its backend from them.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use landbridge_bpf_maps::{
    AffinityEntry, AffinityKey, Algorithm, BACKENDS_LEN, Backend, MAGLEV_LEN, ServiceEntry, ServiceKey,
    SlotGroup,
};
use landbridge_bpf_verdict::selection::{Request, Services, client_key, select, slot_of};

// The sizes are the loader's to choose.
#[map]
static SERVICES: HashMap<ServiceKey, ServiceEntry> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(BACKENDS_LEN, 0);
#[map]
static MAGLEV: Array<SlotGroup> = Array::with_max_entries(MAGLEV_LEN, 0);
#[map]
static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> = LruHashMap::with_max_entries(1 << 16, 0);

/// The kernel's maps.
pub struct Maps;

impl Services for Maps {
    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        BACKENDS.get(index)
    }

    #[inline(always)]
    fn slot(&self, group: u32, slot: u32) -> Option<u16> {
        // The verifier has to see the bound that the compiler knows.
        slot_of(MAGLEV.get(group)?, core::hint::black_box(slot))
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityEntry> {
        // SAFETY: one that is replaced meanwhile may be read half old and half new: then no backend has its address.
        unsafe { AFFINITY.get(key) }
    }

    #[inline(always)]
    fn keep(&self, key: &AffinityKey, entry: &AffinityEntry) {
        let _ = AFFINITY.insert(key, entry, 0);
    }
}

/// The service with an address.
#[inline(always)]
pub fn service(key: &ServiceKey) -> Option<*mut ServiceEntry> {
    let found = SERVICES.get_ptr_mut(key);
    #[cfg(feature = "trial")]
    if crate::trial::planted(landbridge_bpf_maps::Planted::StaleBackend) {
        return found.and_then(|found| crate::trial::stale(key, found));
    }
    found
}

/// No backend.
const NONE: u64 = u64::MAX;

/// The backend of a new connection of `client` to `service`, which is at `key`. `number` decides between several.
/// `is_message` is whether it is one message of many that are to go to the same backend: it takes no turn.
#[inline(always)]
pub fn backend(
    key: &ServiceKey,
    service: *mut ServiceEntry,
    client: u64,
    number: u32,
    is_message: bool,
) -> Option<&'static Backend> {
    match index_of_backend(key, service, client, number, is_message) {
        NONE => None,
        index => BACKENDS.get(index as u32),
    }
}

/// A function of its own in the kernel too, see `tables`.
#[inline(never)]
fn index_of_backend(
    key: &ServiceKey,
    service: *mut ServiceEntry,
    client: u64,
    number: u32,
    is_message: bool,
) -> u64 {
    // SAFETY: the kernel keeps the entry while the program runs, and user space replaces entries whole.
    let entry = unsafe { &*service };
    let turn = if is_message { number } else { entry.turn };
    // SAFETY: the helper only reads a clock.
    let now = if entry.affinity_seconds > 0 { unsafe { bpf_ktime_get_ns() } } else { 0 };
    let client = client_key(AffinityKey::of_namespace(client), key, entry);
    match select(&Maps, entry, &client, &Request { number, turn, now }) {
        Some(selected) => {
            if selected.is_chosen && !is_message && entry.algorithm == Algorithm::RoundRobin as u8 {
                take_turn(service);
            }
            u64::from(selected.index)
        }
        None => NONE,
    }
}

/// Counts a connection that took its turn. Of two CPUs that do so at a time, both may have taken the same one.
#[inline(always)]
pub fn take_turn(service: *mut ServiceEntry) {
    // SAFETY: as in `index_of_backend`; nobody else writes to this field.
    unsafe {
        let turn = &raw mut (*service).turn;
        turn.write_volatile(turn.read_volatile().wrapping_add(1));
    }
}
