//! Who serves a packet to a service, and by which name its answer comes.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
    programs::TcContext,
};
use landbridge_bpf_maps::{Address, Algorithm, Endpoint, Reason, ServiceEntry, ServiceFlow, ServiceFlowKey};
use landbridge_bpf_verdict::{
    Flow, Fragments, Offers, Translations,
    selection::{Request, Services},
    translation::{
        self, Offer, entry_of, hairpin_address, is_hairpin, key_from_backend, key_to_service, service_key,
    },
};

use crate::rewrite::{End, rewrite};
use crate::services::{Maps as ServiceMaps, service, take_turn};
use crate::tables::{Maps, outcome};

// The size is the loader's to choose.
#[map]
static SERVICE_FLOWS: LruHashMap<ServiceFlowKey, ServiceFlow> = LruHashMap::with_max_entries(1 << 16, 0);

impl Translations for Maps {
    #[inline(always)]
    fn service_flow(&self, key: &ServiceFlowKey) -> Option<ServiceFlow> {
        // SAFETY: entries are replaced whole, and copied at once.
        unsafe { SERVICE_FLOWS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_service_flow(&self, key: &ServiceFlowKey, entry: &ServiceFlow) -> bool {
        SERVICE_FLOWS.insert(key, entry, 0).is_ok()
    }

    #[inline(always)]
    fn is_free(&self, place: &ServiceFlowKey, entry: &ServiceFlow, now: u64) -> bool {
        is_backend_free(place, entry, now) != 0
    }

    #[inline(always)]
    fn answers_are_of(&self, place: &ServiceFlowKey, known: &ServiceFlow) -> bool {
        own_answers(place, known) != 0
    }

    #[inline(always)]
    fn keep_service_flow(&self, place: &ServiceFlowKey, entry: &ServiceFlow) -> bool {
        keep_service(place, entry) != 0
    }
}

/// No drop reasons: there is one; there is none yet.
const FOUND: u64 = 256;
const BEGINS: u64 = 257;

/// Whether a pod's packet is for a service, or for the pod itself, which it sees under another address. Completes `flow` if it
/// can.
#[inline(always)]
pub fn is_for_service(flow: &mut Flow, sender: &Endpoint) -> bool {
    is_called_by_service(flow, u32::from(sender.tag())) != 0
}

/// Who a packet of a pod is really for: a backend, or the pod itself. Nothing for an error about no connection that is known.
///
/// # Errors
/// Why it has to be dropped.
#[inline(always)]
pub fn receiver_of(flow: &mut Flow, sender: &Endpoint, place: &mut ServiceFlow) -> Result<bool, Reason> {
    let endpoint = u32::from(sender.tag());
    let mut number = find_backend(flow, endpoint, place);
    if number == BEGINS {
        number = choose_backend(flow, endpoint, place);
    }
    match number {
        FOUND => Ok(true),
        reason => outcome(reason).map(|()| false),
    }
}

/// Gives an answer the name that the client called, which was a service's.
///
/// # Errors
/// Why it has to be dropped.
#[inline(always)]
pub fn name_service(ctx: &TcContext, flow: &mut Flow, receiver: &Endpoint) -> Result<(), Reason> {
    let mut service = ServiceFlow::default();
    outcome(find_service(flow, u32::from(receiver.tag()), &mut service))?;
    rewrite(ctx, flow, End::Source, &service.address, service.port)
}

/// Hides from a pod that it is its own client: no stack takes packets from itself.
///
/// # Errors
/// [`Reason::WRITE_FAILED`].
#[inline(always)]
pub fn hide_client(ctx: &TcContext, flow: &mut Flow) -> Result<(), Reason> {
    let (hidden, port) = (hairpin_address(&flow.source), flow.source_port);
    rewrite(ctx, flow, End::Source, &hidden, port)
}

// Known to the kernel by their names, see `tables`.

/// See [`is_for_service`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_called_by_service(flow: *mut Flow, endpoint: u32) -> u64 {
    // SAFETY: it is null or whole, and nobody else has it.
    let Some(flow) = (unsafe { flow.as_mut() }) else { return 0 };
    // Of a piece whose first one is not known nobody knows what it is for.
    if Maps.complete(flow).is_err() {
        return 0;
    }
    let is_so = if is_hairpin(flow) {
        Maps.service_flow(&key_from_backend(flow, flow.source, endpoint as u16)).is_some()
    } else {
        service(&service_key(&key_to_service(flow, endpoint as u16))).is_some()
    };
    u64::from(is_so)
}

/// See [`receiver_of`]: all but new connections.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_backend(flow: *mut Flow, endpoint: u32, place: *mut ServiceFlow) -> u64 {
    // SAFETY: both are null or whole, and nobody else has them.
    let (Some(flow), Some(found)) = (unsafe { flow.as_mut() }, unsafe { place.as_mut() }) else { return 0 };
    if Maps.complete(flow).is_err() {
        return 0;
    }
    if is_hairpin(flow) {
        *found = ServiceFlow { address: flow.source, port: flow.destination_port, ..ServiceFlow::default() };
        return FOUND;
    }
    let place = key_to_service(flow, endpoint as u16);
    let Some(service) = service(&service_key(&place)) else { return 0 };
    // SAFETY: the helper only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    match translation::known(&Maps, &Offering { service, place: &place }, flow, &place, now) {
        Some(known) => {
            *found = known;
            FOUND
        }
        None if flow.is_error() => 0,
        None => BEGINS,
    }
}

/// See [`receiver_of`]: new connections.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn choose_backend(flow: *const Flow, endpoint: u32, place: *mut ServiceFlow) -> u64 {
    // SAFETY: both are null or whole, and nobody else has the place.
    let (Some(flow), Some(found)) = (unsafe { flow.as_ref() }, unsafe { place.as_mut() }) else { return 0 };
    let place = key_to_service(flow, endpoint as u16);
    let Some(service) = service(&service_key(&place)) else { return 0 };
    // SAFETY: the helper only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    match translation::connect(&Maps, &Offering { service, place: &place }, &place, now) {
        Ok(offer) => {
            // SAFETY: the kernel keeps the entry while the program runs.
            if offer.is_chosen && unsafe { (*service).algorithm } == Algorithm::RoundRobin as u8 {
                take_turn(service);
            }
            *found = offer.entry;
            FOUND
        }
        Err(reason) => u64::from(reason.0),
    }
}

/// A service of the maps, and who asks it for a backend.
struct Offering<'a> {
    service: *mut ServiceEntry,
    place: &'a ServiceFlowKey,
}

impl Offers for Offering<'_> {
    #[inline(always)]
    fn offer(&self, attempt: u32) -> Option<Offer> {
        let number = offer_backend(self.service, self.place, attempt);
        if number == NONE {
            return None;
        }
        let index = number as u32;
        // SAFETY: the kernel keeps the entry while the program runs, and user space replaces entries whole.
        let entry = entry_of(unsafe { &*self.service }, index, ServiceMaps.backend(index)?);
        Some(Offer { entry, is_chosen: number & CHOSEN != 0 })
    }

    #[inline(always)]
    fn has(&self, entry: &ServiceFlow) -> bool {
        // SAFETY: as above.
        translation::has(&ServiceMaps, unsafe { &*self.service }, entry)
    }
}

/// No index of a backend, and a bit beside one.
const NONE: u64 = u64::MAX;
const CHOSEN: u64 = 1 << 32;

/// See [`Offers::offer`]. Returns the backend's index.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn offer_backend(
    service: *const ServiceEntry,
    place: *const ServiceFlowKey,
    attempt: u32,
) -> u64 {
    // SAFETY: both are null or whole.
    let (Some(service), Some(place)) = (unsafe { service.as_ref() }, unsafe { place.as_ref() }) else {
        return NONE;
    };
    // SAFETY: the helpers take nothing.
    let (number, now) = unsafe { (bpf_get_prandom_u32(), bpf_ktime_get_ns()) };
    let request = Request { number, turn: service.turn, now };
    match translation::offer(&ServiceMaps, service, place, &request, attempt) {
        Some(selected) if selected.is_chosen => u64::from(selected.index) | CHOSEN,
        Some(selected) => u64::from(selected.index),
        None => NONE,
    }
}

/// See [`Translations::is_free`]. Returns 0 if it is not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_backend_free(place: *const ServiceFlowKey, entry: *const ServiceFlow, now: u64) -> u64 {
    // SAFETY: both are null or whole.
    let (Some(place), Some(entry)) = (unsafe { place.as_ref() }, unsafe { entry.as_ref() }) else { return 0 };
    u64::from(translation::is_free(&Maps, place, entry, now))
}

/// See [`Translations::answers_are_of`]. Returns 0 if they are not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn own_answers(place: *const ServiceFlowKey, known: *const ServiceFlow) -> u64 {
    // SAFETY: both are null or whole.
    let (Some(place), Some(known)) = (unsafe { place.as_ref() }, unsafe { known.as_ref() }) else { return 0 };
    u64::from(translation::answers_are_of(&Maps, place, known))
}

/// See [`Translations::keep_service_flow`]. Returns 0 if that is impossible.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep_service(place: *const ServiceFlowKey, entry: *const ServiceFlow) -> u64 {
    // SAFETY: both are null or whole.
    let (Some(place), Some(entry)) = (unsafe { place.as_ref() }, unsafe { entry.as_ref() }) else { return 0 };
    u64::from(translation::keep(&Maps, place, entry))
}

/// See [`name_service`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_service(flow: *const Flow, endpoint: u32, place: *mut ServiceFlow) -> u64 {
    let forgotten = u64::from(Reason::CONNECTION_NOT_TRACKED.0);
    // SAFETY: both are null or whole, and nobody else has the place.
    let (Some(flow), Some(place)) = (unsafe { flow.as_ref() }, unsafe { place.as_mut() }) else {
        return forgotten;
    };
    match Maps.service_flow(&key_from_backend(flow, flow.destination, endpoint as u16)) {
        Some(service) => *place = service,
        None => return forgotten,
    }
    #[cfg(feature = "trial")]
    if crate::trial::planted(landbridge_bpf_maps::Planted::WrongReverseEntry) {
        place.port[1] ^= 1;
    }
    0
}
