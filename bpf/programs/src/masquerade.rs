//! Whose name a packet to the world leaves under, and whom one from the world is for.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
};
use landbridge_bpf_maps::{MasqueradeEntry, MasqueradeKey, Reason};
use landbridge_bpf_verdict::{Flow, Fragments, Masquerades, masquerade};

use crate::config::masquerade_address;
use crate::tables::Maps;

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

// The size is the loader's to choose.
#[map]
static MASQUERADE: LruHashMap<MasqueradeKey, MasqueradeEntry> = LruHashMap::with_max_entries(1 << 17, 0);

impl Masquerades for Maps {
    #[inline(always)]
    fn translation(&self, key: &MasqueradeKey) -> Option<MasqueradeEntry> {
        // SAFETY: entries are replaced whole, and copied at once.
        unsafe { MASQUERADE.get(key) }.copied()
    }

    #[inline(always)]
    fn claim(&self, key: &MasqueradeKey, entry: &MasqueradeEntry) -> bool {
        MASQUERADE.insert(key, entry, BPF_NOEXIST).is_ok()
    }

    #[inline(always)]
    fn replace(&self, key: &MasqueradeKey, entry: &MasqueradeEntry) -> bool {
        MASQUERADE.insert(key, entry, BPF_ANY).is_ok()
    }

    #[inline(always)]
    fn find_port(&self, back: &mut MasqueradeKey, owner: &MasqueradeEntry, choice: u32, now: u64) -> bool {
        search_port(back, owner, choice, now) != 0
    }

    #[inline(always)]
    fn take(&self, back: &MasqueradeKey, owner: &MasqueradeEntry, now: u64) -> bool {
        take_port(back, owner, now) != 0
    }
}

/// What one end of a packet becomes.
pub enum Translation {
    /// It stays.
    None,
    /// This.
    To(MasqueradeEntry),
}

/// No drop reason.
const TRANSLATED: u64 = 256;

/// What a packet of the pod with this tag leaves as.
///
/// # Errors
/// Why it cannot leave.
#[inline(always)]
pub fn leaves_as(flow: &mut Flow, endpoint: u16) -> Result<Translation, Reason> {
    let mut name = MasqueradeEntry::default();
    match find_name(flow, u32::from(endpoint), &mut name) {
        0 => Ok(Translation::None),
        TRANSLATED => Ok(Translation::To(name)),
        reason => Err(Reason(reason as u8)),
    }
}

/// The pod that a packet for the node is for.
#[inline(always)]
pub fn comes_for(flow: &mut Flow) -> Translation {
    let mut owner = MasqueradeEntry::default();
    match find_owner(flow, &mut owner) {
        TRANSLATED => Translation::To(owner),
        _ => Translation::None,
    }
}

// Known to the kernel by their names, see `tables`.

/// See [`leaves_as`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_name(flow: *mut Flow, endpoint: u32, place: *mut MasqueradeEntry) -> u64 {
    // SAFETY: both are null or whole, and nobody else has them.
    let (Some(flow), Some(place)) = (unsafe { flow.as_mut() }, unsafe { place.as_mut() }) else { return 0 };
    let node = masquerade_address(flow.version);
    if node.is_none() {
        return 0;
    }
    if let Err(reason) = Maps.complete(flow) {
        return u64::from(reason.0);
    }
    // SAFETY: the helpers take nothing.
    let (choice, now) = unsafe { (bpf_get_prandom_u32(), bpf_ktime_get_ns()) };
    match masquerade::outgoing(&Maps, flow, endpoint as u16, &node, choice, now) {
        Ok(None) => 0,
        Ok(Some(name)) => {
            *place = name;
            TRANSLATED
        }
        Err(reason) => u64::from(reason.0),
    }
}

/// See [`Masquerades::find_port`]. Returns 0 unless one is found.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn search_port(
    back: *mut MasqueradeKey,
    owner: *const MasqueradeEntry,
    choice: u32,
    now: u64,
) -> u64 {
    // SAFETY: both are null or whole, and nobody else has the key.
    let (Some(back), Some(owner)) = (unsafe { back.as_mut() }, unsafe { owner.as_ref() }) else { return 0 };
    u64::from(masquerade::find_port(&Maps, back, owner, choice, now))
}

/// See [`Masquerades::take`]. Returns 0 unless the port is taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_port(back: *const MasqueradeKey, owner: *const MasqueradeEntry, now: u64) -> u64 {
    // SAFETY: both are null or whole.
    let (Some(back), Some(owner)) = (unsafe { back.as_ref() }, unsafe { owner.as_ref() }) else { return 0 };
    u64::from(masquerade::take(&Maps, back, owner, now))
}

/// See [`comes_for`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_owner(flow: *mut Flow, place: *mut MasqueradeEntry) -> u64 {
    // SAFETY: as in `find_name`.
    let (Some(flow), Some(place)) = (unsafe { flow.as_mut() }, unsafe { place.as_mut() }) else { return 0 };
    if flow.destination != masquerade_address(flow.version) {
        return 0;
    }
    // Pieces of the node's own datagrams are the kernel's.
    if Maps.complete(flow).is_err() {
        return 0;
    }
    let Some(owner) = masquerade::incoming(&Maps, flow) else { return 0 };
    // By the name that the later pieces will come under as well.
    Maps.remember_datagram(flow);
    *place = owner;
    TRANSLATED
}
